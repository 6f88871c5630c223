#include "ptx_warp.h"

#include <algorithm>
#include <limits>

#include "ptx_text.h"

namespace ptx {
namespace {

std::string to_string(Dim3 d) {
  return "(" + std::to_string(d.x) + ", " + std::to_string(d.y) + ", " + std::to_string(d.z) + ")";
}

Dim3 unflatten(std::uint32_t index, Dim3 size) {
  return {index % size.x, index / size.x % size.y, index / size.x / size.y};
}

}  // namespace

std::uint64_t Random::next() {
  std::uint64_t z = state_ += 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}

Warp::Warp(Block& block, int number)
    : block(block),
      number(number),
      local(std::size_t{block.launch.kernel.local_bytes} * kLanes),
      local_defined(local.size()),
      registers_(block.launch.kernel.register_bytes / sizeof(Line) + 1),
      defined_(block.launch.kernel.register_count) {
  const std::uint32_t first = static_cast<std::uint32_t>(number) * kLanes;
  const std::uint32_t count = std::min<std::uint32_t>(block.threads() - first, kLanes);
  existing = count == kLanes ? kAllLanes : (Mask{1} << count) - 1;
  for (const auto& [operand, width, value] : block.launch.kernel.constants) {
    const auto fill = [this, operand = operand, value = value](auto zero) {
      using T = decltype(zero);
      std::fill_n(lanes<T>(operand), kLanes, static_cast<T>(value));
    };
    if (width == 1) predicate(operand) = value ? kAllLanes : 0;
    if (width == 16) fill(std::uint16_t{});
    if (width == 32) fill(std::uint32_t{});
    if (width == 64) fill(std::uint64_t{});
  }
}

void Warp::start() {
  const Kernel& kernel = block.launch.kernel;
  exited = 0;
  active = existing;
  pc = 0;
  limit_ = std::numeric_limits<std::uint32_t>::max();
  others.clear();
  copies.fill({});
  clocks = {};
  std::fill(defined_.begin(), defined_.end(), 0);
  std::fill(local_defined.begin(), local_defined.end(), 0);
  for (const Constant& constant : kernel.constants) defined_[constant.operand.index] = kAllLanes;
  for (const auto& [operand, what] : kernel.specials) {
    defined_[operand.index] = kAllLanes;
    for (int i = 0; i < kLanes; ++i) {
      lanes<std::uint32_t>(operand)[i] = static_cast<std::uint32_t>(special(what, i));
    }
  }
}

bool Warp::can_run() const {
  return active || std::any_of(others.begin(), others.end(),
                               [](const Group& group) { return group.wait == Wait::nothing; });
}

void Warp::run(std::uint64_t budget) {
  const std::uint64_t granted = budget;
  const std::vector<Instruction>& code = block.launch.kernel.code;
  const Instruction* current = code.data();
  try {
    while (budget) {
      if (pc >= limit_ || !active) {
        reschedule();
        if (!active) {
          check_that_it_can_go_on();
          break;
        }
      }
      while (budget && pc < limit_) {
        const Instruction& instruction = code[pc];
        current = &instruction;
        ++pc;
        --budget;
        Mask lanes = active;
        if (instruction.guarded) {
          require(instruction.guard, active, "a guard");
          const Mask value = predicate(instruction.guard);
          lanes &= instruction.guard_negated ? ~value : value;
          if (!lanes) continue;
        }
        instruction.handler(*this, instruction, lanes);
      }
    }
  } catch (const Fault& fault) {
    throw Error(describe(*current) + ", " + describe(fault.lane) + ": " + fault.message);
  }
  block.launch.statistics.instructions += granted - budget;
}

void Warp::reschedule() {
  if (active) others.push_back({pc, active, Wait::nothing, 0, nullptr});
  active = 0;
  limit_ = 0;
  pc = std::numeric_limits<std::uint32_t>::max();
  for (const Group& group : others) {
    if (group.wait == Wait::nothing) pc = std::min(pc, group.pc);
  }
  const auto here = [this](const Group& group) {
    return group.wait == Wait::nothing && group.pc == pc;
  };
  for (const Group& group : others) active |= here(group) ? group.lanes : 0;
  if (!active) return;
  others.erase(std::remove_if(others.begin(), others.end(), here), others.end());
  limit_ = std::numeric_limits<std::uint32_t>::max();
  for (const Group& group : others) {
    if (group.wait == Wait::nothing) limit_ = std::min(limit_, group.pc);
  }
}

void Warp::branch(Mask taken, std::uint32_t target) {
  if (taken == active) {
    pc = target;
  } else if (taken) {
    others.push_back({pc, active & ~taken, Wait::nothing, 0, nullptr});
    active = taken;
    pc = target;
    reschedule();
  }
}

void Warp::exit(Mask lanes) {
  exited |= lanes;
  active &= ~lanes;
  if (!active) reschedule();
}

Mask Warp::gather(const Instruction& instruction, Mask lanes, const Mask* members,
                  const std::function<void(Mask)>& execute) {
  const std::uint32_t here = pc - 1;
  const auto waits_here = [here](const Group& group) {
    return group.wait == Wait::lanes && group.pc == here;
  };
  for (const Group& group : others) lanes |= waits_here(group) ? group.lanes : 0;
  others.erase(std::remove_if(others.begin(), others.end(), waits_here), others.end());

  Mask ready = 0;
  for (Mask rest = lanes; rest;) {
    const Mask wanted = members[__builtin_ctz(rest)];
    Mask same = 0;
    for (int i = 0; i < kLanes; ++i) same |= Mask{members[i] == wanted} << i;
    same &= rest;
    rest &= ~same;
    if (same & ~wanted) fault(same & ~wanted, "not in its own member mask " + to_hex(wanted));
    if (wanted & ~existing) fault(same, "member mask " + to_hex(wanted) + " names lanes not there");
    if (wanted & exited) {
      fault(wanted & exited, "lane has exited, and member mask " + to_hex(wanted) + " names it");
    }
    if (same != wanted) continue;
    execute(same);
    ready |= same;
  }
  const Mask blocked = lanes & ~ready;
  if (blocked) others.push_back({here, blocked, Wait::lanes, 0, &instruction});
  active = (active | ready) & ~blocked;
  if (!active) reschedule();
  return ready;
}

void Warp::wait_at_barrier(const Instruction& instruction, Mask lanes, std::uint32_t barrier) {
  others.push_back({pc, lanes, Wait::barrier, barrier, &instruction});
  active &= ~lanes;
  if (!active) reschedule();
}

// Called when no group can run. Throws if nothing outside of the warp can change that.
void Warp::check_that_it_can_go_on() const {
  if (others.empty()) return;
  for (const Group& group : others) {
    if (group.wait == Wait::barrier) return;
  }
  const Group& group = others.front();
  throw Error(describe(*group.instruction) + ", " + describe(__builtin_ctz(group.lanes)) +
              ": lanes " + to_hex(group.lanes) + " wait for lanes that never arrive" +
              (exited ? "; lanes " + to_hex(exited) + " have exited" : ""));
}

std::uint32_t Warp::uniform(Operand operand, Mask active_lanes, const char* use) {
  require(operand, active_lanes, use);
  const std::uint32_t* values = lanes<std::uint32_t>(operand);
  const std::uint32_t value = values[__builtin_ctz(active_lanes)];
  for (int i = 0; i < kLanes; ++i) {
    if (active_lanes >> i & 1 && values[i] != value) {
      fault(Mask{1} << i, std::string(use) + " differs between lanes");
    }
  }
  return value;
}

std::uint64_t Warp::special(Special special, int lane) const {
  const Launch& launch = block.launch;
  const Dim3 tid = unflatten(static_cast<std::uint32_t>(number * kLanes + lane), launch.block);
  const Mask below = (Mask{1} << lane) - 1, self = Mask{1} << lane;
  switch (special) {
    case Special::tid_x: return tid.x;
    case Special::tid_y: return tid.y;
    case Special::tid_z: return tid.z;
    case Special::ntid_x: return launch.block.x;
    case Special::ntid_y: return launch.block.y;
    case Special::ntid_z: return launch.block.z;
    case Special::ctaid_x: return block.id.x;
    case Special::ctaid_y: return block.id.y;
    case Special::ctaid_z: return block.id.z;
    case Special::nctaid_x: return launch.grid.x;
    case Special::nctaid_y: return launch.grid.y;
    case Special::nctaid_z: return launch.grid.z;
    case Special::laneid: return static_cast<std::uint64_t>(lane);
    case Special::warpid: return static_cast<std::uint64_t>(number);
    case Special::nwarpid: return block.warps.size();
    case Special::smid: return block.slot;
    case Special::nsmid: return launch.resident;
    case Special::lanemask_eq: return self;
    case Special::lanemask_lt: return below;
    case Special::lanemask_le: return below | self;
    case Special::lanemask_gt: return ~(below | self);
    case Special::lanemask_ge: return ~below;
    case Special::dynamic_smem_size: return launch.dynamic_shared_bytes;
  }
  return 0;
}

std::string Warp::describe(int lane) const {
  const auto thread = static_cast<std::uint32_t>(number * kLanes + lane);
  return "block " + to_string(block.id) + ", thread " +
         to_string(unflatten(thread, block.launch.block));
}

std::string Warp::describe(const Instruction& instruction) const {
  const Kernel& kernel = block.launch.kernel;
  return "kernel " + kernel.info.name + ", line " + std::to_string(instruction.line) + " (" +
         kernel.source->line(instruction.line) + ")";
}

// --- Block.

Block::Block(Launch& launch, std::uint32_t slot)
    : launch(launch),
      slot(slot),
      shared(launch.kernel.info.shared_bytes, launch.dynamic_shared_bytes) {
  const auto count = static_cast<int>((threads() + kLanes - 1) / kLanes);
  warps.reserve(static_cast<std::size_t>(count));
  for (int number = 0; number < count; ++number) warps.emplace_back(*this, number);
}

std::uint32_t Block::threads() const { return launch.block.x * launch.block.y * launch.block.z; }

void Block::start(std::uint32_t index) {
  id = unflatten(index, launch.grid);
  shared.reset();
  barriers = {};
  bulk = {};
  time = 1;
  for (Warp& warp : warps) warp.start();
}

bool Block::step() {
  // Copies end in any order, and some while before the next instruction.
  if (!bulk.copies.empty() && launch.random.below(4) == 0) {
    end_copy(bulk, launch.random.below(static_cast<std::uint32_t>(bulk.copies.size())));
  }
  const std::size_t count = warps.size();
  const std::size_t first = launch.random.below(static_cast<std::uint32_t>(count));
  bool ended = true;
  for (std::size_t i = 0; i < count; ++i) {
    Warp& warp = warps[(first + i) % count];
    if (warp.can_run()) {
      std::uint64_t budget = 64 + launch.random.below(512);
      if (launch.instruction_limit) {
        const std::uint64_t left = launch.instruction_limit - launch.statistics.instructions;
        if (!left) {
          throw Error("kernel " + launch.kernel.info.name + ": reached the limit of " +
                      std::to_string(launch.instruction_limit) + " warp instructions, " +
                      warp.describe(__builtin_ctz(warp.existing & ~warp.exited)));
        }
        budget = std::min(budget, left);
      }
      warp.run(budget);
      return true;
    }
    ended = ended && warp.ended();
  }
  if (!ended) fail_at_barrier();
  if (!bulk.copies.empty()) {
    throw Error("kernel " + launch.kernel.info.name + ": a block ends before its bulk copies do");
  }
  return false;
}

void Block::fail_at_barrier() const {
  std::string message;
  int exited = 0;
  for (const Warp& warp : warps) {
    exited += __builtin_popcount(warp.exited);
    for (const Group& group : warp.others) {
      if (!message.empty() || group.wait != Wait::barrier) continue;
      message = warp.describe(*group.instruction) + ", " +
                warp.describe(__builtin_ctz(group.lanes)) +
                ": waits at a barrier that not all reach";
    }
  }
  throw Error(message + "; " + std::to_string(exited) + " of " + std::to_string(threads()) +
              " threads have exited");
}

void Block::arrive(Warp& warp, Mask lanes, const Instruction& instruction, std::uint32_t barrier,
                   std::uint32_t count, bool waits, Mask voters, Mask votes) {
  if (barrier >= barriers.size()) fault(lanes, "no barrier has number " + std::to_string(barrier));
  if (count % kLanes) fault(lanes, "a barrier's thread count is not a multiple of 32");
  Barrier& b = barriers[barrier];
  // Threads count as whole warps: the missing threads of a last warp arrive with its first lane.
  const auto in_warps = static_cast<std::uint32_t>(warps.size()) * kLanes;
  const std::uint32_t expected = instruction.counted ? count : in_warps;
  if (!expected || expected > in_warps) fault(lanes, "a barrier's thread count is out of range");
  if (b.arrived && b.expected != expected) {
    fault(lanes, "a barrier is used with different thread counts");
  }
  b.expected = expected;
  bulk.idle = 0;
  b.arrived += static_cast<std::uint32_t>(
      __builtin_popcount(lanes) + (lanes & 1 ? kLanes - __builtin_popcount(warp.existing) : 0));
  if (b.arrived > b.expected) fault(lanes, "more threads reach a barrier than it is for");
  b.voters += static_cast<std::uint32_t>(__builtin_popcount(voters));
  b.votes += static_cast<std::uint32_t>(__builtin_popcount(votes));

  warp.clocks.before[static_cast<std::size_t>(warp.number)] = ++time;
  b.clocks.join(warp.clocks);
  if (waits) warp.wait_at_barrier(instruction, lanes, barrier);
  if (b.arrived < b.expected) return;

  for (Warp& other : warps) {
    for (Group& group : other.others) {
      if (group.wait != Wait::barrier || group.barrier != barrier) continue;
      group.wait = Wait::nothing;
      other.clocks.join(b.clocks);
      const Instruction& waited = *group.instruction;
      if (waited.finish) waited.finish(other, waited, group.lanes, b);
    }
    // The running lanes must stop at the place of the released lanes.
    if (other.active) other.reschedule();
  }
  b = {};
}

}  // namespace ptx
