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

// The pages of a table and the keys of one chunk. The keys are valid for this table's domain and
// stand `key_bytes` apart.
struct ScanJob {
  const std::uint8_t* keys;
  std::size_t key_bytes;
  std::size_t key_count;
  const std::uint8_t* body;   // whole pages, contiguous
  const std::uint8_t* tail;   // the last page if it lies elsewhere, else null
  std::uint64_t page_count;   // counts the tail
  std::size_t page_size;
  ReadOrder read_order;
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

struct HostKernels {
  const char* name;

  // Writes the selection bits of leaves [first_leaf, first_leaf + count), 64 bytes a leaf.
  void (*expand)(const std::uint8_t* key, std::uint64_t first_leaf, std::uint64_t count,
                 std::uint8_t* out);

  // Returns the bytes of 64-byte aligned scratch that `scan` needs.
  std::size_t (*scratch_bytes)(const ScanJob& job);

  // Makes one pass over pages [first, last) and leaves each key's XOR in the scratch. `first` is a
  // multiple of scan_granule().
  void (*scan)(const ScanJob& job, std::uint64_t first, std::uint64_t last, std::uint8_t* scratch);

  // Adds up the scratch of several scans and writes one page a key, page_size apart. It overwrites
  // the first scratch.
  void (*finish)(const ScanJob& job, std::uint8_t* const* scratch, std::size_t scratch_count,
                 std::uint8_t* out);

  // Returns the XOR of `bytes` bytes as 64-bit words, read in memory order with the widest loads.
  std::uint64_t (*read)(const std::uint8_t* data, std::size_t bytes);
};

// Returns the compiled tables, the widest first, ending in null.
const HostKernels* const* compiled_kernels();
bool is_supported(const HostKernels& kernels);

// Returns the order that is faster on this machine.
ReadOrder preferred_read_order();

}  // namespace morphogen
