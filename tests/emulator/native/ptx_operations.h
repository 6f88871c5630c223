// The operations of the executor, by name.
#pragma once

#include <string>
#include <unordered_map>
#include <vector>

#include "ptx_program.h"

namespace ptx {

// An instruction whose operands are all registers or immediates. The signature has a letter for
// each operand: p is a predicate, n is a predicate that may be negated with !, h is 16 bits, w is
// 32, q is 64, i is an immediate, c is the carry flag, and _ is an unread predicate that the text
// leaves out. An upper-case letter is a written operand.
struct Operation {
  Handler handler = nullptr;
  std::string signature;
  std::int64_t immediate = 0;  // the value if there is no operand i
};

using Operations = std::unordered_map<std::string, Operation>;

void add_arithmetic(Operations& operations);
void add_comparisons(Operations& operations);
void add_bit_operations(Operations& operations);
void add_warp_operations(Operations& operations);

// --- Loads, stores and atomics. Operand 0 is the address, and the values follow.
struct DataType {
  char kind;  // 'u', 's' or 'b'
  int bits;
};

// Returns nullptr if there is no such instruction. `register_bits` is the width of the values'
// registers.
Handler load(DataType type, int register_bits, int count);
Handler store(DataType type, int register_bits, int count);
// Operands: address, destination (none for red), value, and a second value for cas.
Handler atomic(const std::string& operation, DataType type);
Handler prefetch();

Handler to_generic();    // cvta.space: operands destination, source
Handler from_generic();  // cvta.to.space
Handler is_space();      // isspacep

Widen widen(DataType type, int register_bits);
Narrow narrow(DataType type, int register_bits);
Handler convert();

Handler pack(int parts, int bits);    // mov.b64 d, {a, b}
Handler unpack(int parts, int bits);  // mov.b64 {d, e}, a

// --- Control flow.
Handler branch();
Handler indexed_branch();
Handler exit();
Handler trap();
Handler nothing();
// Operands: number, thread count. With votes: destination, number, count, predicate.
Handler barrier(bool waits, bool votes);
Finish barrier_result(const std::string& operation);  // popc, and, or
Handler clock(int bits);

}  // namespace ptx
