// A scan method for narrow pages of more than 8 bytes, for AVX-512 with GFNI: that of scan_octets.h,
// for several blocks at once.
//
// A register takes 4 or 2 whole pages, or a span of one. One to three levels of permutations bring
// the bytes of 8 pages into matrices, a block each: at most 8 loads, where a load for each block of
// each page would be 64.
#pragma once

#include "scan_octets.h"

#if defined(__AVX512VBMI__) && defined(__GFNI__)

namespace morphogen {
namespace {

// `Count` is the blocks of a span, 2 to 8.
template <std::size_t Count>
class SpanMethod {
 public:
  static constexpr std::size_t kOctetBytes = kKeyAlign;

  explicit SpanMethod(const PageRun& run)
      : run_(run),
        blocks_(run.columns->page_size),
        groups_(run.key_stride / kKeyAlign),
        ahead_(narrow_ahead(run, kOctet)) {
    const std::size_t whole = kLoadPages * blocks_.page_size, span = Count * Blocks::kBytes;
    loaded_ = ~__mmask64{0} >> (64 - (kLoadPages == 1 && span < whole ? span : whole));
    // The first level takes some blocks of all pages of two loads, each table other blocks.
    constexpr std::size_t kFirstWidth = kLevels == 3 ? 4 : kLevels == 2 ? 2 : 1;
    for (std::size_t table = 0; table * kFirstWidth < Count; ++table) {
      for (std::size_t i = 0; i < 64; ++i) {
        std::size_t page = i / (kFirstWidth * Blocks::kBytes);
        std::size_t column = i % (kFirstWidth * Blocks::kBytes);
        if (kLevels == 1) {  // the last level at once
          page = kOctet - 1 - i % kOctet;
          column = i / kOctet;
        }
        std::size_t block = table * kFirstWidth + column / Blocks::kBytes;
        if (block >= Count) block = Count - 1;  // nobody reads it
        first_[table][i] = static_cast<std::uint8_t>(
            page / kLoadPages * 64 + page % kLoadPages * blocks_.page_size +
            blocks_.offset(block) + column % Blocks::kBytes);
      }
    }
    // The second takes two blocks of two pages each, the last one of four, in the order of matrices.
    for (std::size_t half = 0; half < 2; ++half) {
      for (std::size_t i = 0; i < 64; ++i) {
        second_[half][i] =
            static_cast<std::uint8_t>(i / 16 % 2 * 32 + i / 32 * 64 + half * 16 + i % 16);
        // The instruction numbers matrix rows from the last byte on, so take the pages backwards.
        const std::size_t page = kOctet - 1 - i % kOctet;
        last_[half][i] = static_cast<std::uint8_t>(page * 16 + half * 8 + i / kOctet);
      }
    }
  }

  std::size_t step_pages() const { return kOctet; }

  // Adds 8 pages of each stream.
  template <std::size_t Streams>
  MORPHOGEN_FN void add(const std::uint8_t* pages, std::size_t stream_bytes,
                        const std::uint8_t* selection, std::size_t stream_selection) const {
    std::uint8_t* sums = run_.sums;
    const std::size_t span_sums = Count * groups_ * sizeof(__m512i);
    for (std::size_t span = 0; span < blocks_.spans; ++span, sums += span_sums) {
      const std::uint8_t* at = pages + blocks_.span_offset(span);
      constexpr std::size_t kTogether = Streams < kMostTogether ? Streams : kMostTogether;
#pragma GCC unroll 2
      for (std::size_t i = 0; i < Streams; i += kTogether) {
        __m512i matrices[kTogether][Count];
#pragma GCC unroll 4
        for (std::size_t j = 0; j < kTogether; ++j) {
          make_matrices(at + (i + j) * stream_bytes, matrices[j]);
          if (Streams == 1) continue;
          // 8 pages of a block are as many bytes as a line.
          for (std::size_t block = span * Count; block < (span + 1) * Count; ++block)
            __builtin_prefetch(pages + (i + j) * stream_bytes + ahead_ + block * kCacheLine);
        }
        add_groups<kTogether>(matrices, selection + i * stream_selection, stream_selection, sums);
      }
    }
  }

  // Adds fewer than 8 pages. Missing pages count as zero.
  void add_rest(const std::uint8_t* pages, const std::uint8_t* selection, std::size_t count) const {
    alignas(64) std::uint8_t whole[kOctet * kNarrowBytes] = {};
    std::memcpy(whole, pages, count * blocks_.page_size);
    add<1>(whole, 0, selection, 0);
  }

 private:
  static constexpr std::size_t kLoadPages = Count > 4 ? 1 : Count > 2 ? 2 : 4;
  static constexpr std::size_t kLoads = kOctet / kLoadPages;
  static constexpr int kLevels = Count > 4 ? 3 : Count > 2 ? 2 : 1;
  // Streams whose matrices are held in registers together.
  static constexpr std::size_t kMostTogether = Count > 4 ? 2 : 4;

  static MORPHOGEN_FN __m512i table(const std::uint8_t (&bytes)[64]) {
    return _mm512_load_si512(bytes);
  }

