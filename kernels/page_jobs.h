// What the host hands to the page kernels: their parameters, and the shape of a launch.
#pragma once

#include <cstdint>

#include "dpf.h"

namespace morphogen {
namespace {

constexpr unsigned kVectorBytes = 16;  // what a thread loads at a time; pages are padded to it
constexpr int kMaxChunkKeys = 6;       // two queries of three keys

// One block fills a multiprocessor: its keys are walked and its sums published once, not by each of
// several blocks. The register file then leaves 64 registers a thread.
constexpr unsigned kBlockThreads = 1024;

// Columns of a tile: 4 KiB of each page. The sums of 6 keys then take 24 KiB of shared memory, and
// all that a block needs stays under the 48 KiB that every device gives without asking.
constexpr unsigned kTileVectors = 256;

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
};

// The keys as they were packed. A launch copies all of it, whatever the keys' size.
template <int Keys>
struct alignas(16) ChunkKeys {
  std::uint8_t bytes[Keys * kMaxKeyBytes];
};
static_assert(sizeof(ChunkJob) + sizeof(ChunkKeys<kMaxChunkKeys>) <= 4096,
              "a driver takes 4 KiB of parameters");

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
