// A scan method for few keys, for any instruction set. It ANDs each page with a mask of all ones or
// all zeros for every key. That takes one three-input logic instruction for each key and vector on
// instruction sets that have one, and two on others. It needs the fewest sums of all methods.
#pragma once

#include "page_scan.h"

namespace morphogen {
namespace {

// The method is compiled for the keys of one query and of two. Fewer keys run with zero masks in
// the spare places (the selection's rows are padded with zeros), which costs nothing while memory
// is slower.
constexpr std::size_t kOneQueryKeys = 3;
constexpr std::size_t kTwoQueryKeys = 6;

template <int Bytes, std::size_t Keys>
class MaskMethod {
 public:
  typedef Column<Bytes> C;
  static constexpr std::size_t kColumnBytes = Bytes;
  static constexpr std::size_t kOctets = 1;

  explicit MaskMethod(std::size_t) {}

  MORPHOGEN_FN void select(const std::uint8_t* selection, std::size_t) {
    for (std::size_t key = 0; key < Keys; ++key)
      for (std::size_t page = 0; page < kOctet; ++page)
        masks_[page][key] = C::splat(static_cast<std::uint8_t>(-((selection[key] >> page) & 1)));
  }

  template <class Prefetcher>
  MORPHOGEN_FN void add_column(const std::uint8_t* column, const Rows& rows, std::size_t count,
                               Prefetcher& prefetcher, std::uint8_t* sums) {
    C* out = reinterpret_cast<C*>(sums);
    // Make the compiler read the masks from the first-level cache. It would keep the masks of 3
    // keys in registers, and the scan would run 10% slower (docs/experiments.md).
    if (Keys <= kOneQueryKeys) __asm__ volatile("" : "+m"(masks_));
    C sum[Keys];
    for (std::size_t key = 0; key < Keys; ++key) sum[key] = out[key];
    if (count >= kOctet) {
      prefetcher.template advance<kOctet * Bytes / kCacheLine>();
#pragma GCC unroll 8
      for (std::size_t page = 0; page < kOctet; ++page)
        add_page(C::load(column + page * rows.row_bytes), masks_[page], sum);
    } else {
      for (std::size_t page = 0; page < count; ++page)
        add_page(C::load(column + page * rows.row_bytes), masks_[page], sum);
    }
    for (std::size_t key = 0; key < Keys; ++key) out[key] = sum[key];
  }

 private:
  static MORPHOGEN_FN void add_page(const C& page, const C (&masks)[Keys], C (&sum)[Keys]) {
    for (std::size_t key = 0; key < Keys; ++key) sum[key] = sum[key] ^ (page & masks[key]);
  }

  C masks_[kOctet][Keys];
};

}  // namespace
}  // namespace morphogen