  // Returns the bits of all pages as one row, for each column of a block: this constant transposes
  // a matrix.
  static MORPHOGEN_FN __m512i transpose(__m512i bytes) {
    const __m512i reversed_identity = _mm512_set1_epi64(0x0102040810204080);
    return _mm512_gf2p8affine_epi64_epi8(reversed_identity, bytes, 0);
  }

  // Makes the matrices of each block of 8 pages.
  MORPHOGEN_FN void make_matrices(const std::uint8_t* pages, __m512i (&out)[Count]) const {
    const std::size_t step = kLoadPages * blocks_.page_size;
    __m512i loads[kLoads];
#pragma GCC unroll 8
    for (std::size_t i = 0; i < kLoads; ++i)
      loads[i] = _mm512_maskz_loadu_epi8(loaded_, pages + i * step);
    if constexpr (kLevels == 1) {
#pragma GCC unroll 2
      for (std::size_t block = 0; block < Count; ++block)
        out[block] =
            transpose(_mm512_permutex2var_epi8(loads[0], table(first_[block]), loads[1]));
    } else if constexpr (kLevels == 2) {
#pragma GCC unroll 2
      for (std::size_t pair = 0; pair < (Count + 1) / 2; ++pair) {
        const __m512i by_pairs = table(first_[pair]);
        const __m512i low = _mm512_permutex2var_epi8(loads[0], by_pairs, loads[1]);
        const __m512i high = _mm512_permutex2var_epi8(loads[2], by_pairs, loads[3]);
        finish_pair(low, high, pair, out);
      }
    } else {
#pragma GCC unroll 2
      for (std::size_t four = 0; four < 2; ++four) {
        __m512i twos[4];
#pragma GCC unroll 4
        for (std::size_t i = 0; i < 4; ++i)
          twos[i] = _mm512_permutex2var_epi8(loads[2 * i], table(first_[four]), loads[2 * i + 1]);
#pragma GCC unroll 2
        for (std::size_t half = 0; half < 2; ++half) {
          const std::size_t pair = 2 * four + half;
          if (2 * pair >= Count) continue;
          const __m512i by_pairs = table(second_[half]);
          const __m512i low = _mm512_permutex2var_epi8(twos[0], by_pairs, twos[1]);
          const __m512i high = _mm512_permutex2var_epi8(twos[2], by_pairs, twos[3]);
          finish_pair(low, high, pair, out);
        }
      }
    }
  }

  // Makes the matrices of two blocks of 4 and 4 pages.
  MORPHOGEN_FN void finish_pair(__m512i low, __m512i high, std::size_t pair,
                                __m512i (&out)[Count]) const {
    out[2 * pair] = transpose(_mm512_permutex2var_epi8(low, table(last_[0]), high));
    if (2 * pair + 1 < Count)
      out[2 * pair + 1] = transpose(_mm512_permutex2var_epi8(low, table(last_[1]), high));
  }

  template <std::size_t Streams>
  MORPHOGEN_FN void add_groups(const __m512i (&matrices)[Streams][Count],
                               const std::uint8_t* selection, std::size_t stream_selection,
                               std::uint8_t* sums) const {
    // [block][group], as in scan_octets.h.
    const std::size_t block_sums = groups_ * sizeof(__m512i);
    for (std::size_t group = 0; group < groups_;
         ++group, selection += run_.plane_bytes, sums += sizeof(__m512i)) {
      __m512i selected[Streams];
#pragma GCC unroll 4
      for (std::size_t i = 0; i < Streams; ++i)
        selected[i] = _mm512_set1_epi64(load_long(selection + i * stream_selection));
#pragma GCC unroll 8
      for (std::size_t block = 0; block < Count; ++block) {
        std::uint8_t* const own = sums + block * block_sums;
        __m512i sum = _mm512_load_si512(own);
        const auto product = [&](std::size_t i) {
          return _mm512_gf2p8affine_epi64_epi8(selected[i], matrices[i][block], 0);
        };
        if constexpr (Streams == 1) {
          sum = _mm512_xor_si512(sum, product(0));
        } else {
#pragma GCC unroll 2
          for (std::size_t i = 0; i < Streams; i += 2) sum = xor3(sum, product(i), product(i + 1));
        }
        _mm512_store_si512(own, sum);
      }
    }
  }

  const PageRun& run_;
  const Blocks blocks_;
  const std::size_t groups_;
  const std::size_t ahead_;  // bytes to the lines that are prefetched
  __mmask64 loaded_;         // the bytes of a load
  alignas(64) std::uint8_t first_[2][64] = {}, second_[2][64], last_[2][64];
};

// Scans pages of `count` blocks a span, at least Count.
template <std::size_t Count>
inline void scan_spans(const PageRun& run, std::size_t count) {
  if constexpr (Count < Blocks::kMostOfSpan) {
    if (count > Count) return scan_spans<Count + 1>(run, count);
  }
  scan_narrow(run, SpanMethod<Count>(run));
}

}  // namespace
}  // namespace morphogen
#endif
