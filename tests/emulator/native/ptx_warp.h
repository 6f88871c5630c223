// The state of a running grid: blocks, and their warps, which run in lockstep.
//
// Lanes that diverge become groups, each with its own program counter; the group with the lowest
// one runs, and takes in the others as it reaches them. That serves any control flow. The .sync
// instructions and barriers hold a group back until the lanes that they wait for have come.
//
// A lane of a register is undefined until something writes it. What is computed from undefined
// values is undefined too (compilers leave such values where nobody looks at them); it is an error
// to branch on one, to use one as an address or to store one anywhere but in local memory.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "ptx_program.h"
#include "ptx_shared.h"

namespace ptx {

// An error of one lane; the run loop adds kernel, line and thread.
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

// What all blocks of a launch share.
struct Launch {
  const Kernel& kernel;
  Dim3 grid, block;
  std::size_t dynamic_shared_bytes;
  std::vector<std::uint8_t> parameters;
  Memory& memory;
  std::uint64_t instruction_limit;
  std::uint32_t resident;  // blocks at a time
  Random random;
  Statistics statistics;
  std::uint64_t clock = 0;  // how often a kernel has read it
};

struct Block;

enum class Wait : std::uint8_t { nothing, lanes, barrier };

// Lanes at the same place, which do not run now.
struct Group {
  std::uint32_t pc;
  Mask lanes;
  Wait wait;
  std::uint32_t barrier;
  const Instruction* instruction;  // that waits
};

class Warp {
 public:
  Warp(Block& block, int number);

  void start();  // a new block
  // Runs until it waits or ends, or for so many instructions.
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
  // The value of an operand that must be the same in all of these lanes.
  std::uint32_t uniform(Operand operand, Mask lanes, const char* use);

  // --- Control flow; called by handlers, with pc at the next instruction.
  void branch(Mask taken, std::uint32_t target);
  void exit(Mask lanes);
  // Lanes come to a .sync instruction that waits for the lanes `members` (one mask a lane). Calls
  // `execute` for each set of lanes that is complete, and returns them all.
  Mask gather(const Instruction& instruction, Mask lanes, const Mask* members,
              const std::function<void(Mask)>& execute);
  // Lanes wait at a barrier of the block.
  void wait_at_barrier(const Instruction& instruction, Mask lanes, std::uint32_t barrier);
  void reschedule();

  // What a kernel can read of itself.
  std::uint64_t special(Special special, int lane) const;
  // "block (0, 0, 0), thread (1, 0, 0)"
  std::string describe(int lane) const;
  std::string describe(const Instruction& instruction) const;

  Block& block;
  const int number;
  Mask existing = 0, exited = 0, active = 0;
  std::uint32_t pc = 0;
  std::vector<Group> others;
  Clocks clocks;
  std::vector<std::uint8_t> local;          // memory of lane 0, of lane 1...
  std::vector<std::uint8_t> local_defined;  // a flag a byte

 private:
  struct alignas(64) Line {
    std::uint8_t bytes[64];
  };

  void check_that_it_can_go_on() const;

  std::vector<Line> registers_;
  std::vector<Mask> defined_;
  std::uint32_t limit_ = 0;  // where the next group stands
};

// One of a block's 16 barriers.
struct Barrier {
  std::uint32_t expected = 0, arrived = 0;  // threads
  std::uint32_t voters = 0, votes = 0;      // for bar.red
  Clocks clocks;
};

struct Block {
  Block(Launch& launch, std::uint32_t slot);

  void start(std::uint32_t index);  // the block with this number
  // Runs one of its warps for a while; false when all have ended.
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
  std::uint32_t time = 1;

 private:
  [[noreturn]] void fail_at_barrier() const;
};

}  // namespace ptx
