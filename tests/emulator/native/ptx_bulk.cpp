#include "ptx_bulk.h"

#include <algorithm>
#include <cstring>

#include "ptx_builder.h"
#include "ptx_lanes.h"
#include "ptx_text.h"

namespace ptx {
namespace {

constexpr std::uint32_t kMaxCount = (1 << 20) - 1;  // of arrivals, and of bytes
constexpr std::uint64_t kMaxIdle = 1 << 21;
constexpr std::uint8_t kUnderWay = 0xDB;  // what a byte shows while it is copied

constexpr const char* kCopy =
    "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes";

// Calls f(lane) for each, and adds the lane to its error.
template <class F>
void for_lanes(Mask lanes, F f) {
  for (; lanes; lanes &= lanes - 1) {
    const int lane = __builtin_ctz(lanes);
    try {
      f(lane);
    } catch (const Error& error) {
      throw Fault{lane, error.what()};
    }
  }
}

u64 address_in(Warp& warp, Operand operand, bool wide, int lane) {
  return wide ? warp.lanes<u64>(operand)[lane] : warp.lanes<u32>(operand)[lane];
}

u64 mbarrier_address(Warp& warp, const Instruction& in, int lane) {
  const u64 address =
      address_in(warp, in.operand[0], in.wide_address, lane) + static_cast<u64>(in.immediate);
  if (address % 8) throw Error("an mbarrier at " + to_hex(address) + ", no multiple of 8");
  return address;
}

std::size_t find_mbarrier(Warp& warp, u64 address) {
  Block& block = warp.block;
  const std::vector<Mbarrier>& all = block.bulk.mbarriers;
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (all[i].address != address) continue;
    // Who uses it must have seen that it was initialized.
    block.shared.access(address, 8, Access::update, warp.number, warp.clocks, block.time);
    return i;
  }
  throw Error("no mbarrier was initialized at " + to_hex(address));
}

void end_phase_if_complete(Bulk& bulk, Mbarrier& mbarrier) {
  if (mbarrier.pending || mbarrier.bytes) return;
  ++mbarrier.phase;
  mbarrier.pending = mbarrier.count;
  mbarrier.arrived = mbarrier.arriving;
  bulk.idle = 0;
}

// --- mbarrier. Operand 0 is the address.

void initialize_lanes(Warp& warp, const Instruction& in, Mask active) {
  warp.require(in.operand[0], active, "an address");
  warp.require(in.operand[1], active, "a count");
  Block& block = warp.block;
  for_lanes(active, [&](int lane) {
    const u64 address = mbarrier_address(warp, in, lane);
    const u32 count = warp.lanes<u32>(in.operand[1])[lane];
    if (count < 1 || count > kMaxCount) throw Error("an mbarrier for no or too many arrivals");
    block.shared.access(address, 8, Access::weak_write, warp.number, warp.clocks, block.time);
    std::vector<Mbarrier>& all = block.bulk.mbarriers;
    for (const Mbarrier& other : all) {
      if (other.address == address) throw Error("an mbarrier that was initialized before");
    }
    if (all.size() == kMaxMbarriers) throw Error("more mbarriers than are known here");
    Mbarrier made{address, count, count, 0, 0, warp.number, false, {}, {}};
    all.push_back(made);
  });
}

// Operands: address, bytes to expect (or none, if not `counted`).
void arrive_lanes(Warp& warp, const Instruction& in, Mask active) {
  warp.require(in.operand[0], active, "an address");
  if (in.counted) warp.require(in.operand[1], active, "a count of bytes");
  Block& block = warp.block;
  for_lanes(active, [&](int lane) {
    Bulk& bulk = block.bulk;
    Mbarrier& mbarrier = bulk.mbarriers[find_mbarrier(warp, mbarrier_address(warp, in, lane))];
    if (in.counted) mbarrier.bytes += warp.lanes<u32>(in.operand[1])[lane];
    if (mbarrier.bytes > kMaxCount) throw Error("an mbarrier that expects too many bytes");
    warp.clocks.before[static_cast<std::size_t>(warp.number)] = ++block.time;
    mbarrier.arriving.join(warp.clocks);
    --mbarrier.pending;  // it is above 0 between phases, unless bytes are missing
    if (mbarrier.pending == ~u32{0}) throw Error("more arrivals than an mbarrier is for");
    bulk.idle = 0;
    end_phase_if_complete(bulk, mbarrier);
  });
}

// Operands: address, parity, destination.
void try_wait_lanes(Warp& warp, const Instruction& in, Mask active) {
  warp.require(in.operand[0], active, "an address");
  warp.require(in.operand[1], active, "a parity");
  Mask complete = 0;
  for_lanes(active, [&](int lane) {
    Bulk& bulk = warp.block.bulk;
    const u32 parity = warp.lanes<u32>(in.operand[1])[lane];
    if (parity > 1) throw Error("a parity of " + std::to_string(parity));
    const std::size_t index = find_mbarrier(warp, mbarrier_address(warp, in, lane));
    Mbarrier& mbarrier = bulk.mbarriers[index];
    if (mbarrier.phase % 2 == parity) {
      if (++bulk.idle > kMaxIdle) throw Error("waits for a phase of an mbarrier that never ends");
      return;
    }
    complete |= Mask{1} << lane;
    warp.clocks.join(mbarrier.arrived);
    warp.clocks.phases[index] = mbarrier.phase;
  });
  warp.write_predicate(in.operand[2], complete, active);
  warp.define(in.operand[2], active, kAllLanes);
}

void fence_lanes(Warp& warp, const Instruction&, Mask) {
  for (Mbarrier& mbarrier : warp.block.bulk.mbarriers) {
    if (mbarrier.maker == warp.number) mbarrier.fenced = true;
  }
}

// --- cp.async.bulk. Operands: shared address, its offset, global address, its offset, bytes, the
// mbarrier's address, its offset. All shared addresses have 32 bits, or all have 64.

void copy_lanes(Warp& warp, const Instruction& in, Mask active) {
  for (const std::size_t i : {0, 2, 4, 5}) warp.require(in.more[i], active, "a copy's operand");
  Block& block = warp.block;
  for_lanes(active, [&](int lane) {
    const auto offset = [&](std::size_t i) { return *warp.lanes<u64>(in.more[i]); };
    const u64 to = address_in(warp, in.more[0], in.wide_address, lane) + offset(1);
    const u64 from = warp.lanes<u64>(in.more[2])[lane] + offset(3);
    const u32 bytes = warp.lanes<u32>(in.more[4])[lane];
    const u64 at = address_in(warp, in.more[5], in.wide_address, lane) + offset(6);
    if ((to | from | bytes) % 16) {
      throw Error("a bulk copy of " + std::to_string(bytes) + " bytes from " + to_hex(from) +
                  " to " + to_hex(to) + ", not all multiples of 16");
    }
    if (!bytes || bytes > kMaxCount) throw Error("a bulk copy of no or too many bytes");
    const std::size_t index = find_mbarrier(warp, at);
    Mbarrier& mbarrier = block.bulk.mbarriers[index];
    if (!mbarrier.fenced) {
      throw Error("a bulk copy to an mbarrier whose initialization no fence.proxy.async follows");
    }
    std::uint8_t* const target = block.shared.copy_to(to, bytes, warp.number, warp.clocks,
                                                      index, mbarrier.phase);
    const void* const source = block.launch.memory.access(from, bytes, false);
    // Who waits for the phase comes after this copy's instruction, too.
    mbarrier.arriving.join(warp.clocks);
    std::memset(target, kUnderWay, bytes);
    block.bulk.copies.push_back(
        {target, static_cast<const std::uint8_t*>(source), bytes, index});
    block.launch.statistics.global_load_bytes += bytes;
    block.bulk.idle = 0;
  });
}

void prefetch_lanes(Warp& warp, const Instruction& in, Mask active) {
  warp.require(in.operand[0], active, "an address");
  warp.require(in.operand[1], active, "a size");
  for_lanes(active, [&](int lane) {
    const u64 address = warp.lanes<u64>(in.operand[0])[lane] + static_cast<u64>(in.immediate);
    const u32 bytes = warp.lanes<u32>(in.operand[1])[lane];
    if ((address | bytes) % 16) {
      throw Error("a bulk prefetch of " + std::to_string(bytes) + " bytes from " +
                  to_hex(address) + ", not both multiples of 16");
    }
    if (bytes) warp.block.launch.memory.access(address, bytes, false);
  });
}

}  // namespace

