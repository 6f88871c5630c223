// Products of bit matrices, and asynchronous copies to shared memory.
#include <algorithm>
#include <array>
#include <cstring>

#include "ptx_builder.h"
#include "ptx_lanes.h"
#include "ptx_text.h"

namespace ptx {
namespace {

// --- mma.m16n8k256 of bits. Operands in `more`: d (4), a (4), b (2), c (4).

constexpr int kRows = 16, kColumns = 8, kWords = 8;  // a row of A or a column of B has 8 words
constexpr int kDestinations = 4, kAValues = 4, kBValues = 2;
constexpr const char* kProduct =
    "mma.sync.aligned.m16n8k256.row.col.s32.b1.b1.s32.and.popc";

// The words of a matrix of bits by row (or column), and whether all threads' parts are defined.
template <int kLines>
struct BitMatrix {
  u32 words[kLines][kWords] = {};
  std::array<bool, kLines> defined;

  BitMatrix() { defined.fill(true); }
  void set(int line, int word, u32 value, bool is_defined) {
    words[line][word] = value;
    defined[static_cast<std::size_t>(line)] &= is_defined;
  }
};

// Thread 4 * g + c has of A, in value i, the word c + 4 * (i / 2) of row g + 8 * (i % 2); of B, in
// value i, the word c + 4 * i of column g; of C and D, in value i, row g + 8 * (i / 2) and column
// 2 * c + i % 2. ("Matrix Fragments for mma.m16n8k256" in the PTX manual.)
void multiply(Warp& warp, const Instruction& in) {
  const Operand* const d = in.more.data();
  const Operand* const a = d + kDestinations;
  const Operand* const b = a + kAValues;
  const Operand* const c = b + kBValues;
  BitMatrix<kRows> rows;
  BitMatrix<kColumns> columns;
  for (int lane = 0; lane < kLanes; ++lane) {
    const int group = lane / 4, member = lane % 4;
    for (int i = 0; i < kAValues; ++i) {
      rows.set(group + 8 * (i % 2), member + 4 * (i / 2), warp.lanes<u32>(a[i])[lane],
               warp.defined(a[i]) >> lane & 1);
    }
    for (int i = 0; i < kBValues; ++i) {
      columns.set(group, member + 4 * i, warp.lanes<u32>(b[i])[lane],
                  warp.defined(b[i]) >> lane & 1);
    }
  }
  u32 results[kDestinations][kLanes];
  Mask defined[kDestinations] = {};
  for (int i = 0; i < kDestinations; ++i) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const int row = lane / 4 + 8 * (i / 2), column = 2 * (lane % 4) + i % 2;
      u32 sum = warp.lanes<u32>(c[i])[lane];  // it wraps
      for (int word = 0; word < kWords; ++word) {
        sum += static_cast<u32>(
            __builtin_popcount(rows.words[row][word] & columns.words[column][word]));
      }
      results[i][lane] = sum;
      const bool known = rows.defined[static_cast<std::size_t>(row)] &&
                         columns.defined[static_cast<std::size_t>(column)] &&
                         (warp.defined(c[i]) >> lane & 1);
      defined[i] |= Mask{known} << lane;
    }
  }
  for (int i = 0; i < kDestinations; ++i) {
    warp.write(d[i], results[i], kAllLanes);
    warp.define(d[i], kAllLanes, defined[i]);
  }
}

void multiply_lanes(Warp& warp, const Instruction& in, Mask active) {
  Mask all[kLanes];
  std::fill_n(all, kLanes, kAllLanes);
  warp.gather(in, active, all, [&](Mask) { multiply(warp, in); });
}

// --- cp.async. The bytes are read at once, and written when the thread waits for them: a wait that
// is missing gives wrong bytes. Operands: shared address, global address, its offset.

void copy_lanes(Warp& warp, const Instruction& in, Mask active) {
  warp.require(in.operand[0], active, "an address");
  warp.require(in.operand[1], active, "an address");
  const u64* const from = warp.lanes<u64>(in.operand[1]);
  const u64 offset = *warp.lanes<u64>(in.operand[2]);
  for (Mask rest = active; rest; rest &= rest - 1) {
    const int lane = __builtin_ctz(rest);
    const u64 to = (in.wide_address ? warp.lanes<u64>(in.operand[0])[lane]
                                    : warp.lanes<u32>(in.operand[0])[lane]) +
                   static_cast<u64>(in.immediate);
    const u64 source = from[lane] + offset;
    if ((to | source) & (in.bytes - 1)) {
      fault(Mask{1} << lane, "address " + to_hex(to & (in.bytes - 1) ? to : source) +
                                 " is not aligned to " + std::to_string(in.bytes) + " bytes");
    }
    try {
      PendingCopy copy{to, in.bytes, {}};
      Block& block = warp.block;
      std::memcpy(copy.data.data(), block.launch.memory.access(source, in.bytes, false), in.bytes);
      // From now on until the wait, others must not touch these bytes.
      block.shared.access(to, in.bytes, Access::weak_write, warp.number, warp.clocks, block.time);
      warp.copies[static_cast<std::size_t>(lane)].open.push_back(copy);
    } catch (const Error& error) {
      throw Fault{lane, error.what()};
    }
  }
}

