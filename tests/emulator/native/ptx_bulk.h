// Bulk copies to shared memory and the mbarriers that they complete on.
//
// A copy is under way from its instruction on, and ends at any later time. Who waited for the phase
// of its mbarrier may touch its bytes; for all others that is a race. ("Asynchronous operations" and
// "mbarrier" in the PTX manual.)
#pragma once

#include <cstdint>
#include <vector>

#include "ptx_shared.h"

namespace ptx {

struct Mbarrier {
  std::uint64_t address;
  std::uint32_t count;       // arrivals of a phase
  std::uint32_t pending;     // arrivals that this phase still waits for
  std::int64_t bytes = 0;    // that it still waits for; below 0 if they came before they were expected
  std::uint32_t phase = 0;   // phases that are complete
  int maker = 0;             // the warp that initialized it
  bool fenced = false;       // whether copies see that
  Clocks arriving, arrived;  // of this phase, and of the last complete one
};

struct BulkCopy {
  std::uint8_t* to;
  const std::uint8_t* from;
  std::size_t bytes;
  std::size_t mbarrier;  // its place among those of the block
};

struct Bulk {
  std::vector<Mbarrier> mbarriers;
  std::vector<BulkCopy> copies;  // those under way
  std::uint64_t idle = 0;        // waits in vain since anything happened
};

// Ends the copy at a place among those under way.
void end_copy(Bulk& bulk, std::size_t at);

}  // namespace ptx