void end_copy(Bulk& bulk, std::size_t at) {
  const BulkCopy copy = bulk.copies[at];
  bulk.copies.erase(bulk.copies.begin() + static_cast<std::ptrdiff_t>(at));
  std::memcpy(copy.to, copy.from, copy.bytes);
  Mbarrier& mbarrier = bulk.mbarriers[copy.mbarrier];
  mbarrier.bytes -= static_cast<std::int64_t>(copy.bytes);
  bulk.idle = 0;
  end_phase_if_complete(bulk, mbarrier);
}

bool Builder::add_bulk(const Statement& statement, Instruction& in) {
  const std::string& opcode = statement.opcode;
  const std::vector<Term>& terms = statement.terms;
  const auto want = [&](std::size_t count) {
    if (terms.size() != count) {
      refuse(statement.line, "'" + opcode + "' with " + std::to_string(terms.size()) + " operands");
    }
  };
  const auto sink = [&] {
    if (terms[0].name != "_") refuse(statement.line, "an mbarrier's state is not known here");
  };
  in.space = Space::shared;
  if (opcode == "mbarrier.init.shared::cta.b64") {
    want(2);
    in.handler = initialize_lanes;
    decode_address(statement, terms[0], in);
    in.operand[1] = source(statement, terms[1], 32);
  } else if (opcode == "mbarrier.arrive.expect_tx.shared::cta.b64") {
    want(3);
    sink();
    in.handler = arrive_lanes;
    in.counted = true;
    decode_address(statement, terms[1], in);
    in.operand[1] = source(statement, terms[2], 32);
  } else if (opcode == "mbarrier.arrive.shared::cta.b64") {
    want(2);
    sink();
    in.handler = arrive_lanes;
    decode_address(statement, terms[1], in);
  } else if (opcode == "mbarrier.try_wait.parity.shared::cta.b64") {
    want(3);
    in.handler = try_wait_lanes;
    decode_address(statement, terms[1], in);
    in.operand[1] = source(statement, terms[2], 32);
    in.operand[2] = destination(statement, terms[0], 1);
  } else if (opcode == "fence.proxy.async.shared::cta") {
    want(0);
    in.handler = fence_lanes;
  } else if (opcode == kCopy) {
    want(4);
    in.handler = copy_lanes;
    const auto add_address = [&](const Term& term, Space space) {
      Instruction part;
      part.space = space;
      decode_address(statement, term, part);
      in.more.push_back(part.operand[0]);
      in.more.push_back(constant(statement.line, 64, static_cast<u64>(part.immediate)));
      return part.wide_address;
    };
    in.wide_address = add_address(terms[0], Space::shared);
    add_address(terms[1], Space::global);
    in.more.push_back(source(statement, terms[2], 32));
    if (add_address(terms[3], Space::shared) != in.wide_address) {
      refuse(statement.line, "shared addresses of different widths");
    }
  } else if (opcode == "cp.async.bulk.prefetch.L2.global") {
    want(2);
    in.handler = prefetch_lanes;
    in.space = Space::global;
    decode_address(statement, terms[0], in);
    in.operand[1] = source(statement, terms[1], 32);
  } else {
    in.space = Space::generic;
    return false;
  }
  return true;
}

}  // namespace ptx
