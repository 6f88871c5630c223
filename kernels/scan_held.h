// A scan method for few keys and pages of few lines. It holds the sums of some lines of a page in
// registers, and adds page after page to them, under a mask for each key. So it reads nearly in
// memory order, where MaskMethod reads 8 pages side by side.
#pragma once

#include "scan_masks.h"

namespace morphogen {
namespace {

// Narrower pages have no whole line of their own.
constexpr std::size_t kLeastHeldBytes = 64;

// Returns the number of keys for which the method is compiled, at least `key_count`. One key takes
// the code of one query: with less to do between lines, more of those that are asked for are dropped
// (measured on Zen 5, docs/experiments.md).
MORPHOGEN_FN std::size_t held_keys(std::size_t key_count) {
  return key_count <= kOneQueryKeys ? kOneQueryKeys : kTwoQueryKeys;
}

#if defined(__AVX512F__)
// Pages wait for memory unless lines are asked for: 8 KiB ahead, by measurement (Zen 5,
// docs/experiments.md).
constexpr std::size_t kHeldAheadBytes = 8 << 10;
// A block of pages stays in the first-level cache from one group of lines to the next.
constexpr std::size_t kHeldBlockBytes = 8 << 10;
constexpr std::size_t kHeldBlockPages = 32;
constexpr std::size_t kHeldSums = 24;  // the registers that are not masks or a page's line

template <std::size_t Keys>
class HeldScan {
 public:
  explicit HeldScan(const PageRun& run) : run_(run), columns_(*run.columns) {}

  void run() {
    const std::size_t size = columns_.page_size;
    std::size_t block = kHeldBlockPages;
    while (block > kOctet && block * size > kHeldBlockBytes) block /= 2;
    for (std::size_t page = 0; page < run_.page_count; page += block) {
      const std::size_t left = run_.page_count - page;
      const std::size_t count = left < block ? left : block;
      make_masks(run_.selection + page / kOctet * run_.key_stride, count);
      pages_ = run_.pages + page * size;
      ahead_ = reinterpret_cast<std::uintptr_t>(pages_) + kHeldAheadBytes;
      add_columns<kMostLines>(run_.first_column, count);
    }
  }

 private:
  typedef Column<kCacheLine> Line;
  typedef std::uint64_t Mask;
  typedef Mask OctetMasks __attribute__((vector_size(kOctet * sizeof(Mask))));
  typedef Mask SplatMask __attribute__((vector_size(kCacheLine)));
  typedef std::uint8_t Bytes __attribute__((vector_size(kCacheLine)));
  static constexpr std::size_t kMostLines = Keys <= kOneQueryKeys ? 8 : 4;
  static_assert(Keys * kMostLines <= kHeldSums, "sums stay in registers");

  void make_masks(const std::uint8_t* selection, std::size_t count) {
    for (std::size_t page = 0; page < count; page += kOctet, selection += run_.key_stride)
      for (std::size_t key = 0; key < Keys; ++key) {
        const OctetMasks bits = OctetMasks{} + selection[key];
        *reinterpret_cast<OctetMasks*>(&masks_[key][page]) =
            -((bits >> OctetMasks{0, 1, 2, 3, 4, 5, 6, 7}) & 1);
      }
  }

  // Adds the columns from `first` on, `Lines` at a time, and the rest by fewer at a time.
  template <std::size_t Lines>
  void add_columns(std::size_t first, std::size_t count) {
    for (; first + Lines <= run_.end_column; first += Lines) add<Lines>(first, count);
    if constexpr (Lines > 1) add_columns<Lines / 2>(first, count);
  }

  template <std::size_t Lines>
  MORPHOGEN_FN void add(std::size_t first, std::size_t count) {
    const std::size_t stride = run_.sum_stride;
    Line* const sums = reinterpret_cast<Line*>(run_.sums) + (first - run_.first_column) * stride;
    Line sum[Lines][Keys];
    std::size_t offset[Lines];
#pragma GCC unroll 16
    for (std::size_t i = 0; i < Lines; ++i) {
      offset[i] = columns_.offset(first + i);
#pragma GCC unroll 6
      for (std::size_t key = 0; key < Keys; ++key) sum[i][key] = sums[i * stride + key];
    }
    const std::uint8_t* at = pages_;
    // The compiler must not take several pages at once: their masks fill the registers.
#pragma GCC unroll 1
    for (std::size_t page = 0; page < count; ++page, at += columns_.page_size) {
      Line mask[Keys];
#pragma GCC unroll 6
      for (std::size_t key = 0; key < Keys; ++key)
        mask[key].part[0] = reinterpret_cast<Bytes>(SplatMask{} + masks_[key][page]);
#pragma GCC unroll 16
      for (std::size_t i = 0; i < Lines; ++i) {
        const Line line = Line::load(at + offset[i]);
        __builtin_prefetch(reinterpret_cast<const void*>(ahead_ + i * kCacheLine), 0, 2);
#pragma GCC unroll 6
        for (std::size_t key = 0; key < Keys; ++key)
          sum[i][key] = sum[i][key] ^ (line & mask[key]);
      }
      ahead_ += Lines * kCacheLine;
    }
#pragma GCC unroll 16
    for (std::size_t i = 0; i < Lines; ++i)
#pragma GCC unroll 6
      for (std::size_t key = 0; key < Keys; ++key) sums[i * stride + key] = sum[i][key];
  }

  const PageRun& run_;
  const Columns& columns_;
  const std::uint8_t* pages_ = nullptr;  // the block's
  std::uintptr_t ahead_ = 0;             // the next line to ask for, past the last page, too
  alignas(64) Mask masks_[Keys][kHeldBlockPages];
};

#endif

inline void scan_with_held_sums([[maybe_unused]] const PageRun& run) {
#if defined(__AVX512F__)
  if (held_keys(run.key_count) == kOneQueryKeys) return HeldScan<kOneQueryKeys>(run).run();
  HeldScan<kTwoQueryKeys>(run).run();
#endif
}

}  // namespace
}  // namespace morphogen
