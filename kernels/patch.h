// Adds pages that changed between two epochs to answers of the one, which makes them answers of the
// other.
#pragma once

#include <cstddef>
#include <cstdint>

#include "dpf.h"
#include "host_kernels.h"

namespace morphogen {

// The XOR of both epochs' bytes of some pages. Indices ascend, and count from the first page of a
// leaf.
struct PatchPages {
  std::uint64_t first_leaf;
  const std::int64_t* indices;
  const std::uint8_t* pages;  // page_size apart
  std::size_t count;
  std::size_t page_size;
};

// The leaves of the tree whose selection bits are computed by one walk: at most so many, and no
// more than a gap apart, which cost about as much as another walk.
constexpr std::int64_t kPatchLeaves = 512;
constexpr std::int64_t kPatchGap = 64;

// XORs a page into a sum. The arguments are not reread: bytes that are written might alias them.
inline void add_page(std::uint8_t* __restrict sum, const std::uint8_t* __restrict page,
                     std::size_t size) {
  for (std::size_t at = 0; at < size; ++at) sum[at] ^= page[at];
}

// XORs into `answer` the pages of a patch that a key selects. The key is valid for their table.
inline void add_selected(const PatchPages& patch, const HostKernels& kernels,
                         const std::uint8_t* key, std::uint8_t* answer) {
  alignas(64) std::uint8_t bits[kPatchLeaves * kLeafBytes];
  const auto leaf = [&](std::size_t at) { return patch.indices[at] / kLeafBits; };
  std::size_t end = 0;
  for (std::size_t begin = 0; begin < patch.count; begin = end) {
    const std::int64_t first = leaf(begin);
    end = begin + 1;
    while (end < patch.count && leaf(end) - leaf(end - 1) <= kPatchGap &&
           leaf(end) - first < kPatchLeaves)
      ++end;
    kernels.expand(key, patch.first_leaf + first, leaf(end - 1) - first + 1, bits);
    for (std::size_t at = begin; at < end; ++at) {
      const std::int64_t bit = patch.indices[at] - first * kLeafBits;
      if (bits[bit / 8] >> (bit % 8) & 1)
        add_page(answer, patch.pages + at * patch.page_size, patch.page_size);
    }
  }
}

}  // namespace morphogen
