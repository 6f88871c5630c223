// A scan method for narrow pages of any size, for AVX-512 with GFNI: the scan as a product of bit
// matrices, where scan_gfni.h multiplies from the other side.
//
// Eight bytes of each of 8 pages, put column by column, are eight 8 x 8 matrices of bits. One
// GF2P8AFFINEQB multiplies the selection bytes of 8 keys with all eight. No line need divide into
// pages for that: bytes are loaded from where they lie, and the sums of 8 keys take 8 bytes for
// each byte of a page. Pages of 4 bytes or less leave place for several octets side by side.
#pragma once

#include "avx512.h"
#include "scan_narrow.h"

namespace morphogen {
namespace {

// The cut of a narrow page into blocks of 8 columns of one byte, and of pages of more than 64 bytes
// into spans of equally many blocks. If the page is no multiple of that, its last block or span
// overlaps its neighbour, and both hold the same bytes of the overlap.
struct Blocks {
  static constexpr std::size_t kBytes = 8, kMostOfSpan = 8;

  std::size_t page_size, spans, of_span, count;
  std::size_t octets;   // of pages whose columns fill one block
  std::size_t columns;  // of one octet

  explicit Blocks(std::size_t size) : page_size(size) {
    const std::size_t least = (size + kBytes - 1) / kBytes;
    spans = (least + kMostOfSpan - 1) / kMostOfSpan;
    of_span = (least + spans - 1) / spans;
    count = spans * of_span;
    octets = size < kBytes ? kBytes / size : 1;
    columns = size < kBytes ? size : kBytes;
  }

  MORPHOGEN_FN std::size_t span_offset(std::size_t span) const {
    const std::size_t bytes = of_span * kBytes;
    return span == 0 || (span + 1) * bytes <= page_size ? span * bytes : page_size - bytes;
  }

  // Returns where a block of the page begins.
  MORPHOGEN_FN std::size_t offset(std::size_t block) const {
    const std::size_t start = span_offset(block / of_span) + block % of_span * kBytes;
    return start == 0 || start + kBytes <= page_size ? start : page_size - kBytes;
  }

  // Returns the bytes of all sums: [block][group of 8 keys][octet][column][key].
  std::size_t sum_bytes(std::size_t key_stride) const { return count * kBytes * key_stride; }
};

// Writes, or adds, one page a key.
inline void gather_block_sums(const std::uint8_t* sums, std::size_t page_size,
                              std::size_t key_count, std::size_t key_stride, bool add,
                              std::uint8_t* out) {
  const Blocks blocks(page_size);
  std::size_t end = 0;  // of the bytes that blocks before had
  for (std::size_t block = 0; block < blocks.count; ++block) {
    const std::size_t start = blocks.offset(block);
    // The first columns may be those of blocks before.
    const std::size_t first = end > start ? end - start : 0;
    if (start + Blocks::kBytes > end) end = start + Blocks::kBytes;
    for (std::size_t key = 0; key < key_count; ++key) {
      const std::uint8_t* own =
          sums + (block * key_stride + key / kKeyAlign * kKeyAlign) * Blocks::kBytes +
          key % kKeyAlign;
      std::uint8_t* page = out + key * page_size + start;
      for (std::size_t column = first; column < blocks.columns; ++column) {
        if (!add) page[column] = 0;
        for (std::size_t octet = 0; octet < blocks.octets; ++octet)
          page[column] ^= own[(octet * blocks.columns + column) * kKeyAlign];
      }
    }
  }
}

}  // namespace
}  // namespace morphogen

#if defined(__AVX512VBMI__) && defined(__GFNI__)
#include <immintrin.h>

namespace morphogen {
namespace {

// For pages of up to 8 bytes: one load gets 8 of them. `Single` tells that a block has one octet.
template <bool Single>
class OctetMethod {
 public:
  static constexpr std::size_t kOctetBytes = kKeyAlign;

