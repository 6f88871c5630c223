#include "ptx_shared.h"

#include <algorithm>

#include "ptx_text.h"

namespace ptx {
namespace {

// The kinds of earlier access that an access may race with.
constexpr std::array<std::array<bool, 4>, 4> kConflicts = {{
    {true, true, true, true},     // a weak write: with all
    {true, false, true, false},   // a weak read: with writes
    {true, true, false, false},   // a strong write: with weak accesses
    {true, false, false, false},  // a strong read: with weak writes
}};
constexpr const char* kNames[] = {"store", "load", "atomic or strong store", "strong load"};

// A warp other than `warp` among those of `warps` whose accesses up to `time` are not ordered before.
int unordered(std::uint32_t warps, std::uint32_t time, int warp, const Clocks& clocks) {
  for (warps &= ~(1u << warp); warps; warps &= warps - 1) {
    const int other = __builtin_ctz(warps);
    if (time >= clocks.before[static_cast<std::size_t>(other)]) return other;
  }
  return -1;
}

}  // namespace

SharedMemory::SharedMemory(std::size_t static_bytes, std::size_t dynamic_bytes)
    : static_bytes_(static_bytes),
      bytes_(static_bytes + dynamic_bytes + 16),  // never empty
      cells_(static_bytes + dynamic_bytes) {}

void SharedMemory::reset() { std::fill(cells_.begin(), cells_.end(), Cell{}); }

std::uint8_t* SharedMemory::access(std::uint64_t address, std::size_t bytes, Access access, int warp,
                                   const Clocks& clocks, std::uint32_t now) {
  const bool dynamic = address >= kDynamicSharedBase;
  const std::uint64_t base = dynamic ? kDynamicSharedBase : kStaticSharedBase;
  const std::size_t size = dynamic ? cells_.size() - static_bytes_ : static_bytes_;
  if (address < base || address - base > size || size - (address - base) < bytes) {
    throw Error("shared memory access out of bounds: address " + to_hex(address) + " in " +
                (dynamic ? "dynamic" : "static") + " memory, which is " + std::to_string(size) +
                " bytes from " + to_hex(base));
  }
  const std::size_t start = address - base + (dynamic ? static_bytes_ : 0);
  const auto kind = static_cast<std::size_t>(access);
  const bool write = access == Access::weak_write || access == Access::strong_write;
  for (Cell* cell = &cells_[start]; cell != cells_.data() + start + bytes; ++cell) {
    if (write) {
      cell->defined = true;
    } else if (!cell->defined) {
      throw Error("load of shared memory that nothing wrote, address " + to_hex(address));
    }
    for (std::size_t k = 0; k < 4; ++k) {
      const Last& last = cell->last[k];
      if (!kConflicts[kind][k] || !(last.warps & ~(1u << warp))) continue;
      const int other = unordered(last.warps, last.time, warp, clocks);
      if (other >= 0) {
        throw Error(std::string("data race in shared memory: this ") + kNames[kind] +
                    " and an earlier " + kNames[k] + " by warp " + std::to_string(other) +
                    " have no barrier between, address " + to_hex(address));
      }
    }
    Last& last = cell->last[kind];
    const bool keep = unordered(last.warps, last.time, warp, clocks) >= 0;
    last.warps = (keep ? last.warps : 0) | 1u << warp;
    last.time = now;
  }
  return bytes_.data() + start;
}

}  // namespace ptx
