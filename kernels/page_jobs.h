// The parameters that the host gives to the page kernels, and the shape of a launch.
#pragma once

#include <cstdint>

#include "dpf.h"

namespace morphogen {
namespace {

constexpr unsigned kVectorBytes = 16;  // one load of a thread; pages are padded to its multiple
constexpr int kMaxChunkKeys = 6;       // two queries of three keys: the widest default chunk
// Chunks of four and of eight queries of three keys run only if the user asks for them. A chunk
// between two sizes runs in the larger kernel, which skips the missing keys.
constexpr int kWideChunkKeys = 12;
constexpr int kWidestChunkKeys = 24;

// The shape of all kernels but the wide ones: see block_shape.
constexpr unsigned kBlockThreads = 1024;
constexpr unsigned kTileVectors = 256;  // 4 KiB of each page

// The shape of a kernel's blocks.
struct BlockShape {
  unsigned threads;
  unsigned tile_vectors;    // the widest tile
  unsigned window_leaves;   // leaves that are expanded at a time
  int folded_keys;          // keys whose sums are in shared memory at a time
};

// One block fills a multiprocessor, so keys are walked and sums are published once, not by each of
// several blocks. The register file then gives each thread 64 registers with 1024 threads, 128 with
// 512 and 255 with 256, as the sums of 6, 12 and 24 keys need. All shared memory of a block stays
// under the 48 KiB that every device gives without asking.
constexpr BlockShape block_shape(int keys) {
  // With 6 keys 20 leaves make 120 walks: one warp for each of the four schedulers of a
  // multiprocessor, so that none does two in a row.
  if (keys <= kMaxChunkKeys) return {kBlockThreads, kTileVectors, 20, keys};
  if (keys <= kWideChunkKeys) return {512, kTileVectors, 20, 6};
  return {256, kTileVectors, 16, 2};
}

constexpr unsigned kMaxKeyBytes =
    kSeedCorrectionOffset + kSeedBytes * (kMaxLogPages - kLeafLogBits) + kLeafBytes;

// The job of a grid of tiles x runs blocks, which answers a chunk. The first longer_runs runs have
// one page more. Pages are counted from the first on the device.
struct ChunkJob {
  const void* pages;            // device memory: pages x vectors
  void* accumulators;           // device memory: keys x vectors, all zero between launches
  unsigned* finished;           // device memory: blocks done, by tile; zero between launches
  void* answers;                // host memory, mapped: keys x vectors
  std::uint64_t first_leaf;     // of the keys' trees, whose first page is the device's first
  std::uint64_t pages_per_run;
  unsigned longer_runs;
  unsigned runs;                // of each tile
  unsigned tiles;               // of each page
  unsigned tile_vectors;        // the last tile may have fewer
  unsigned vectors;             // of each page
  unsigned key_bytes;           // of each key, and the distance between two keys
  unsigned keys;                // of the chunk, at most the kernel's keys
};

// The packed keys of a chunk. A launch copies the whole struct, whatever the keys' size.
template <int Keys>
struct alignas(16) ChunkKeys {
  std::uint8_t bytes[Keys * kMaxKeyBytes];
};
static_assert(sizeof(ChunkJob) + sizeof(ChunkKeys<kMaxChunkKeys>) <= 4096,
              "any driver takes 4 KiB of parameters");
static_assert(sizeof(ChunkJob) + sizeof(ChunkKeys<kWidestChunkKeys>) <= 32764,
              "a driver for CUDA 12.1 or newer takes these many bytes");

// A pure read of all pages: the time that no scan can beat. Its answer is the XOR of all 64-bit
// words.
struct ReadJob {
  const void* pages;
  std::uint64_t vectors;        // of all pages
  std::uint64_t* sum;           // device memory, zero between launches
  unsigned* finished;           // device memory, zero between launches
  std::uint64_t* answer;        // host memory, mapped
};

// A fill with random pages, on the device: word i of all pages is splitmix64(seed, i).
struct FillJob {
  std::uint64_t* pages;
  std::uint64_t words;          // 64-bit words of all pages
  std::uint64_t page_words;     // of each page, with its padding
  std::uint64_t page_bytes;     // of each page, without its padding
  std::uint64_t seed;
};

}  // namespace
}  // namespace morphogen