  explicit OctetMethod(const PageRun& run)
      : run_(run), blocks_(run.columns->page_size), groups_(run.key_stride / kKeyAlign) {
    loaded_ = ~__mmask64{0} >> (64 - step_pages() * blocks_.page_size);
    ahead_ = narrow_ahead(run, step_pages());
    alignas(64) std::uint8_t order[64] = {};
    alignas(64) long long octets[8] = {};
    for (std::size_t word = 0; word < 8; ++word) {
      const std::size_t octet = word / blocks_.columns, column = word % blocks_.columns;
      if (octet >= blocks_.octets) continue;  // nobody reads this place of the sums
      octets[word] = static_cast<long long>(octet);
      // The instruction numbers matrix rows from the last byte on, so take the pages backwards.
      for (std::size_t page = 0; page < kOctet; ++page)
        order[8 * word + 7 - page] =
            static_cast<std::uint8_t>((octet * kOctet + page) * blocks_.columns + column);
    }
    order_ = _mm512_load_si512(order);
    octets_ = _mm512_load_si512(octets);
  }

  std::size_t step_pages() const { return (Single ? 1 : blocks_.octets) * kOctet; }

  // Adds a step of each stream.
  template <std::size_t Streams>
  MORPHOGEN_FN void add(const std::uint8_t* pages, std::size_t stream_bytes,
                        const std::uint8_t* selection, std::size_t stream_selection) const {
    __m512i matrices[Streams];
#pragma GCC unroll 4
    for (std::size_t i = 0; i < Streams; ++i) {
      const std::uint8_t* stream = pages + i * stream_bytes;
      matrices[i] = make_matrices(_mm512_maskz_loadu_epi8(loaded_, stream));
      if (Streams > 1) __builtin_prefetch(stream + ahead_);
    }
    __m512i* sums = reinterpret_cast<__m512i*>(run_.sums);
    for (std::size_t group = 0; group < groups_; ++group, selection += run_.plane_bytes) {
      __m512i products[Streams];
#pragma GCC unroll 4
      for (std::size_t i = 0; i < Streams; ++i)
        products[i] = _mm512_gf2p8affine_epi64_epi8(load_selection(selection + i * stream_selection),
                                                    matrices[i], 0);
      __m512i sum = _mm512_load_si512(sums + group);
      if constexpr (Streams == 1) {
        sum = _mm512_xor_si512(sum, products[0]);
      } else {
#pragma GCC unroll 2
        for (std::size_t i = 0; i < Streams; i += 2) sum = xor3(sum, products[i], products[i + 1]);
      }
      _mm512_store_si512(sums + group, sum);
    }
  }

  // Adds fewer pages than a step. Missing pages count as zero.
  void add_rest(const std::uint8_t* pages, const std::uint8_t* selection, std::size_t count) const {
    alignas(64) std::uint8_t whole[64] = {};
    std::memcpy(whole, pages, count * blocks_.page_size);
    add<1>(whole, 0, selection, 0);
  }

 private:
  // Returns a matrix for each column of a block.
  MORPHOGEN_FN __m512i make_matrices(__m512i pages) const {
    // This constant transposes a matrix: bit i of all pages becomes one row.
    const __m512i reversed_identity = _mm512_set1_epi64(0x0102040810204080);
    return _mm512_gf2p8affine_epi64_epi8(reversed_identity,
                                         _mm512_permutexvar_epi8(order_, pages), 0);
  }

  // Returns the selection bytes of 8 keys for the pages of each matrix.
  MORPHOGEN_FN __m512i load_selection(const std::uint8_t* selection) const {
    if (!Single) return _mm512_permutexvar_epi64(octets_, _mm512_loadu_si512(selection));
    return _mm512_set1_epi64(load_long(selection));
  }

  const PageRun& run_;
  const Blocks blocks_;
  const std::size_t groups_;
  __mmask64 loaded_;    // the bytes of a step
  std::size_t ahead_;   // bytes to the lines that are prefetched
  __m512i order_;   // from pages' bytes to columns
  __m512i octets_;  // the octet of each matrix
};

}  // namespace
}  // namespace morphogen
#endif
