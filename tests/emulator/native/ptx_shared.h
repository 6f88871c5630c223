// The shared memory of a block, with what is needed to find data races between its warps.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "ptx_program.h"

namespace ptx {

constexpr int kMaxWarps = 32;

// Weak accesses are plain loads and stores; strong ones (volatile, relaxed, atomics) never race
// with each other. An update is what an atomic does: a strong write that reads.
enum class Access : std::uint8_t { weak_write, weak_read, strong_write, strong_read, update };

// Which accesses of other warps a warp has been ordered behind by barriers: those that happened
// before before[v], for each warp v, on a clock that every arrival at a barrier advances. (A vector
// clock, but with a clock that all warps share.)
struct Clocks {
  std::array<std::uint32_t, kMaxWarps> before{};

  void join(const Clocks& other) {
    for (int v = 0; v < kMaxWarps; ++v) {
      if (other.before[v] > before[v]) before[v] = other.before[v];
    }
  }
};

class SharedMemory {
 public:
  SharedMemory(std::size_t static_bytes, std::size_t dynamic_bytes);

  // Undefined again, for the next block.
  void reset();

  // Bytes of an access by warp number `warp`, at time `now`. Throws Error for an access out of
  // bounds, a read of bytes that nothing wrote, or one that races with an earlier access.
  std::uint8_t* access(std::uint64_t address, std::size_t bytes, Access access, int warp,
                       const Clocks& clocks, std::uint32_t now);

 private:
  // The last accesses of a kind to a byte: the warps that made them, as far as none is ordered
  // behind another, and when.
  struct Last {
    std::uint32_t warps = 0;
    std::uint32_t time = 0;   // of the one warp, unless there is a table
    std::uint32_t table = 0;  // 1 + index of a table of each warp's time
  };
  struct Cell {
    std::array<Last, 4> last;  // by Access; an update is a strong write
    bool defined = false;
  };

  // A warp other than `warp` whose access is not ordered before what that one does now, or -1.
  int find_unordered(const Last& last, int warp, const Clocks& clocks) const;
  void record(Last& last, int warp, const Clocks& clocks, std::uint32_t now);

  std::size_t static_bytes_;
  std::vector<std::uint8_t> bytes_;
  std::vector<Cell> cells_;
  std::vector<std::array<std::uint32_t, kMaxWarps>> tables_;
};

}  // namespace ptx
