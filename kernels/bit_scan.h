// Counts, for each key and bit of a page, the selected pages that have the bit, on binary tensor
// cores. The parity of a count is the bit of the answer.
#pragma once

#include <cstdint>

#include "bit_jobs.h"
#include "page_stream.h"

namespace morphogen {
namespace {

constexpr int kTileKeys = 8;  // the columns of a matrix product

template <int Keys>
constexpr unsigned kBitThreads = bit_shape(Keys).threads;
template <int Keys>
constexpr unsigned kWarpUnits = bit_shape(Keys).warp_units;
template <int Keys>
constexpr int kGroupsAhead = bit_shape(Keys).groups_ahead;
template <int Keys>
constexpr unsigned kWindowGroups = bit_shape(Keys).window_groups;

// The counts of 16 bits of the pages for 8 keys. Thread 4 * g + c has, of bit g, those of keys 2c and
// 2c + 1 in the first byte, then in the second.
struct Counts {
  int value[4];
};

struct KeyBits {
  std::uint32_t low, high;
};

// Adds the counts of 256 pages. Thread 4 * g + c gives pages from 64 * c on: of bits g of the page,
// and of key g.
__device__ __forceinline__ void count_selected(Counts& counts, const Vector& unit,
                                               const KeyBits& keys) {
  asm("mma.sync.aligned.m16n8k256.row.col.s32.b1.b1.s32.and.popc "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+r"(counts.value[0]), "+r"(counts.value[1]), "+r"(counts.value[2]), "+r"(counts.value[3])
      : "r"(unit.x), "r"(unit.y), "r"(unit.z), "r"(unit.w), "r"(keys.low), "r"(keys.high));
}

// Copies 16 bytes to shared memory, without registers between.
__device__ __forceinline__ void copy_async(void* to, const void* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(
                   static_cast<unsigned>(__cvta_generic_to_shared(to))),
               "l"(from)
               : "memory");
}
__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
__device__ __forceinline__ void wait_for_copies() {
  asm volatile("cp.async.wait_all;" ::: "memory");
}

// The part of the table that a block answers for: groups of one tile.
struct BitRange {
  unsigned tile;
  unsigned first_vector;     // the tile's first vector in the page
  unsigned width;            // vectors of the tile
  std::uint64_t begin, end;  // groups of the run
};

__device__ __forceinline__ BitRange bit_range(const BitJob& job) {
  BitRange range;
  range.tile = blockIdx.x % job.tiles;
  range.first_vector = range.tile * job.tile_vectors;
  range.width = min(job.tile_vectors, job.vectors - range.first_vector);
  const unsigned run = blockIdx.x / job.tiles;
  range.begin = job.groups_per_run * run + min(run, job.longer_runs);
  range.end = range.begin + job.groups_per_run + (run < job.longer_runs);
  return range;
}

// Returns the parities of one value of each of two units' counts, in the places of the word that
// the units' four bytes make. All threads of a column of the product get all 32.
__device__ __forceinline__ std::uint32_t parities(const Counts& low, const Counts& high, int value,
                                                  unsigned row) {
  std::uint32_t word = (low.value[value] & 1u) | (low.value[value + 2] & 1u) << 8 |
                       (high.value[value] & 1u) << 16 | (high.value[value + 2] & 1u) << 24;
  word <<= row;
  word |= __shfl_xor_sync(kAllLanes, word, 4);
  word |= __shfl_xor_sync(kAllLanes, word, 8);
  return word | __shfl_xor_sync(kAllLanes, word, 16);
}

// Adds a warp's parities to the accumulators. `first_unit` is its first in the page.
template <int Tiles, int Units>
__device__ __forceinline__ void publish_parities(const BitJob& job, unsigned first_unit,
                                                 const Counts (&counts)[Units][Tiles]) {
  static_assert(Units % 2 == 0, "two units make a word");
  const unsigned lane = threadIdx.x % kWarpThreads, row = lane / 4, column = lane % 4;
  auto* const words = static_cast<unsigned*>(job.accumulators);
  const std::uint64_t page_words = std::uint64_t{job.vectors} * (kVectorBytes / sizeof(unsigned));
#pragma unroll
  for (int tile = 0; tile < Tiles; ++tile) {
    const unsigned key = tile * kTileKeys + 2 * column + row;  // of the threads of rows 0 and 1
    const bool adds = row < 2 && key < job.keys;
#pragma unroll
    for (int unit = 0; unit < Units; unit += 2) {
      const std::uint32_t even = parities(counts[unit][tile], counts[unit + 1][tile], 0, row);
      const std::uint32_t odd = parities(counts[unit][tile], counts[unit + 1][tile], 1, row);
      if (adds) atomicXor(words + key * page_words + (first_unit + unit) / 2, row ? odd : even);
    }
  }
}

template <int Keys>
__device__ __forceinline__ void scan_bits(const BitJob& job) {
  constexpr int kUnits = kWarpUnits<Keys>, kTiles = Keys / kTileKeys, kAhead = kGroupsAhead<Keys>;
  constexpr unsigned kWarps = kBitThreads<Keys> / kWarpThreads;
  constexpr unsigned kGroupVectors = Keys * kGroupBytes / kVectorBytes;  // of selection bits
  __shared__ Vector window[2][kWindowGroups<Keys> * kGroupVectors];
  __shared__ bool is_last;

  const BitRange range = bit_range(job);
  const unsigned lane = threadIdx.x % kWarpThreads;
  // The warps of a row share a group, each with a part of the tile.
  const unsigned row_warps = range.width * kVectorUnits / kUnits;
  const unsigned rows = kWarps / row_warps;
  const unsigned warp = threadIdx.x / kWarpThreads, row = warp / row_warps;
  const unsigned first_unit = range.first_vector * kVectorUnits + warp % row_warps * kUnits;
  const std::uint64_t group_vectors =  // of pages
      std::uint64_t{job.vectors} * kVectorUnits * (kUnitBytes / kVectorBytes);
  const auto* const pages =
      static_cast<const Vector*>(job.bit_pages) + first_unit * (kUnitBytes / kVectorBytes) + lane;
  const auto* const selection = static_cast<const Vector*>(job.selection);

  const auto fetch_window = [&](std::uint64_t first, unsigned buffer) {
    const unsigned groups = min(std::uint64_t{kWindowGroups<Keys>}, range.end - first);
    for (unsigned i = threadIdx.x; i < groups * kGroupVectors; i += kBitThreads<Keys>) {
      copy_async(&window[buffer][i], selection + first * kGroupVectors + i);
    }
    commit_copies();
  };
  const auto load_units = [&](Vector (&units)[kUnits], std::uint64_t group) {
#pragma unroll
    for (int i = 0; i < kUnits; ++i) {
      units[i] = load_once(pages + group * group_vectors + i * (kUnitBytes / kVectorBytes));
    }
  };

  Counts counts[kUnits][kTiles] = {};
  Vector units[kAhead + 1][kUnits];
  // A warp without a part of the tile has no groups.
  std::uint64_t group = row < rows ? range.begin + row : range.end;
  if (range.begin < range.end) fetch_window(range.begin, 0);
  // Beyond its last group a warp reads that again.
  const auto load_ahead = [&](Vector (&to)[kUnits], unsigned turns) {
    const std::uint64_t wanted = group + turns * rows;
    load_units(to, wanted < range.end ? wanted : group);
  };
  if (group < range.end) {
#pragma unroll
    for (int i = 0; i < kAhead; ++i) load_ahead(units[i], i);
  }
  unsigned buffer = 0;
#pragma unroll 1
  for (std::uint64_t first = range.begin; first < range.end; first += kWindowGroups<Keys>) {
    wait_for_copies();
    // All copies to this buffer have come, and no warp reads the other any more.
    __syncthreads();
    const std::uint64_t stop = min(range.end, first + kWindowGroups<Keys>);
    if (stop < range.end) fetch_window(stop, buffer ^ 1);
#pragma unroll 1
    for (; group < stop; group += rows) {
      load_ahead(units[kAhead], kAhead);
      const auto* const bits = reinterpret_cast<const KeyBits*>(
          &window[buffer][static_cast<unsigned>(group - first) * kGroupVectors]);
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        const KeyBits keys = bits[tile * kWarpThreads + lane];
#pragma unroll
        for (int i = 0; i < kUnits; ++i) count_selected(counts[i][tile], units[0][i], keys);
      }
#pragma unroll
      for (int ahead = 0; ahead < kAhead; ++ahead) {
#pragma unroll
        for (int i = 0; i < kUnits; ++i) units[ahead][i] = units[ahead + 1][i];
      }
    }
    buffer ^= 1;
  }
  if (row < rows) publish_parities<kTiles, kUnits>(job, first_unit, counts);

  __syncthreads();
  if (threadIdx.x == 0) {
    // The fences come after the barrier, so they cover the whole block's sums. The first releases
    // them, the second acquires all other blocks' sums.
    __threadfence();
    is_last = atomicAdd(&job.finished[range.tile], 1u) == job.runs - 1;
    __threadfence();
  }
  __syncthreads();
  if (!is_last) return;
  auto* const accumulators = static_cast<Vector*>(job.accumulators);
  auto* const answers = static_cast<Vector*>(job.answers);
#pragma unroll 1
  for (unsigned i = threadIdx.x; i < job.keys * range.width; i += kBitThreads<Keys>) {
    const std::uint64_t at = std::uint64_t{i / range.width} * job.vectors + range.first_vector +
                             i % range.width;
    answers[at] = __ldcg(accumulators + at);
    accumulators[at] = Vector{0, 0, 0, 0};
  }
  if (threadIdx.x == 0) job.finished[range.tile] = 0;
}

}  // namespace
}  // namespace morphogen
