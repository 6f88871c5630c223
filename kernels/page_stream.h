// Device code that streams over all pages: a pure read, which benchmarks compare a scan with, and a
// fill, which makes random pages on the device.
#pragma once

#include <cstdint>

#include "page_jobs.h"

namespace morphogen {
namespace {

using Vector = uint4;
using Word64 = unsigned long long;  // the type that CUDA's atomics take
static_assert(sizeof(Vector) == kVectorBytes);

constexpr unsigned kWarpThreads = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

__device__ __forceinline__ void xor_into(Vector& sum, const Vector& other) {
  sum.x ^= other.x;
  sum.y ^= other.y;
  sum.z ^= other.z;
  sum.w ^= other.w;
}

// Every page byte is used once a launch, so it need not stay in a cache.
__device__ __forceinline__ Vector load_once(const Vector* address) { return __ldcs(address); }

__device__ __forceinline__ void read(const ReadJob& job) {
  constexpr int kLoadsInFlight = 8;
  const std::uint64_t stride = std::uint64_t{gridDim.x} * kBlockThreads;
  std::uint64_t at = std::uint64_t{blockIdx.x} * kBlockThreads + threadIdx.x;
  const Vector* pages = static_cast<const Vector*>(job.pages);
  Vector sum = {0, 0, 0, 0};
  for (; at + (kLoadsInFlight - 1) * stride < job.vectors; at += kLoadsInFlight * stride) {
    Vector loaded[kLoadsInFlight];
#pragma unroll
    for (int i = 0; i < kLoadsInFlight; ++i) loaded[i] = load_once(pages + at + i * stride);
#pragma unroll
    for (int i = 0; i < kLoadsInFlight; ++i) xor_into(sum, loaded[i]);
  }
#pragma unroll 1
  for (; at < job.vectors; at += stride) xor_into(sum, load_once(pages + at));

  Word64* total = reinterpret_cast<Word64*>(job.sum);
  const Word64 low = __reduce_xor_sync(kAllLanes, sum.x ^ sum.z);
  const Word64 high = __reduce_xor_sync(kAllLanes, sum.y ^ sum.w);
  if (threadIdx.x % kWarpThreads == 0) atomicXor(total, high << 32 | low);
  __syncthreads();
  if (threadIdx.x != 0) return;
  __threadfence();
  if (atomicAdd(job.finished, 1u) == gridDim.x - 1) {
    __threadfence();
    *job.answer = __ldcg(total);
    *total = 0;
    *job.finished = 0;
  }
}

// SplitMix64 (Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014).
// It returns the output of one counter value, so that the host can compute any page alone.
__device__ __forceinline__ Word64 splitmix64(Word64 seed, Word64 counter) {
  Word64 z = seed + (counter + 1) * 0x9e3779b97f4a7c15ull;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

__device__ __forceinline__ void fill(const FillJob& job) {
  const std::uint64_t stride = std::uint64_t{gridDim.x} * kBlockThreads;
  std::uint64_t at = std::uint64_t{blockIdx.x} * kBlockThreads + threadIdx.x;
  for (; at < job.words; at += stride) {
    const std::uint64_t first = at % job.page_words * sizeof(Word64);
    Word64 word = splitmix64(job.seed, at);
    // The bytes beyond the page's end are padding, and zero.
    const std::uint64_t left = first < job.page_bytes ? job.page_bytes - first : 0;
    if (left < sizeof(Word64)) word &= (Word64{1} << 8 * left) - 1;
    job.pages[at] = word;
  }
}

}  // namespace
}  // namespace morphogen
