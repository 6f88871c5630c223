#include "ptx_shared.h"

#include <algorithm>

#include "ptx_text.h"

namespace ptx {
namespace {

// The kinds of earlier access that an access races with, by the access's own kind.
constexpr std::array<std::array<bool, 4>, 4> kConflicts = {{
    {true, true, true, true},     // a weak write races with all
    {true, false, true, false},   // a weak read races with writes
    {true, true, false, false},   // a strong write races with weak accesses
    {true, false, false, false},  // a strong read races with weak writes
}};
constexpr const char* kNames[] = {"store", "load", "atomic or strong store", "strong load"};

std::uint32_t bit(int warp) { return std::uint32_t{1} << warp; }

}  // namespace

SharedMemory::SharedMemory(std::size_t static_bytes, std::size_t dynamic_bytes)
    : static_bytes_(static_bytes),
      bytes_(static_bytes + dynamic_bytes + 16),  // never empty
      cells_(static_bytes + dynamic_bytes) {}

void SharedMemory::reset() {
  std::fill(cells_.begin(), cells_.end(), Cell{});
  tables_.clear();
}

int SharedMemory::find_unordered(const Last& last, int warp, const Clocks& clocks) const {
  for (std::uint32_t others = last.warps & ~bit(warp); others; others &= others - 1) {
    const int other = __builtin_ctz(others);
    const auto index = static_cast<std::size_t>(other);
    const std::uint32_t time = last.table ? tables_[last.table - 1][index] : last.time;
    if (time >= clocks.before[index]) return other;
  }
  return -1;
}

void SharedMemory::record(Last& last, int warp, const Clocks& clocks, std::uint32_t now) {
  if (find_unordered(last, warp, clocks) < 0) {
    last.warps = bit(warp);
  } else if (!last.table) {
    tables_.emplace_back().fill(last.time);
    last.table = static_cast<std::uint32_t>(tables_.size());
  }
  last.warps |= bit(warp);
  last.time = now;
  if (last.table) tables_[last.table - 1][static_cast<std::size_t>(warp)] = now;
}

std::size_t SharedMemory::place(std::uint64_t address, std::size_t bytes) const {
  const bool dynamic = address >= kDynamicSharedBase;
  const std::uint64_t base = dynamic ? kDynamicSharedBase : kStaticSharedBase;
  const std::size_t size = dynamic ? cells_.size() - static_bytes_ : static_bytes_;
  if (address < base || address - base > size || size - (address - base) < bytes) {
    throw Error("shared memory access out of bounds: address " + to_hex(address) + " in " +
                (dynamic ? "dynamic" : "static") + " memory, which is " + std::to_string(size) +
                " bytes from " + to_hex(base));
  }
  return address - base + (dynamic ? static_bytes_ : 0);
}

void SharedMemory::check_copied(const Cell& cell, const Clocks& clocks, std::uint64_t address) {
  if (cell.mbarrier && clocks.phases[cell.mbarrier - 1u] <= cell.phase) {
    throw Error("data race in shared memory: a bulk copy writes here, whose mbarrier this warp has "
                "not waited for, address " + to_hex(address));
  }
}

std::uint8_t* SharedMemory::copy_to(std::uint64_t address, std::size_t bytes, int warp,
                                    const Clocks& clocks, std::size_t mbarrier,
                                    std::uint32_t phase) {
  const std::size_t start = place(address, bytes);
  for (Cell* cell = &cells_[start]; cell != cells_.data() + start + bytes; ++cell) {
    check_copied(*cell, clocks, address);
    for (std::size_t k = 0; k < 4; ++k) {
      const int other = find_unordered(cell->last[k], warp, clocks);
      if (other >= 0) {
        throw Error(std::string("data race in shared memory: this bulk copy and an earlier ") +
                    kNames[k] + " by warp " + std::to_string(other) +
                    " have no barrier between, address " + to_hex(address));
      }
    }
    // Who may touch the byte from now on comes after all that touched it before.
    *cell = {{}, true, static_cast<std::uint8_t>(mbarrier + 1), phase};
  }
  return bytes_.data() + start;
}

std::uint8_t* SharedMemory::access(std::uint64_t address, std::size_t bytes, Access access,
                                   int warp, const Clocks& clocks, std::uint32_t now) {
  const std::size_t start = place(address, bytes);
  const bool updates = access == Access::update;
  const auto kind = static_cast<std::size_t>(updates ? Access::strong_write : access);
  const bool writes = access == Access::weak_write || access == Access::strong_write;
  for (Cell* cell = &cells_[start]; cell != cells_.data() + start + bytes; ++cell) {
    check_copied(*cell, clocks, address);
    if (writes) {
      cell->defined = true;
    } else if (!cell->defined) {
      throw Error(std::string(updates ? "atomic on" : "load of") +
                  " shared memory that nothing wrote, address " + to_hex(address));
    }
    for (std::size_t k = 0; k < 4; ++k) {
      if (!kConflicts[kind][k]) continue;
      const int other = find_unordered(cell->last[k], warp, clocks);
      if (other >= 0) {
        throw Error(std::string("data race in shared memory: this ") + kNames[kind] +
                    " and an earlier " + kNames[k] + " by warp " + std::to_string(other) +
                    " have no barrier between, address " + to_hex(address));
      }
    }
    record(cell->last[kind], warp, clocks, now);
  }
  return bytes_.data() + start;
}

}  // namespace ptx
