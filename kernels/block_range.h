// Finds which part of a table a block answers for, and the place of each of its threads in that
// part.
#pragma once

#include <cstdint>

#include "dpf.h"
#include "page_jobs.h"
#include "page_stream.h"

namespace morphogen {
namespace {

// The part of the table that a block answers for: a run of pages of one tile.
struct BlockRange {
  unsigned tile;
  unsigned first_vector;     // the tile's first vector in the page
  unsigned width;            // vectors of the tile
  std::uint64_t begin, end;  // pages of the run
};

__device__ __forceinline__ BlockRange block_range(const ChunkJob& job) {
  BlockRange range;
  range.tile = blockIdx.x % job.tiles;
  range.first_vector = range.tile * job.tile_vectors;
  range.width = min(job.tile_vectors, job.vectors - range.first_vector);
  const unsigned run = blockIdx.x / job.tiles;
  range.begin = job.pages_per_run * run + min(run, job.longer_runs);
  range.end = range.begin + job.pages_per_run + (run < job.longer_runs);
  return range;
}

// Returns the tile's part of a page.
__device__ __forceinline__ const Vector* tile_of(const ChunkJob& job, const BlockRange& range,
                                                 std::uint64_t page) {
  return static_cast<const Vector*>(job.pages) + page * job.vectors + range.first_vector;
}

// The place of a thread in its block. If a page is at least a warp wide, whole warps share a page.
// Narrower pages lie side by side in a warp.
struct Place {
  unsigned column;  // the thread's vector in the tile
  unsigned row;     // the thread's page among those that the block reads at the same time
  unsigned rows;    // the number of pages that the block reads at the same time
  bool active;      // true if the thread has a column
};

__device__ __forceinline__ bool is_narrow(unsigned width) { return width < kWarpThreads; }

template <unsigned Warps>
__device__ __forceinline__ Place place_in(unsigned width, unsigned thread) {
  const unsigned warp = thread / kWarpThreads, lane = thread % kWarpThreads;
  Place place;
  if (is_narrow(width)) {
    const unsigned pages = kWarpThreads / width;  // of one warp
    place.rows = Warps * pages;
    place.row = warp * pages + lane / width;
    place.column = lane % width;
    place.active = lane / width < pages;
  } else {
    const unsigned warps = (width + kWarpThreads - 1) / kWarpThreads;  // of one page
    place.rows = Warps / warps;
    place.row = warp / warps;
    place.column = warp % warps * kWarpThreads + lane;
    place.active = place.row < place.rows && place.column < width;
  }
  return place;
}

// The pages that a block expands and scans at a time.
template <unsigned Leaves>
struct Window {
  std::uint64_t first_leaf, begin, end;

  __device__ __forceinline__ Window(std::uint64_t begin, std::uint64_t last)
      : first_leaf(begin >> kLeafLogBits), begin(begin),
        end(min(last, (first_leaf + Leaves) << kLeafLogBits)) {}

  __device__ __forceinline__ unsigned pages() const { return static_cast<unsigned>(end - begin); }

  __device__ __forceinline__ unsigned leaves() const {
    return static_cast<unsigned>(((end - 1) >> kLeafLogBits) - first_leaf) + 1;
  }

  // Returns the first page of a row's contiguous share, counted from begin.
  __device__ __forceinline__ unsigned row_start(unsigned row, unsigned rows) const {
    return pages() * row / rows;
  }
};

}  // namespace
}  // namespace morphogen
