// The table of functions that each instruction set implements. All other code is compiled for the
// baseline, and chooses a table at run time.
#pragma once

#include <cstddef>
#include <cstdint>

namespace morphogen {

// The order in which a pass reads pages. The faster order differs between processors
// (docs/experiments.md).
enum class ReadOrder {
  memory,  // nearly in memory order; software asks for lines far ahead
  rows,    // several pages side by side, which the hardware's prefetchers follow by themselves
};

// Some pages of a table that follow each other, and the keys of one chunk. The keys are valid for
// the table's domain and stand `key_bytes` apart. Pages are counted from the first of these.
struct ScanJob {
  const std::uint8_t* keys;
  std::size_t key_bytes;
  std::size_t key_count;
  std::uint64_t first_leaf;   // of the keys' trees, whose first page is the first of these
  const std::uint8_t* body;   // whole pages, contiguous
  const std::uint8_t* tail;   // the last page if it lies elsewhere, else null
  std::uint64_t page_count;   // counts the tail
  std::size_t page_size;
  ReadOrder read_order;
  bool whole_vectors;         // takes_whole_vectors() of read_order.h
  bool body_is_mapped;        // from a file, which may not be in memory
};

// Pages are read as rows from this size on. Smaller pages lie too close together: the hardware
// takes two for one row. Methods that can read pages further apart do so.
constexpr std::size_t kRowBytes = 4096;

// A scan starts at a multiple of this number of pages. Small pages may be read in another order
// than their selection bits, so their scans start at whole leaves. Other scans start at whole cache
// lines of one-byte rows of selection bits.
constexpr std::uint64_t scan_granule(std::size_t page_size) {
  return page_size < kRowBytes ? 512 : 64;
}

// How a pass takes the pages of a job. Wide pages are cut into strips, which are scanned one after
// the other, so that a thread holds the sums of one strip only.
struct ScanShape {
  std::size_t strips;
  std::size_t scratch_bytes;  // of a thread, 64-byte aligned
};

// A pair of keys to make.
struct KeyPair {
  std::uint64_t index;
  const std::uint8_t* entropy;  // seed0 | seed1 | salt
  std::uint8_t* keys[2];        // party 0's and party 1's
};

// The most pairs that are made at once: the keys of a query.
constexpr int kGenPairs = 3;

struct HostKernels {
  const char* name;

  // Gen of 1 to kGenPairs pairs, as dpf_generate.h says.
  void (*generate)(const KeyPair* pairs, int count, int log_num_pages);

  // Writes the selection bits of leaves [first_leaf, first_leaf + count), 64 bytes a leaf.
  void (*expand)(const std::uint8_t* key, std::uint64_t first_leaf, std::uint64_t count,
                 std::uint8_t* out);

  ScanShape (*shape)(const ScanJob& job);

  // Prepares the scratch of a thread for a job.
  void (*begin)(const ScanJob& job, std::uint8_t* scratch);

  // Adds one strip of pages [first, last) to the sums in the scratch. `fresh` tells that they begin
  // at zero: with each new strip they do. `first` is a multiple of scan_granule().
  void (*scan)(const ScanJob& job, std::size_t strip, std::uint64_t first, std::uint64_t last,
               bool fresh, std::uint8_t* scratch);

  // Writes the sums of the strip that was scanned, or XORs them into what is there: one page a key,
  // page_size apart. Strips share no byte. The sums are spent.
  void (*finish)(const ScanJob& job, std::size_t strip, bool add, std::uint8_t* scratch,
                 std::uint8_t* out);

  // Returns the XOR of `bytes` bytes as 64-bit words, read in memory order with the widest loads.
  std::uint64_t (*read)(const std::uint8_t* data, std::size_t bytes);
};

// Returns the compiled tables, the widest first, ending in null.
const HostKernels* const* compiled_kernels();
bool is_supported(const HostKernels& kernels);

}  // namespace morphogen
