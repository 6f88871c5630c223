// What the host hands to the page kernels: their parameters, and the shape of a launch.
#pragma once

#include <cstdint>

#include "dpf.h"

namespace morphogen {
namespace {

constexpr unsigned kVectorBytes = 16;  // what a thread loads at a time; pages are padded to it
constexpr int kMaxChunkKeys = 6;       // two queries of three keys: the most that run unasked
// Chunks of four and of eight queries of three keys, which run only where somebody asks for them. A
// chunk between two sizes takes the larger kernel, which leaves out the keys that are not there.
constexpr int kWideChunkKeys = 12;
constexpr int kWidestChunkKeys = 24;

// What the kernels but the wide ones have: see block_shape.
constexpr unsigned kBlockThreads = 1024;
constexpr unsigned kTileVectors = 256;  // 4 KiB of each page

// How the blocks of a kernel are shaped.
struct BlockShape {
  unsigned threads;
  unsigned tile_vectors;    // the most columns of a tile
  unsigned window_leaves;   // expanded at a time
  int folded_keys;          // whose sums are in shared memory at a time
};

// One block fills a multiprocessor: its keys are walked and its sums published once, not by each of
// several blocks. So the register file gives each thread 64 registers of 1024 threads, 128 of 512,
// 255 of 256: what the sums of 6, 12 and 24 keys need. All shared memory of a block stays under the
// 48 KiB that every device gives without asking.
constexpr BlockShape block_shape(int keys) {
  // With 6 keys 20 leaves make 120 walks: a warp for each of the four schedulers of a
  // multiprocessor, so that none does two in a row.
  if (keys <= kMaxChunkKeys) return {kBlockThreads, kTileVectors, 20, keys};
  if (keys <= kWideChunkKeys) return {512, kTileVectors, 20, 6};
  return {256, kTileVectors, 16, 2};
}

constexpr unsigned kMaxKeyBytes =
    kSeedCorrectionOffset + kSeedBytes * (kMaxLogPages - kLeafLogBits) + kLeafBytes;

// A grid of tiles x runs blocks answers a chunk. The first longer_runs runs have one page more.
struct ChunkJob {
  const void* pages;            // device memory: pages x vectors
  void* accumulators;           // device memory: keys x vectors, all zero between launches
  unsigned* finished;           // device memory: blocks, one a tile; zero between launches
  void* answers;                // host memory, mapped: keys x vectors
  std::uint64_t pages_per_run;
  unsigned longer_runs;
  unsigned runs;                // of a tile
  unsigned tiles;               // of a page
  unsigned tile_vectors;        // the last tile may have fewer
  unsigned vectors;             // of a page
  unsigned key_bytes;           // of one key, and the distance between two
  unsigned keys;                // of the chunk, at most the kernel's
};

// The keys as they were packed. A launch copies all of it, whatever the keys' size.
template <int Keys>
struct alignas(16) ChunkKeys {
  std::uint8_t bytes[Keys * kMaxKeyBytes];
};
static_assert(sizeof(ChunkJob) + sizeof(ChunkKeys<kMaxChunkKeys>) <= 4096,
              "any driver takes 4 KiB of parameters");
static_assert(sizeof(ChunkJob) + sizeof(ChunkKeys<kWidestChunkKeys>) <= 32764,
              "a driver for CUDA 12.1 or newer takes these many bytes");

// A pure read of all pages: what no scan can beat. Its answer is the XOR of all 64-bit words.
struct ReadJob {
  const void* pages;
  std::uint64_t vectors;        // of all pages
  std::uint64_t* sum;           // device memory, zero between launches
  unsigned* finished;           // device memory, zero between launches
  std::uint64_t* answer;        // host memory, mapped
};

// Random pages, made where they are used: word i of all pages is splitmix64(seed, i).
struct FillJob {
  std::uint64_t* pages;
  std::uint64_t words;          // 64-bit words of all pages
  std::uint64_t page_words;     // of a page, with its padding
  std::uint64_t page_bytes;     // of a page, without
  std::uint64_t seed;
};

}  // namespace
}  // namespace morphogen