template <class F>
void for_copies(Warp& warp, Mask active, F f) {
  for (; active; active &= active - 1) {
    const int lane = __builtin_ctz(active);
    f(lane, warp.copies[static_cast<std::size_t>(lane)]);
  }
}

void commit(LaneCopies& copies) {
  copies.groups.push_back(std::move(copies.open));
  copies.open.clear();
}

void commit_lanes(Warp& warp, const Instruction&, Mask active) {
  for_copies(warp, active, [](int, LaneCopies& copies) { commit(copies); });
}

// Completes all but the last `pending` groups.
void complete(Warp& warp, int lane, LaneCopies& copies, std::size_t pending) {
  Block& block = warp.block;
  while (copies.groups.size() > pending) {
    for (const PendingCopy& copy : copies.groups.front()) {
      try {
        std::memcpy(block.shared.access(copy.to, copy.bytes, Access::weak_write, warp.number,
                                        warp.clocks, block.time),
                    copy.data.data(), copy.bytes);
      } catch (const Error& error) {
        throw Fault{lane, error.what()};
      }
    }
    copies.groups.erase(copies.groups.begin());
  }
}

void wait_lanes(Warp& warp, const Instruction& in, Mask active) {
  for_copies(warp, active, [&](int lane, LaneCopies& copies) {
    complete(warp, lane, copies, static_cast<std::size_t>(in.immediate));
  });
}

void wait_all_lanes(Warp& warp, const Instruction&, Mask active) {
  for_copies(warp, active, [&](int lane, LaneCopies& copies) {
    commit(copies);
    complete(warp, lane, copies, 0);
  });
}

}  // namespace

bool Builder::add_tensor(const Statement& statement, Instruction& in) {
  const std::vector<Term>& terms = statement.terms;
  const auto want = [&](std::size_t count) {
    if (terms.size() != count) {
      refuse(statement.line,
             "'" + statement.opcode + "' with " + std::to_string(terms.size()) + " operands");
    }
  };
  if (statement.opcode == kProduct) {
    want(4);
    constexpr std::size_t kSizes[] = {kDestinations, kAValues, kBValues, kDestinations};
    for (std::size_t i = 0; i < terms.size(); ++i) {
      if (terms[i].kind != Term::Kind::vector || terms[i].parts.size() != kSizes[i]) {
        refuse(statement.line, "an operand is not a vector of " + std::to_string(kSizes[i]));
      }
      for (const Term& part : terms[i].parts) {
        in.more.push_back(i ? source(statement, part, 32) : destination(statement, part, 32));
      }
    }
    in.handler = multiply_lanes;
    return true;
  }
  if (statement.opcode == "cp.async.cg.shared.global") {
    want(3);
    if (terms[2].kind != Term::Kind::number || terms[2].value != 16) {
      refuse(statement.line, "cp.async.cg copies 16 bytes");
    }
    in.handler = copy_lanes;
    in.bytes = 16;
    Instruction from;
    from.space = Space::global;
    decode_address(statement, terms[1], from);
    in.space = Space::shared;
    decode_address(statement, terms[0], in);
    in.operand[1] = from.operand[0];
    in.operand[2] = constant(statement.line, 64, static_cast<u64>(from.immediate));
    return true;
  }
  if (statement.opcode == "cp.async.commit_group") {
    want(0);
    in.handler = commit_lanes;
    return true;
  }
  if (statement.opcode == "cp.async.wait_all") {
    want(0);
    in.handler = wait_all_lanes;
    return true;
  }
  if (statement.opcode == "cp.async.wait_group") {
    want(1);
    if (terms[0].kind != Term::Kind::number) refuse(statement.line, "an operand is not a number");
    in.immediate = static_cast<std::int64_t>(terms[0].value);
    in.handler = wait_lanes;
    return true;
  }
  return false;
}

}  // namespace ptx
