// The kernels that exist once per instruction set, behind one table of functions, so that everything
// else is compiled for the baseline and the set is chosen at run time.
#pragma once

#include <cstddef>
#include <cstdint>

namespace morphogen {

// In what order a pass reads pages. It differs between processors which is faster, and by how much:
// docs/experiments.md.
enum class ReadOrder {
  memory,  // nearly in memory order, lines asked for far ahead by software
  rows,    // several pages side by side, which the hardware's prefetchers follow by themselves
};

// The pages of a table and the keys of one chunk. Keys are valid, for this table's domain, and stand
// `key_bytes` apart.
struct ScanJob {
  const std::uint8_t* keys;
  std::size_t key_bytes;
  std::size_t key_count;
  const std::uint8_t* body;   // whole pages, contiguous
  const std::uint8_t* tail;   // the last page where it lies elsewhere, else null
  std::uint64_t page_count;   // with the tail
  std::size_t page_size;
  ReadOrder read_order;
};

// Smaller pages lie too close together to be rows: the hardware takes two for one. Methods that can
// read pages further apart do so.
constexpr std::size_t kRowBytes = 4096;

// A scan starts at a multiple of so many pages: at whole leaves where pages are small and may be read
// in another order than their bits have, else at whole cache lines of one-byte rows of selection bits.
constexpr std::uint64_t scan_granule(std::size_t page_size) {
  return page_size < kRowBytes ? 512 : 64;
}

struct HostKernels {
  const char* name;

  // Writes the selection bits of leaves [first_leaf, first_leaf + count), 64 bytes a leaf.
  void (*expand)(const std::uint8_t* key, std::uint64_t first_leaf, std::uint64_t count,
                 std::uint8_t* out);

  // How many bytes of 64-byte aligned scratch `scan` needs.
  std::size_t (*scratch_bytes)(const ScanJob& job);

  // One pass over pages [first, last), first a multiple of scan_granule(): leaves each key's XOR in
  // the scratch.
  void (*scan)(const ScanJob& job, std::uint64_t first, std::uint64_t last, std::uint8_t* scratch);

  // Adds up the scratch of several scans and writes one page a key, page_size apart. Overwrites the
  // first scratch.
  void (*finish)(const ScanJob& job, std::uint8_t* const* scratch, std::size_t scratch_count,
                 std::uint8_t* out);

  // The XOR of `bytes` bytes as 64-bit words, read in memory order with the widest loads.
  std::uint64_t (*read)(const std::uint8_t* data, std::size_t bytes);
};

// The tables that were compiled in, from the widest down, ending in null; and those of them that
// this machine can run.
const HostKernels* const* compiled_kernels();
bool is_supported(const HostKernels& kernels);

// The order that is faster on this machine.
ReadOrder preferred_read_order();

}  // namespace morphogen
