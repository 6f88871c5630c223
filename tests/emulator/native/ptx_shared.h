// The shared memory of a block, with a record of accesses that finds data races between its warps.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "ptx_program.h"

namespace ptx {

constexpr int kMaxWarps = 32;
constexpr std::size_t kMaxMbarriers = 32;  // of a block

// Weak accesses are plain loads and stores. Strong ones (volatile, relaxed, atomics) never race
// with each other. An atomic makes an update: a strong write that also reads.
enum class Access : std::uint8_t { weak_write, weak_read, strong_write, strong_read, update };

// The accesses of other warps that barriers have ordered before a warp's next access: those of each
// warp v before time before[v]. Every arrival at a barrier advances the clock. (This is a vector
// clock whose clock all warps share.)
struct Clocks {
  std::array<std::uint32_t, kMaxWarps> before{};
  // The phases of each mbarrier of the block whose end was waited for.
  std::array<std::uint32_t, kMaxMbarriers> phases{};

  void join(const Clocks& other) {
    for (int v = 0; v < kMaxWarps; ++v) {
      if (other.before[v] > before[v]) before[v] = other.before[v];
    }
    for (std::size_t m = 0; m < kMaxMbarriers; ++m) {
      if (other.phases[m] > phases[m]) phases[m] = other.phases[m];
    }
  }
};

class SharedMemory {
 public:
  SharedMemory(std::size_t static_bytes, std::size_t dynamic_bytes);

  // Makes all bytes undefined, for the next block.
  void reset();

  // Returns the bytes of an access by warp number `warp` at time `now`. Throws Error for an access
  // out of bounds, a read of bytes that nothing wrote, or an access that races with an earlier one.
  std::uint8_t* access(std::uint64_t address, std::size_t bytes, Access access, int warp,
                       const Clocks& clocks, std::uint32_t now);

  // Returns the bytes that a bulk copy writes, which warp number `warp` starts. From now on they are
  // for those alone who have waited for that phase of that mbarrier.
  std::uint8_t* copy_to(std::uint64_t address, std::size_t bytes, int warp, const Clocks& clocks,
                        std::size_t mbarrier, std::uint32_t phase);

 private:
  // The last accesses of one kind to a byte: the warps that made them and the times. It leaves out
  // accesses that are ordered before another one here.
  struct Last {
    std::uint32_t warps = 0;
    std::uint32_t time = 0;   // of the one warp, if there is no table
    std::uint32_t table = 0;  // 1 + index of a table of each warp's time
  };
  struct Cell {
    std::array<Last, 4> last;  // by Access; an update counts as a strong write
    bool defined = false;
    std::uint8_t mbarrier = 0;  // 1 + that of the bulk copy that wrote it, and its phase
    std::uint32_t phase = 0;
  };

  // Returns the place of the first of some bytes. Throws if they are out of bounds.
  std::size_t place(std::uint64_t address, std::size_t bytes) const;
  // Throws if a bulk copy wrote the byte, and nobody waited for it.
  static void check_copied(const Cell& cell, const Clocks& clocks, std::uint64_t address);

  // Returns another warp whose access is not ordered before the access that `warp` makes now, or
  // -1.
  int find_unordered(const Last& last, int warp, const Clocks& clocks) const;
  void record(Last& last, int warp, const Clocks& clocks, std::uint32_t now);

  std::size_t static_bytes_;
  std::vector<std::uint8_t> bytes_;
  std::vector<Cell> cells_;
  std::vector<std::array<std::uint32_t, kMaxWarps>> tables_;
};

}  // namespace ptx
