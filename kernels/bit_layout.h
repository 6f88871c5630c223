// Lays out pages for the binary tensor cores: see bit_jobs.h.
#pragma once

#include <cstdint>

#include "bit_jobs.h"
#include "page_stream.h"

namespace morphogen {
namespace {

// A warp transposes 4 bytes of all pages of a group, 32 pages at a time.
__device__ __forceinline__ void transpose(const TransposeJob& job) {
  constexpr unsigned kWordUnits = sizeof(std::uint32_t) / kUnitPageBytes;
  constexpr unsigned kWords = kGroupPages / kWarpThreads;
  const unsigned lane = threadIdx.x % kWarpThreads;
  const unsigned words = job.vectors * (kVectorBytes / sizeof(std::uint32_t));  // of a page
  const auto* const pages = static_cast<const std::uint32_t*>(job.pages);
  auto* const out = static_cast<std::uint32_t*>(job.bit_pages);
  // The place of the lane's bit: of the word's two units, one has it in its first or second byte.
  const unsigned unit = lane / (8 * kUnitPageBytes), byte = lane / 8 % kUnitPageBytes;
  const unsigned row = lane % 8;
  const std::uint64_t stride = std::uint64_t{gridDim.x} * (kTransposeThreads / kWarpThreads);
  std::uint64_t at = (std::uint64_t{blockIdx.x} * kTransposeThreads + threadIdx.x) / kWarpThreads;
  for (; at < job.groups * words; at += stride) {
    const std::uint64_t group = job.first_group + at / words;
    const unsigned word = static_cast<unsigned>(at % words);
    const std::uint64_t first =
        (group * words + word) * kWordUnits * (kUnitBytes / sizeof(std::uint32_t));
#pragma unroll 1
    for (unsigned i = 0; i < kWords; ++i) {
      const std::uint64_t page = group * kGroupPages + i * kWarpThreads + lane;
      const std::uint32_t bits = page < job.num_pages ? pages[page * words + word] : 0;
      std::uint32_t own = 0;
#pragma unroll
      for (unsigned b = 0; b < kWarpThreads; ++b) {
        const std::uint32_t column = __ballot_sync(kAllLanes, bits >> b & 1u);
        if (b == lane) own = column;
      }
      const unsigned thread = row * 4 + i / 2;
      out[first + unit * (kUnitBytes / sizeof(std::uint32_t)) + thread * 4 + i % 2 * 2 + byte] = own;
    }
  }
}

}  // namespace
}  // namespace morphogen
