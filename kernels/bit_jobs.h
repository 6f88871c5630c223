// The layout of pages for the binary tensor cores, the parameters of the kernels over it, and the
// shape of their launches. page_bits.cu has the kernels.
//
// 256 pages are a group, and 2 bytes of each a unit. A unit takes 512 bytes: 16 vectors of 256 bits,
// one for each bit of the two bytes. Its bytes lie as the threads of a warp take them for a matrix
// product of 16 x 256 by 256 x 8 bits. Thread 4 * g + c has 16 bytes, and in them of bit g of each
// byte the pages from 64 * c on: 32 of the first byte, 32 of the second, the next 32 of the first
// and of the second.
#pragma once

#include <cstdint>

#include "dpf.h"
#include "page_jobs.h"

namespace morphogen {
namespace {

constexpr unsigned kGroupPages = 256;
constexpr unsigned kUnitPageBytes = 2;
constexpr unsigned kUnitBytes = kUnitPageBytes * kGroupPages;
constexpr unsigned kVectorUnits = kVectorBytes / kUnitPageBytes;
constexpr unsigned kGroupBytes = kGroupPages / 8;  // selection bits of one key
constexpr unsigned kLeafGroups = kLeafBytes / kGroupBytes;

// Chunks of up to 8, 16 and 32 queries of three keys. A chunk between two sizes runs in the larger
// kernel, which leaves out the missing keys' answers.
constexpr int kBitKernels = 3;
constexpr int kBitKeys[kBitKernels] = {24, 48, 96};
constexpr int kWidestBitKeys = 96;

struct BitShape {
  unsigned threads;
  unsigned warp_units;     // of each group, for a warp: a key's counts of one take 2 registers
  unsigned groups_ahead;   // whose pages a warp has asked for
  unsigned window_groups;  // whose selection bits are in shared memory at a time, twice
};

// One block fills a multiprocessor: the counts of all its warps take 24,576 registers for 24 and 48
// keys, 36,864 for 96. It has asked for 24 to 32 KiB of pages at a time.
constexpr BitShape bit_shape(int keys) {
  if (keys <= 24) return {512, 4, 1, 16};
  if (keys <= 48) return {512, 2, 2, 8};
  return {384, 2, 2, 4};
}

constexpr unsigned tile_vectors(const BitShape& shape) {
  return shape.threads / 32 * shape.warp_units / kVectorUnits;
}

// Threads of a block that transposes or expands.
constexpr unsigned kTransposeThreads = 256;
constexpr unsigned kExpandThreads = 128;

// The job of the kernel that lays out groups of pages. Pages beyond the last are zero.
struct TransposeJob {
  const void* pages;   // device memory: pages x vectors
  void* bit_pages;     // device memory: groups x vectors x 4 KiB
  std::uint64_t num_pages;
  std::uint64_t first_group;
  std::uint64_t groups;
  unsigned vectors;    // of each page
};

// The job of the kernel that expands keys: each has `key_blocks` blocks, whose threads write the
// leaves below 2^log_leaves nodes each.
struct ExpandJob {
  const void* packed_keys;   // device memory
  void* selection;           // device memory: groups x key_slots x 32 bytes
  std::uint64_t first_leaf;  // of the keys' trees, whose first page is the device's first
  std::uint64_t leaves;
  unsigned key_bytes;        // of each key, and the distance between two keys
  unsigned keys;
  unsigned key_slots;        // of the kernel that counts
  unsigned key_blocks;
  unsigned log_leaves;
};

// The job of a grid of tiles x runs blocks, which answers a chunk. The first longer_runs runs have
// one group more.
struct BitJob {
  const void* bit_pages;
  const void* selection;
  void* accumulators;        // device memory: keys x vectors, all zero between launches
  unsigned* finished;        // device memory: blocks done, by tile; zero between launches
  void* answers;             // host memory, mapped: keys x vectors
  std::uint64_t groups_per_run;
  unsigned longer_runs;
  unsigned runs;             // of each tile
  unsigned tiles;            // of each page
  unsigned tile_vectors;     // the last tile may have fewer
  unsigned vectors;          // of each page
  unsigned keys;             // of the chunk, at most the kernel's
};

}  // namespace
}  // namespace morphogen
