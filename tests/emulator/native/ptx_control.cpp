// Control flow, barriers, and operations of the lanes of a warp together.
#include <algorithm>

#include "ptx_lanes.h"
#include "ptx_operations.h"

namespace ptx {
namespace {

void branch_lanes(Warp& warp, const Instruction& in, Mask active) {
  warp.branch(active, in.target);
}

void indexed_branch_lanes(Warp& warp, const Instruction& in, Mask active) {
  warp.require(in.operand[0], active, "a branch index");
  const u32* index = warp.lanes<u32>(in.operand[0]);
  const std::uint32_t next = warp.pc;
  for (int i = 0; i < kLanes; ++i) {
    if (!(active >> i & 1)) continue;
    if (index[i] >= in.targets.size()) fault(Mask{1} << i, "branch index out of range");
    warp.others.push_back({in.targets[index[i]], Mask{1} << i, Wait::nothing, 0, nullptr});
  }
  warp.active &= ~active;
  warp.pc = next;
  warp.reschedule();
}

void exit_lanes(Warp& warp, const Instruction&, Mask active) { warp.exit(active); }

void trap_lanes(Warp&, const Instruction&, Mask active) { fault(active, "trap"); }

void do_nothing(Warp&, const Instruction&, Mask) {}

// Reads a clock outside of the kernel, which only grows.
template <class T>
void read_clock(Warp& warp, const Instruction& in, Mask active) {
  Launch& launch = warp.block.launch;
  T values[kLanes];
  std::fill_n(values, kLanes, static_cast<T>(launch.statistics.instructions + ++launch.clock));
  warp.write(in.operand[0], values, active);
  warp.define(in.operand[0], active, kAllLanes);
}

// --- Barriers. Operands: number, thread count. For bar.red: destination, number, count, predicate.

template <bool kWaits, bool kVotes>
void barrier_lanes(Warp& warp, const Instruction& in, Mask active) {
  if (in.aligned) {
    Mask all[kLanes];
    std::fill_n(all, kLanes, warp.existing);
    active = warp.gather(in, active, all, [](Mask) {});
    if (!active) return;
  }
  constexpr int kFirst = kVotes ? 1 : 0;
  const u32 number = warp.uniform(in.operand[kFirst], active, "a barrier's number");
  const u32 count =
      in.counted ? warp.uniform(in.operand[kFirst + 1], active, "a barrier's thread count") : 0;
  Mask votes = 0;
  if (kVotes) {
    const Operand vote = in.operand[kFirst + 2];
    warp.require(vote, active, "a vote");
    votes = active & (in.negated ? ~warp.predicate(vote) : warp.predicate(vote));
  }
  warp.block.arrive(warp, active, in, number, count, kWaits, kVotes ? active : 0, votes);
}

void finish_count(Warp& warp, const Instruction& in, Mask lanes, const Barrier& barrier) {
  u32 values[kLanes];
  std::fill_n(values, kLanes, barrier.votes);
  warp.write(in.operand[0], values, lanes);
  warp.define(in.operand[0], lanes, kAllLanes);
}

template <bool kAll>
void finish_vote(Warp& warp, const Instruction& in, Mask lanes, const Barrier& barrier) {
  const bool result = kAll ? barrier.votes == barrier.voters : barrier.votes != 0;
  warp.write_predicate(in.operand[0], result ? kAllLanes : 0, lanes);
  warp.define(in.operand[0], lanes, kAllLanes);
}

// --- Warp operations. The last operand is the member mask.

template <class F>
void together(Warp& warp, const Instruction& in, Mask active, F execute) {
  const Operand members = in.operand[in.operands - 1];
  warp.require(members, active, "a member mask");
  warp.gather(in, active, warp.lanes<Mask>(members), execute);
}

void sync_warp(Warp& warp, const Instruction& in, Mask active) {
  together(warp, in, active, [](Mask) {});
}

struct ShuffleIndex {
  static bool source(int lane, int b, int mask, int limit, int& from) {
    from = (lane & mask) | (b & ~mask);
    return from <= limit;
  }
};
struct ShuffleUp {
  static bool source(int lane, int b, int, int limit, int& from) {
    return (from = lane - b) >= limit;
  }
};
struct ShuffleDown {
  static bool source(int lane, int b, int, int limit, int& from) {
    return (from = lane + b) <= limit;
  }
};
struct ShuffleButterfly {
  static bool source(int lane, int b, int, int limit, int& from) {
    return (from = lane ^ b) <= limit;
  }
};

// Operands: destination, whether the source was in range, value, b, c, members. Lanes that do not
// take part have undefined values.
template <class F>
void shuffle(Warp& warp, const Instruction& in, Mask active) {
  together(warp, in, active, [&](Mask lanes) {
    const u32 *a = warp.lanes<u32>(in.operand[2]), *b = warp.lanes<u32>(in.operand[3]);
    const u32* c = warp.lanes<u32>(in.operand[4]);
    warp.require(in.operand[3], lanes, "a shuffle's lane");
    warp.require(in.operand[4], lanes, "a shuffle's mask");
    u32 results[kLanes] = {};
    Mask in_range = 0, defined = 0;
    const Mask known = warp.defined(in.operand[2]) & lanes;
    for (int i = 0; i < kLanes; ++i) {
      const int segment = static_cast<int>(c[i] >> 8 & 31), clamp = static_cast<int>(c[i] & 31);
      const int limit = (i & segment) | (clamp & ~segment);
      int from = i;
      const bool valid = F::source(i, static_cast<int>(b[i] & 31), segment, limit, from);
      if (!valid || from < 0 || from >= kLanes) from = i;
      results[i] = a[from];
      in_range |= Mask{valid} << i;
      defined |= (known >> from & 1) << i;
    }
    warp.write(in.operand[0], results, lanes);
    warp.define(in.operand[0], lanes, defined);
    warp.write_predicate(in.operand[1], in_range, lanes);
    warp.define(in.operand[1], lanes, kAllLanes);
  });
}

enum class Vote { all, any, uni, ballot };

template <Vote kVote>
void vote(Warp& warp, const Instruction& in, Mask active) {
  together(warp, in, active, [&](Mask lanes) {
    warp.require(in.operand[1], lanes, "a vote");
    const Mask value = warp.predicate(in.operand[1]);
    const Mask votes = lanes & (in.negated ? ~value : value);
    if constexpr (kVote == Vote::ballot) {
      u32 results[kLanes];
      std::fill_n(results, kLanes, votes);
      warp.write(in.operand[0], results, lanes);
    } else {
      const bool result = kVote == Vote::all   ? votes == lanes
                          : kVote == Vote::any ? votes != 0
                                               : votes == 0 || votes == lanes;
      warp.write_predicate(in.operand[0], result ? kAllLanes : 0, lanes);
    }
    warp.define(in.operand[0], lanes, kAllLanes);
  });
}

template <class F, class T>
void reduce(Warp& warp, const Instruction& in, Mask active) {
  together(warp, in, active, [&](Mask lanes) {
    const T* values = warp.lanes<T>(in.operand[1]);
    T result = values[__builtin_ctz(lanes)];
    for (Mask rest = lanes & (lanes - 1); rest; rest &= rest - 1) {
      result = F::of(result, values[__builtin_ctz(rest)]);
    }
    T results[kLanes];
    std::fill_n(results, kLanes, result);
    warp.write(in.operand[0], results, lanes);
    const bool defined = !(lanes & ~warp.defined(in.operand[1]));
    warp.define(in.operand[0], lanes, defined ? kAllLanes : 0);
  });
}

// Returns the lanes that have the same value.
template <class T>
void match_any(Warp& warp, const Instruction& in, Mask active) {
  together(warp, in, active, [&](Mask lanes) {
    warp.require(in.operand[1], lanes, "a matched value");
    const T* values = warp.lanes<T>(in.operand[1]);
    u32 results[kLanes] = {};
    for (int i = 0; i < kLanes; ++i) {
      for (int k = 0; k < kLanes; ++k) results[i] |= u32{values[i] == values[k]} << k;
      results[i] &= lanes;
    }
    warp.write(in.operand[0], results, lanes);
    warp.define(in.operand[0], lanes, kAllLanes);
  });
}

void active_mask(Warp& warp, const Instruction& in, Mask active) {
  u32 results[kLanes];
  std::fill_n(results, kLanes, active);
  warp.write(in.operand[0], results, active);
  warp.define(in.operand[0], active, kAllLanes);
}

}  // namespace

Handler branch() { return branch_lanes; }
Handler indexed_branch() { return indexed_branch_lanes; }
Handler exit() { return exit_lanes; }
Handler trap() { return trap_lanes; }
Handler nothing() { return do_nothing; }

Handler barrier(bool waits, bool votes) {
  if (votes) return barrier_lanes<true, true>;
  return waits ? barrier_lanes<true, false> : barrier_lanes<false, false>;
}

Finish barrier_result(const std::string& operation) {
  if (operation == "popc") return finish_count;
  if (operation == "and") return finish_vote<true>;
  return operation == "or" ? finish_vote<false> : nullptr;
}

Handler clock(int bits) { return bits == 64 ? read_clock<u64> : read_clock<u32>; }

void add_warp_operations(Operations& operations) {
  operations["bar.warp.sync"] = {sync_warp, "w"};
  const auto add_shuffle = [&](const std::string& mode, Handler handler) {
    operations["shfl.sync." + mode + ".b32|"] = {handler, "WPwwww"};
    operations["shfl.sync." + mode + ".b32"] = {handler, "W_wwww"};
  };
  add_shuffle("idx", shuffle<ShuffleIndex>);
  add_shuffle("up", shuffle<ShuffleUp>);
  add_shuffle("down", shuffle<ShuffleDown>);
  add_shuffle("bfly", shuffle<ShuffleButterfly>);
  operations["vote.sync.all.pred"] = {vote<Vote::all>, "Pnw"};
  operations["vote.sync.any.pred"] = {vote<Vote::any>, "Pnw"};
  operations["vote.sync.uni.pred"] = {vote<Vote::uni>, "Pnw"};
  operations["vote.sync.ballot.b32"] = {vote<Vote::ballot>, "Wnw"};
  for_types<u32, s32>([&](auto zero) {
    using T = decltype(zero);
    const std::string type = "." + type_name<T>();
    operations["redux.sync.add" + type] = {reduce<Add, u32>, "Www"};
    operations["redux.sync.min" + type] = {reduce<Minimum, T>, "Www"};
    operations["redux.sync.max" + type] = {reduce<Maximum, T>, "Www"};
  });
  operations["redux.sync.and.b32"] = {reduce<And, u32>, "Www"};
  operations["redux.sync.or.b32"] = {reduce<Or, u32>, "Www"};
  operations["redux.sync.xor.b32"] = {reduce<Xor, u32>, "Www"};
  operations["match.any.sync.b32"] = {match_any<u32>, "Www"};
  operations["match.any.sync.b64"] = {match_any<u64>, "Wqw"};
  operations["activemask.b32"] = {active_mask, "W"};
}

}  // namespace ptx
