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

// The cut of a narrow page into blocks of 8 columns of one byte. If the page is no multiple of 8,
// its last block overlaps its neighbour, and both hold the same bytes of the overlap.
struct Blocks {
  static constexpr std::size_t kBytes = 8;

  std::size_t page_size, count;
  std::size_t octets;   // of pages whose columns fill one block
  std::size_t columns;  // of one octet

  explicit Blocks(std::size_t size)
      : page_size(size),
        count((size + kBytes - 1) / kBytes),
        octets(size < kBytes ? kBytes / size : 1),
        columns(size < kBytes ? size : kBytes) {}

  MORPHOGEN_FN std::size_t offset(std::size_t block) const {
    const std::size_t start = block * kBytes;
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
  for (std::size_t block = 0; block < blocks.count; ++block) {
    // The last block's first columns may be those of the block before.
    const std::size_t first = block * Blocks::kBytes - blocks.offset(block);
    for (std::size_t key = 0; key < key_count; ++key) {
      const std::uint8_t* own =
          sums + (block * key_stride + key / kKeyAlign * kKeyAlign) * Blocks::kBytes +
          key % kKeyAlign;
      std::uint8_t* page = out + key * page_size + blocks.offset(block);
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

// `Contiguous` tells that 8 pages are no more bytes than a register, so that one load gets them.
// `Single` tells that a block has one octet.
template <bool Contiguous, bool Single>
class OctetMethod {
 public:
  static constexpr std::size_t kOctetBytes = kKeyAlign;

  explicit OctetMethod(const PageRun& run)
      : run_(run), blocks_(run.columns->page_size), groups_(run.key_stride / kKeyAlign) {
    // A block reads lines of the whole step.
    const std::size_t step_bytes = step_pages() * blocks_.page_size + kStreamAheadBytes / 2;
    ahead_ = step_bytes > kStreamAheadBytes ? step_bytes : kStreamAheadBytes;
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
    __m512i* sums = reinterpret_cast<__m512i*>(run_.sums);
    for (std::size_t block = 0; block < blocks_.count; ++block) {
      __m512i matrices[Streams];
#pragma GCC unroll 4
      for (std::size_t i = 0; i < Streams; ++i) {
        const std::uint8_t* stream = pages + i * stream_bytes;
        matrices[i] = make_matrices(load_pages(stream + blocks_.offset(block)));
        // 8 pages of a block are as many bytes as a line.
        if (Streams > 1) __builtin_prefetch(stream + ahead_ + block * kCacheLine);
      }
      const std::uint8_t* own = selection;
      for (std::size_t group = 0; group < groups_; ++group, own += run_.plane_bytes, ++sums) {
        __m512i products[Streams];
#pragma GCC unroll 4
        for (std::size_t i = 0; i < Streams; ++i)
          products[i] = _mm512_gf2p8affine_epi64_epi8(load_selection(own + i * stream_selection),
                                                      matrices[i], 0);
        __m512i sum = _mm512_load_si512(sums);
        if constexpr (Streams == 1) {
          sum = _mm512_xor_si512(sum, products[0]);
        } else {
#pragma GCC unroll 2
          for (std::size_t i = 0; i < Streams; i += 2) sum = xor3(sum, products[i], products[i + 1]);
        }
        _mm512_store_si512(sums, sum);
      }
    }
  }

  // Adds fewer pages than a step. Missing pages count as zero.
  void add_rest(const std::uint8_t* pages, const std::uint8_t* selection, std::size_t count) const {
    __m512i* sums = reinterpret_cast<__m512i*>(run_.sums);
    for (std::size_t block = 0; block < blocks_.count; ++block) {
      alignas(64) std::uint8_t bytes[64] = {};
      for (std::size_t page = 0; page < count; ++page)
        std::memcpy(bytes + page * blocks_.columns,
                    pages + page * blocks_.page_size + blocks_.offset(block), blocks_.columns);
      const __m512i matrices = make_matrices(_mm512_load_si512(bytes));
      const std::uint8_t* own = selection;
      for (std::size_t group = 0; group < groups_; ++group, own += run_.plane_bytes, ++sums) {
        const __m512i product =
            _mm512_gf2p8affine_epi64_epi8(load_selection(own), matrices, 0);
        _mm512_store_si512(sums, _mm512_xor_si512(_mm512_load_si512(sums), product));
      }
    }
  }

 private:
  // Returns a block of the pages of a step, page by page.
  MORPHOGEN_FN __m512i load_pages(const std::uint8_t* block) const {
    if (!Contiguous) return load_words(block, blocks_.page_size);
    const std::size_t left = sizeof(__m512i) - step_pages() * blocks_.page_size;
    return _mm512_maskz_loadu_epi8(~__mmask64{0} >> left, block);
  }

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
  std::size_t ahead_;  // bytes to the lines that are prefetched
  __m512i order_;   // from pages' bytes to columns
  __m512i octets_;  // the octet of each matrix
};

}  // namespace
}  // namespace morphogen
#endif
