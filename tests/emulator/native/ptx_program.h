// A parsed module, as the executor runs it: decoded instructions whose operands are places in a
// warp's registers.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "ptx_emulator.h"

namespace ptx {

using Mask = std::uint32_t;  // one bit a lane

constexpr int kLanes = 32;
constexpr Mask kAllLanes = ~Mask{0};

// The places of the state spaces in the generic address space, far from the addresses of a Memory.
// Within shared memory an address is an offset. Offsets start above 0, so that a null pointer is an
// error. Dynamic memory lies far from static memory, so that an overrun from one to the other is an
// error too.
constexpr std::uint64_t kWindowBytes = std::uint64_t{1} << 32;
constexpr std::uint64_t kSharedWindow = 0x0100'0000'0000'0000;
constexpr std::uint64_t kLocalWindow = 0x0200'0000'0000'0000;
constexpr std::uint64_t kParamWindow = 0x0300'0000'0000'0000;
constexpr std::uint64_t kConstWindow = 0x0400'0000'0000'0000;
constexpr std::uint64_t kGlobalVariableWindow = 0x0500'0000'0000'0000;
constexpr std::uint64_t kStaticSharedBase = 0x400;
constexpr std::uint64_t kDynamicSharedBase = 0x100000;

enum class Space : std::uint8_t { generic, global, shared, local, param, constant };

// A register, an immediate or a special register: each has a place among a warp's registers.
struct Operand {
  std::uint32_t offset = 0;  // of its 32 lanes, in bytes; a predicate is one Mask
  std::uint32_t index = 0;   // into the masks of defined lanes
};

class Warp;
struct Barrier;
struct Instruction;
using Handler = void (*)(Warp& warp, const Instruction& instruction, Mask lanes);

// Finishes an instruction for the lanes that a barrier releases.
using Finish = void (*)(Warp& warp, const Instruction& instruction, Mask lanes,
                        const Barrier& barrier);

// Stages of cvt: they read a register's lanes as int64, and write them back.
using Widen = void (*)(Warp& warp, Operand from, std::int64_t* values);
using Narrow = void (*)(Warp& warp, Operand to, const std::int64_t* values, Mask lanes);

struct Instruction {
  Handler handler = nullptr;
  Finish finish = nullptr;
  std::array<Operand, 6> operand{};  // see ptx_operations.h for their order
  Operand guard{};
  bool guarded = false, guard_negated = false;
  bool negated = false;      // true if the last source, a predicate, is negated
  bool wide_address = true;  // true if the address is 64 bits
  bool strong = false;       // volatile, relaxed or stronger: two strong accesses make no data race
  bool aligned = false;      // true if whole warps come to the barrier
  bool counted = false;      // true if the barrier has a thread count
  std::uint8_t operands = 0;
  Space space = Space::generic;
  std::uint32_t bytes = 0;   // that one lane accesses
  std::uint32_t target = 0;  // of a branch
  std::uint32_t line = 0;
  std::int64_t immediate = 0;          // an address's offset, or the operation's own value
  std::vector<std::uint32_t> targets;  // of brx.idx
  std::vector<Operand> more;           // of mma, in place of `operand`
  Widen widen = nullptr;
  Narrow narrow = nullptr;
};

enum class Special : std::uint8_t {
  tid_x,
  tid_y,
  tid_z,
  ntid_x,
  ntid_y,
  ntid_z,
  ctaid_x,
  ctaid_y,
  ctaid_z,
  nctaid_x,
  nctaid_y,
  nctaid_z,
  laneid,
  warpid,
  nwarpid,
  smid,
  nsmid,
  lanemask_eq,
  lanemask_lt,
  lanemask_le,
  lanemask_gt,
  lanemask_ge,
  dynamic_smem_size
};

struct Constant {
  Operand operand;
  int width;  // in bits; 1 for a predicate
  std::uint64_t value;
};

// A .global or .const variable. It lives as long as its module, like a device's.
struct Variable {
  Space space;
  std::uint64_t address;
  std::vector<std::uint8_t> bytes;
};

struct Source {
  std::vector<std::string> lines;
  std::string line(std::uint32_t number) const;  // trimmed; counts from 1
};

class Kernel {
 public:
  KernelInfo info;
  std::array<std::uint32_t, 3> required_threads{};  // .reqntid, or 0 if there is none
  std::vector<Instruction> code;                    // ends with an exit
  std::uint32_t register_bytes = 0;
  std::uint32_t register_count = 0;
  std::vector<Constant> constants;
  std::vector<std::pair<Operand, Special>> specials;
  std::uint32_t local_bytes = 0;  // per thread
  std::shared_ptr<std::vector<Variable>> variables;
  std::shared_ptr<const Source> source;
};

}  // namespace ptx
