// The loops over the pages that a thread reads, where all the time goes. They XOR the pages that
// the keys select, with masks, for up to 6 keys. chosen_sums.h has the loop for more keys.
#pragma once

#include <cstdint>

#include "block_range.h"

namespace morphogen {
namespace {

__device__ __forceinline__ void xor_selected(Vector& sum, const Vector& page, std::uint32_t mask) {
  sum.x ^= page.x & mask;
  sum.y ^= page.y & mask;
  sum.z ^= page.z & mask;
  sum.w ^= page.w & mask;
}

// Returns all ones if bit `position` of `bits` is set, else zero.
__device__ __forceinline__ std::uint32_t bit_mask(std::uint32_t bits, unsigned position) {
  return 0u - ((bits >> position) & 1u);
}

// Returns the mask of a byte's top bit: all ones if it is set, else zero. PRMT copies that bit over
// four bytes in one instruction; shifts and a negation would take three.
template <unsigned Byte>
__device__ __forceinline__ std::uint32_t top_bit_mask(std::uint32_t word) {
  constexpr unsigned kCopyTopBit = 8;  // in a selector's nibble, beside the byte's number
  std::uint32_t mask;
  // __byte_perm does not serve: it clears this bit of the selector.
  asm("prmt.b32 %0, %1, 0, %2;" : "=r"(mask) : "r"(word), "n"(0x1111 * (kCopyTopBit | Byte)));
  return mask;
}

constexpr unsigned kGroupPages = 32;  // the pages that a word selects

// XORs the selected pages of a group into `sums`. Each step takes the pages whose bits are at the
// top of the words' four bytes. They are 8 pages apart, and the next step takes the pages before
// them.
template <class Plan, bool Whole>
__device__ __forceinline__ void scan_group(const Vector* page, std::uint64_t vectors,
                                           unsigned count, std::uint32_t (&selected)[Plan::kKeys],
                                           Vector (&sums)[Plan::kKeys]) {
  constexpr int kSteps = kGroupPages / 4;
#pragma unroll 1
  for (int step = kSteps - 1; step >= 0; --step) {
    const Vector* first = page + static_cast<unsigned>(step) * vectors;
    Vector loaded[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const bool exists = Whole || static_cast<unsigned>(step + i * kSteps) < count;
      loaded[i] = exists ? Plan::load(first + i * kSteps * vectors) : Vector{0, 0, 0, 0};
    }
#pragma unroll
    for (int k = 0; k < Plan::kKeys; ++k) {
      xor_selected(sums[k], loaded[0], top_bit_mask<0>(selected[k]));
      xor_selected(sums[k], loaded[1], top_bit_mask<1>(selected[k]));
      xor_selected(sums[k], loaded[2], top_bit_mask<2>(selected[k]));
      xor_selected(sums[k], loaded[3], top_bit_mask<3>(selected[k]));
      selected[k] <<= 1;
    }
  }
}

// XORs the selected pages of `count` pages into `sums`. The first page is bit `bit` of the window.
template <class Plan, unsigned Words>
__device__ __forceinline__ void scan_pages(const Vector* page, unsigned vectors, unsigned bit,
                                           unsigned count,
                                           const std::uint32_t (&bits)[Plan::kKeys][Words],
                                           Vector (&sums)[Plan::kKeys]) {
  while (count > 0) {
    std::uint32_t selected[Plan::kKeys];
    for (int k = 0; k < Plan::kKeys; ++k) {
      selected[k] = __funnelshift_r(bits[k][bit / 32], bits[k][bit / 32 + 1], bit % 32);
    }
    if (count < kGroupPages) {
      scan_group<Plan, false>(page, vectors, count, selected, sums);
      break;
    }
    scan_group<Plan, true>(page, vectors, count, selected, sums);
    page += std::uint64_t{kGroupPages} * vectors;
    bit += kGroupPages;
    count -= kGroupPages;
  }
}

// Does the same for pages narrower than a warp: every thread looks up its own page's bits.
template <class Plan, unsigned Words>
__device__ __forceinline__ void scan_narrow_pages(
    const Vector* page, unsigned vectors, unsigned bit, unsigned count, const Place& place,
    const std::uint32_t (&bits)[Plan::kKeys][Words], Vector (&sums)[Plan::kKeys]) {
#pragma unroll 2  // loads in flight
  for (unsigned at = place.row; at < count; at += place.rows) {
    const Vector loaded = Plan::load(page + std::uint64_t{at} * vectors);
    const unsigned position = bit + at;
#pragma unroll
    for (int k = 0; k < Plan::kKeys; ++k) {
      xor_selected(sums[k], loaded, bit_mask(bits[k][position / 32], position % 32));
    }
  }
}

}  // namespace
}  // namespace morphogen
