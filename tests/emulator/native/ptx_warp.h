// The state of a running grid: blocks, and their warps, which run in lockstep.
//
// Diverged lanes form groups, each with its own program counter. The group with the lowest program
// counter runs, and joins the others as it reaches them, which serves any control flow. The .sync
// instructions and barriers hold a group back until the lanes that they wait for have come.
//
// A lane of a register is undefined until something writes it. Values computed from undefined
// values are undefined too, because compilers leave such values in registers that nothing reads. It
// is an error to branch on an undefined value, to use it as an address, or to store it anywhere but
// in local memory.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "ptx_bulk.h"
#include "ptx_program.h"
#include "ptx_shared.h"

namespace ptx {

// An error of one lane. The run loop adds the kernel, the line and the thread.
struct Fault {
  int lane;
  std::string message;
};

[[noreturn]] inline void fault(Mask lanes, const std::string& message) {
  throw Fault{__builtin_ctz(lanes), message};
}

class Random {  // splitmix64
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next();
  std::uint32_t below(std::uint32_t bound) { return static_cast<std::uint32_t>(next() % bound); }

 private:
  std::uint64_t state_;
};

// The state that all blocks of a launch share.
struct Launch {
  const Kernel& kernel;
  Dim3 grid, block;
  std::size_t dynamic_shared_bytes;
  std::vector<std::uint8_t> parameters;
  Memory& memory;
  std::uint64_t instruction_limit;
  std::uint32_t resident;  // blocks that run at a time
  Random random;
  Statistics statistics;
  std::uint64_t clock = 0;  // the number of reads by kernels
};

struct Block;

enum class Wait : std::uint8_t { nothing, lanes, barrier };

// Lanes at the same place that do not run now.
struct Group {
  std::uint32_t pc;
  Mask lanes;
  Wait wait;
  std::uint32_t barrier;
  const Instruction* instruction;  // the instruction that waits
};

// A cp.async that its thread has not waited for.
struct PendingCopy {
  std::uint64_t to;
  std::uint32_t bytes;
  std::array<std::uint8_t, 16> data;
};
struct LaneCopies {
  std::vector<PendingCopy> open;                 // of no group yet
  std::vector<std::vector<PendingCopy>> groups;  // the oldest first
};

class Warp {
 public:
  Warp(Block& block, int number);

  void start();  // starts a new block
  // Runs until the warp waits or ends, or for `budget` instructions.
  void run(std::uint64_t budget);
  bool ended() const { return (existing & ~exited) == 0; }
  bool can_run() const;

  // --- Registers.
  template <class T>
  T* lanes(Operand operand) {
    return reinterpret_cast<T*>(registers_.data()->bytes + operand.offset);
  }
  Mask& predicate(Operand operand) { return *lanes<Mask>(operand); }
  Mask defined(Operand operand) const { return defined_[operand.index]; }
  void define(Operand operand, Mask lanes, Mask defined) {
    Mask& all = defined_[operand.index];
    all = (all & ~lanes) | (defined & lanes);
  }
  template <class T>
  void write(Operand operand, const T (&values)[kLanes], Mask active) {
    T* to = lanes<T>(operand);
    if (active == kAllLanes) {
      std::memcpy(to, values, sizeof values);
    } else {
      for (int i = 0; i < kLanes; ++i) to[i] = active >> i & 1 ? values[i] : to[i];
    }
  }
  void write_predicate(Operand operand, Mask values, Mask active) {
    Mask& all = predicate(operand);
    all = (all & ~active) | (values & active);
  }
  void require(Operand operand, Mask lanes, const char* use) const {
    if (const Mask bad = lanes & ~defined(operand)) {
      fault(bad, std::string("an undefined value as ") + use);
    }
  }
  // Returns the value of an operand that must be the same in all of these lanes.
  std::uint32_t uniform(Operand operand, Mask lanes, const char* use);

  // --- Control flow. Handlers call these with pc at the next instruction.
  void branch(Mask taken, std::uint32_t target);
  void exit(Mask lanes);
  // Lanes come to a .sync instruction that waits for the lanes `members` (one mask a lane). Calls
  // `execute` for each complete set of lanes, and returns all of them.
  Mask gather(const Instruction& instruction, Mask lanes, const Mask* members,
              const std::function<void(Mask)>& execute);
  // Makes lanes wait at a barrier of the block.
  void wait_at_barrier(const Instruction& instruction, Mask lanes, std::uint32_t barrier);
  void reschedule();

  // Returns the value of a special register.
  std::uint64_t special(Special special, int lane) const;
  // Returns a text such as "block (0, 0, 0), thread (1, 0, 0)".
  std::string describe(int lane) const;
  std::string describe(const Instruction& instruction) const;

  Block& block;
  const int number;
  Mask existing = 0, exited = 0, active = 0;
  std::uint32_t pc = 0;
  std::vector<Group> others;
  std::array<LaneCopies, kLanes> copies;
  Clocks clocks;
  std::vector<std::uint8_t> local;          // the memory of lane 0, then of lane 1...
  std::vector<std::uint8_t> local_defined;  // one flag for each byte

 private:
  struct alignas(64) Line {
    std::uint8_t bytes[64];
  };

  void check_that_it_can_go_on() const;

  std::vector<Line> registers_;
  std::vector<Mask> defined_;
  std::uint32_t limit_ = 0;  // the program counter of the next group
};

// One of a block's 16 barriers.
struct Barrier {
  std::uint32_t expected = 0, arrived = 0;  // threads
  std::uint32_t voters = 0, votes = 0;      // for bar.red
  Clocks clocks;
};

struct Block {
  Block(Launch& launch, std::uint32_t slot);

  void start(std::uint32_t index);  // starts the block with this number
  // Runs one of its warps for a while. Returns false when all have ended.
  bool step();
  void arrive(Warp& warp, Mask lanes, const Instruction& instruction, std::uint32_t barrier,
              std::uint32_t count, bool waits, Mask voters, Mask votes);
  std::uint32_t threads() const;

  Launch& launch;
  const std::uint32_t slot;  // among the resident blocks
  Dim3 id;
  SharedMemory shared;
  std::vector<Warp> warps;
  std::array<Barrier, 16> barriers;
  Bulk bulk;
  std::uint32_t time = 1;

 private:
  [[noreturn]] void fail_at_barrier() const;
};

}  // namespace ptx
