// Decodes a statement into an instruction. It refuses everything unknown.
#include <algorithm>
#include <cctype>

#include "ptx_builder.h"

namespace ptx {
namespace {

using Parts = std::vector<std::string>;

const Operations& operations() {
  static const Operations all = [] {
    Operations table;
    add_arithmetic(table);
    add_comparisons(table);
    add_bit_operations(table);
    add_warp_operations(table);
    return table;
  }();
  return all;
}

bool is_one_of(const std::string& text, std::initializer_list<const char*> candidates) {
  return std::any_of(candidates.begin(), candidates.end(),
                     [&](const char* candidate) { return text == candidate; });
}

bool is_scope(const std::string& part) { return is_one_of(part, {"cta", "cluster", "gpu", "sys"}); }

// Parses a type such as "u32", "s8" or "b64".
std::optional<DataType> data_type(const std::string& part) {
  if (part.size() < 2 || !is_one_of(part.substr(0, 1), {"u", "s", "b"})) return std::nullopt;
  const std::string bits = part.substr(1);
  if (!is_one_of(bits, {"8", "16", "32", "64"})) return std::nullopt;
  return DataType{part[0], std::stoi(bits)};
}

std::optional<Space> state_space(const std::string& part) {
  if (part == "global") return Space::global;
  if (part == "shared" || part == "shared::cta") return Space::shared;
  if (part == "local") return Space::local;
  if (part == "param" || part == "param::entry" || part == "param::func") return Space::param;
  if (part == "const") return Space::constant;
  return std::nullopt;
}

int letter_bits(char letter) {
  switch (std::tolower(letter)) {
    case 'h': return 16;
    case 'w': return 32;
    case 'q': return 64;
    default: return 1;
  }
}

[[noreturn]] void refuse_modifier(const Statement& statement, const std::string& part) {
  refuse(statement.line, "'" + statement.opcode + "': modifier '." + part + "' is not known here");
}

void want_terms(const Statement& statement, std::size_t least, std::size_t most) {
  if (statement.terms.size() < least || statement.terms.size() > most) {
    refuse(statement.line, "'" + statement.opcode + "' with " +
                               std::to_string(statement.terms.size()) + " operands");
  }
}

// Returns whether mov unpacks or packs a vector, or reads a clock.
bool is_special_move(const Statement& statement) {
  return statement.opcode.rfind("mov.", 0) == 0 &&
         std::any_of(statement.terms.begin(), statement.terms.end(), [](const Term& term) {
           return term.kind == Term::Kind::vector ||
                  is_one_of(term.name, {"%clock", "%clock64", "%globaltimer"});
         });
}

}  // namespace

void Builder::add(const Statement& statement) {
  const Parts parts = split(statement.opcode, '.');
  Instruction in;
  in.line = statement.line;
  if (!statement.guard.empty()) {
    in.guarded = true;
    in.guard_negated = statement.guard_negated;
    in.guard = source(statement, {Term::Kind::name, statement.guard, 0, false, false, {}}, 1);
  }
  const bool known = add_operation(statement, in) || add_control(statement, parts, in) ||
                     add_barrier(statement, parts, in) || add_memory(statement, parts, in) ||
                     add_move(statement, parts, in) || add_tensor(statement, in) ||
                     add_bulk(statement, in);
  if (!known) refuse(statement.line, "instruction '" + statement.opcode + "' is not known here");
  kernel_->code.push_back(std::move(in));
}

void Builder::add_exit(std::uint32_t line) {
  Instruction in;
  in.line = line;
  in.handler = exit();
  kernel_->code.push_back(std::move(in));
}

bool Builder::add_operation(const Statement& statement, Instruction& in) {
  const std::vector<Term>& terms = statement.terms;
  const bool paired = terms.size() > 1 && terms[1].paired;
  const auto found = operations().find(statement.opcode + (paired ? "|" : ""));
  if (found == operations().end()) return false;
  if (is_special_move(statement)) return false;
  const Operation& operation = found->second;
  in.handler = operation.handler;
  in.immediate = operation.immediate;
  std::size_t next = 0;
  for (const char letter : operation.signature) {
    if (letter == '_') {
      in.operand[in.operands++] = place(1);
      continue;
    }
    if (letter == 'c') {
      if (!has_carry_) carry_ = place(1);
      has_carry_ = true;
      in.operand[in.operands++] = carry_;
      continue;
    }
    if (next == terms.size()) want_terms(statement, next + 1, next + 1);
    const Term& term = terms[next++];
    if (letter == 'i') {
      if (term.kind != Term::Kind::number || term.value > 0xff) {
        refuse(statement.line, "an operand is not a number below 256");
      }
      in.immediate = static_cast<std::int64_t>(term.value);
      continue;
    }
    if (term.negated) {
      if (letter != 'n') refuse(statement.line, "'!' is not known here");
      in.negated = true;
    }
    in.operand[in.operands++] = std::isupper(static_cast<unsigned char>(letter))
                                    ? destination(statement, term, letter_bits(letter))
                                    : source(statement, term, letter_bits(letter));
  }
  want_terms(statement, next, next);
  return true;
}

bool Builder::add_control(const Statement& statement, const Parts& parts, Instruction& in) {
  const std::string& op = parts[0];
  const bool plain = parts.size() == 1 || (parts.size() == 2 && parts[1] == "uni");
  if (op == "bra" && plain) {
    want_terms(statement, 1, 1);
    in.handler = branch();
    scopes_.back().jumps.push_back({kernel_->code.size(), statement.terms[0].name, in.line});
    return true;
  }
  if (op == "brx" && (statement.opcode == "brx.idx" || statement.opcode == "brx.idx.uni")) {
    want_terms(statement, 2, 2);
    in.handler = indexed_branch();
    in.operand[0] = source(statement, statement.terms[0], 32);
    scopes_.back().indexed_jumps.push_back(
        {kernel_->code.size(), statement.terms[1].name, in.line});
    return true;
  }
  if (op == "ret" && plain && !returns_.empty()) {
    want_terms(statement, 0, 0);
    in.handler = branch();
    returns_.back().push_back(kernel_->code.size());
    return true;
  }
  if ((op == "ret" && plain) || statement.opcode == "exit") {
    want_terms(statement, 0, 0);
    in.handler = exit();
    return true;
  }
  if (statement.opcode == "trap") {
    in.handler = trap();
    return true;
  }
  if (statement.opcode == "nanosleep.u32") {
    in.handler = nothing();
    return true;
  }
  // Memory is sequentially consistent here, so a fence does nothing.
  if (op == "membar" && parts.size() == 2 && is_one_of(parts[1], {"cta", "gl", "sys"})) {
    in.handler = nothing();
    return true;
  }
  if (op == "fence" && parts.size() >= 2) {
    const std::size_t scope = is_one_of(parts[1], {"sc", "acq_rel", "acquire", "release"}) ? 2 : 1;
    if (scope + 1 != parts.size() || !is_scope(parts[scope])) return false;
    in.handler = nothing();
    return true;
  }
  return false;
}

// Decodes bar{.cta}.sync, .arrive, .red.popc.u32, .red.and.pred, .red.or.pred and the same of
// barrier{.cta}, which has .aligned if whole warps come.
bool Builder::add_barrier(const Statement& statement, const Parts& parts, Instruction& in) {
  if (parts[0] != "bar" && parts[0] != "barrier") return false;
  std::size_t at = parts.size() > 1 && parts[1] == "cta" ? 2 : 1;
  const std::string kind = at < parts.size() ? parts[at++] : "";
  in.aligned = parts[0] == "bar";
  std::string vote;
  if (kind == "red" && at < parts.size()) vote = parts[at++];
  if (at < parts.size() && parts[at] == "aligned") {
    in.aligned = true;
    ++at;
  }
  if (!vote.empty() && at < parts.size() && parts[at] == (vote == "popc" ? "u32" : "pred")) ++at;
  if (at != parts.size() || !is_one_of(kind, {"sync", "arrive", "red"})) return false;
  const std::vector<Term>& terms = statement.terms;
  if (kind != "red") {
    want_terms(statement, kind == "arrive" ? 2 : 1, 2);
    in.handler = barrier(kind == "sync", false);
    in.counted = terms.size() == 2;
    for (std::size_t i = 0; i < terms.size(); ++i) in.operand[i] = source(statement, terms[i], 32);
    return true;
  }
  in.finish = barrier_result(vote);
  if (!in.finish) return false;
  want_terms(statement, 3, 4);
  in.handler = barrier(true, true);
  in.counted = terms.size() == 4;
  in.operand[0] = destination(statement, terms[0], vote == "popc" ? 32 : 1);
  in.operand[1] = source(statement, terms[1], 32);
  if (in.counted) in.operand[2] = source(statement, terms[2], 32);
  in.operand[3] = source(statement, terms.back(), 1);
  in.negated = terms.back().negated;
  return true;
}

// --- Memory.

void Builder::decode_address(const Statement& statement, const Term& term, Instruction& in) {
  if (term.kind != Term::Kind::address) refuse(statement.line, "an address in [] is missing");
  in.immediate = static_cast<std::int64_t>(term.value);
  if (term.name.empty()) {
    in.operand[0] = constant(statement.line, 64, 0);
    return;
  }
  const Term base{Term::Kind::name, term.name, 0, false, false, {}};
  const std::optional<Symbol> known = symbol(term.name);
  const int bits = known ? 64 : register_bits(statement, base);
  if (bits != 64 && !(bits == 32 && in.space == Space::shared)) {
    refuse(statement.line, "address '" + term.name + "' is not 64 bits");
  }
  in.wide_address = bits == 64;
  in.operand[0] = source(statement, base, bits);
  if (known && in.space == Space::generic && known->space == Space::shared) {
    refuse(statement.line, "'" + term.name + "' is no generic address");
  }
  if (known && in.space != Space::generic && known->space != in.space &&
      !(in.space == Space::param && known->space == Space::local)) {
    refuse(statement.line, "'" + term.name + "' is in another state space");
  }
}

bool Builder::add_memory(const Statement& statement, const Parts& parts, Instruction& in) {
  const std::string& op = parts[0];
  if (op == "ld" || op == "st") {
    decode_access(statement, parts, in);
    return true;
  }
  if (op == "atom" || op == "red") {
    decode_atomic(statement, parts, in);
    return true;
  }
  if (op == "prefetch" && parts.size() <= 3 && is_one_of(parts.back(), {"L1", "L2"})) {
    if (parts.size() == 3 && !is_one_of(parts[1], {"global", "local"})) return false;
    want_terms(statement, 1, 1);
    in.handler = prefetch();
    decode_address(statement, statement.terms[0], in);
    return true;
  }
  if ((op == "cvta" || op == "isspacep") && parts.size() >= 2) {
    const bool to = op == "cvta" && parts[1] == "to";
    const std::size_t at = to ? 2 : 1;
    const std::optional<Space> space = at < parts.size() ? state_space(parts[at]) : std::nullopt;
    const bool has_type = op == "cvta";
    if (!space || parts.size() != at + 1 + has_type || (has_type && parts.back() != "u64")) {
      return false;
    }
    want_terms(statement, 2, 2);
    in.space = *space;
    in.handler = op == "isspacep" ? is_space() : to ? from_generic() : to_generic();
    in.operand[0] = destination(statement, statement.terms[0], op == "isspacep" ? 1 : 64);
    in.operand[1] = source(statement, statement.terms[1], 64);
    return true;
  }
  return false;
}

void Builder::decode_access(const Statement& statement, const Parts& parts, Instruction& in) {
  const bool loads = parts[0] == "ld";
  std::optional<DataType> type;
  int count = 1;
  for (std::size_t i = 1; i < parts.size(); ++i) {
    const std::string& part = parts[i];
    if (const std::optional<Space> space = state_space(part)) {
      in.space = *space;
    } else if (is_one_of(part, {"volatile", "relaxed", "acquire", "release"})) {
      if (part == (loads ? "release" : "acquire")) refuse_modifier(statement, part);
      in.strong = true;
    } else if (part == "v2" || part == "v4") {
      count = part[1] - '0';
    } else if (i + 1 == parts.size()) {
      type = data_type(part);
    } else {
      // These are hints, which change no value.
      const bool cache = loads ? is_one_of(part, {"ca", "cg", "cs", "lu", "cv", "nc"})
                               : is_one_of(part, {"wb", "cg", "cs", "wt"});
      const bool level =
          is_one_of(part, {"L1::evict_normal", "L1::evict_unchanged", "L1::evict_first",
                           "L1::evict_last", "L1::no_allocate", "L2::64B", "L2::128B", "L2::256B",
                           "L2::evict_first", "L2::evict_last", "L2::evict_normal"});
      if (!cache && !level && !is_scope(part) && part != "weak") refuse_modifier(statement, part);
    }
  }
  want_terms(statement, 2, 2);
  const Term& address = statement.terms[loads ? 1 : 0];
  const Term& value = statement.terms[loads ? 0 : 1];
  const std::vector<Term> values =
      value.kind == Term::Kind::vector ? value.parts : std::vector<Term>{value};
  if (!type || values.size() != static_cast<std::size_t>(count)) {
    refuse(statement.line, "'" + statement.opcode + "' with " + std::to_string(values.size()) +
                               " values, or of an unknown type");
  }
  decode_address(statement, address, in);
  int bits = 0;  // of the registers, which may be wider than the type in memory
  for (const Term& one : values) {
    const int own = register_bits(statement, one);
    if (own && bits && own != bits) refuse(statement.line, "registers of different widths");
    if (own) bits = own;
  }
  if (!bits) bits = std::max(type->bits, 16);
  in.bytes = static_cast<std::uint32_t>(type->bits / 8 * count);
  in.handler = loads ? load(*type, bits, count) : store(*type, bits, count);
  if (!in.handler) {
    refuse(statement.line,
           "'" + statement.opcode + "' with registers of " + std::to_string(bits) + " bits");
  }
  for (std::size_t i = 0; i < values.size(); ++i) {
    in.operand[1 + i] =
        loads ? destination(statement, values[i], bits) : source(statement, values[i], bits);
  }
}

void Builder::decode_atomic(const Statement& statement, const Parts& parts, Instruction& in) {
  const bool returns = parts[0] == "atom";
  std::string operation;
  std::optional<DataType> type;
  for (std::size_t i = 1; i < parts.size(); ++i) {
    const std::string& part = parts[i];
    if (i + 1 == parts.size()) {
      type = data_type(part);
    } else if (const std::optional<Space> space = state_space(part)) {
      in.space = *space;
    } else if (!is_scope(part) && !is_one_of(part, {"relaxed", "acquire", "release", "acq_rel"})) {
      if (!operation.empty()) refuse_modifier(statement, part);
      operation = part;
    }
  }
  in.strong = true;
  in.handler = type ? atomic(operation, *type) : nullptr;
  const bool swaps = operation == "cas" || operation == "exch";
  const bool takes =
      in.space == Space::generic || in.space == Space::global || in.space == Space::shared;
  if (!in.handler || !takes || (swaps && !returns)) {
    refuse(statement.line, "instruction '" + statement.opcode + "' is not known here");
  }
  const std::size_t count = 2 + returns + (operation == "cas");
  want_terms(statement, count, count);
  in.bytes = static_cast<std::uint32_t>(type->bits / 8);
  const std::vector<Term>& terms = statement.terms;
  const std::size_t first = returns ? 1 : 0;
  decode_address(statement, terms[first], in);
  in.operand[1] = returns ? destination(statement, terms[0], type->bits) : place(type->bits);
  in.operand[2] = source(statement, terms[first + 1], type->bits);
  if (operation == "cas") in.operand[3] = source(statement, terms[first + 2], type->bits);
}

// --- Moves and conversions.

bool Builder::add_move(const Statement& statement, const Parts& parts, Instruction& in) {
  const std::vector<Term>& terms = statement.terms;
  if (parts[0] == "cvt" && parts.size() == 3) {
    const std::optional<DataType> to = data_type(parts[1]), from = data_type(parts[2]);
    if (!to || !from || to->kind == 'b' || from->kind == 'b') return false;
    want_terms(statement, 2, 2);
    const int to_bits = register_bits(statement, terms[0]);
    int from_bits = register_bits(statement, terms[1]);
    if (!from_bits) from_bits = std::max(from->bits, 16);
    in.handler = convert();
    in.widen = widen(*from, from_bits);
    in.narrow = narrow(*to, to_bits);
    if (!in.widen || !in.narrow) {
      refuse(statement.line, "'" + statement.opcode + "' with registers of these widths");
    }
    in.operand[0] = destination(statement, terms[0], to_bits);
    in.operand[1] = source(statement, terms[1], from_bits);
    return true;
  }
  const std::optional<DataType> type = parts.size() == 2 ? data_type(parts[1]) : std::nullopt;
  if (parts[0] != "mov" || !type || terms.size() != 2) return false;
  const Term &to = terms[0], &from = terms[1];
  if (from.kind == Term::Kind::vector || to.kind == Term::Kind::vector) {
    const bool packs = from.kind == Term::Kind::vector;
    const std::vector<Term>& parts_of = packs ? from.parts : to.parts;
    const int count = static_cast<int>(parts_of.size());
    const int bits = count ? type->bits / count : 0;
    in.handler = packs ? pack(count, bits) : unpack(count, bits);
    if (!in.handler || bits * count != type->bits || type->kind != 'b') return false;
    std::size_t next = 0;
    if (packs) in.operand[next++] = destination(statement, to, type->bits);
    for (const Term& part : parts_of) {
      in.operand[next++] =
          packs ? source(statement, part, bits) : destination(statement, part, bits);
    }
    if (!packs) in.operand[next] = source(statement, from, type->bits);
    return true;
  }
  const int clock_bits = from.name == "%clock"                                    ? 32
                         : from.name == "%clock64" || from.name == "%globaltimer" ? 64
                                                                                  : 0;
  if (!clock_bits || clock_bits != type->bits) return false;
  in.handler = clock(clock_bits);
  in.operand[0] = destination(statement, to, clock_bits);
  return true;
}

}  // namespace ptx
