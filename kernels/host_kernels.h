// The kernels that exist once per instruction set, behind one table of functions, so that everything
// else is compiled for the baseline and the set is chosen at run time.
#pragma once

#include <cstddef>
#include <cstdint>

namespace morphogen {

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
};

struct HostKernels {
  const char* name;

  // Writes the selection bits of leaves [first_leaf, first_leaf + count), 64 bytes a leaf.
  void (*expand)(const std::uint8_t* key, std::uint64_t first_leaf, std::uint64_t count,
                 std::uint8_t* out);

  // How many bytes of 64-byte aligned scratch `scan` needs.
  std::size_t (*scratch_bytes)(const ScanJob& job);

  // One pass over pages [first, last), first a multiple of 8: leaves each key's XOR in the scratch.
  void (*scan)(const ScanJob& job, std::uint64_t first, std::uint64_t last, std::uint8_t* scratch);

  // Adds up the scratch of several scans and writes one page a key, page_size apart. Overwrites the
  // first scratch.
  void (*finish)(const ScanJob& job, std::uint8_t* const* scratch, std::size_t scratch_count,
                 std::uint8_t* out);

  // The XOR of `bytes` bytes as 64-bit words: as fast as this machine reads memory.
  std::uint64_t (*read)(const std::uint8_t* data, std::size_t bytes);
};

// The tables that were compiled in, from the widest down, ending in null; and those of them that
// this machine can run.
const HostKernels* const* compiled_kernels();
bool is_supported(const HostKernels& kernels);

}  // namespace morphogen
