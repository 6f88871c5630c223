#include "ptx_builder.h"

#include <algorithm>
#include <cctype>

namespace ptx {
namespace {

struct NamedSpecial {
  const char* name;
  Special special;
};

constexpr NamedSpecial kSpecials[] = {
    {"%tid.x", Special::tid_x},
    {"%tid.y", Special::tid_y},
    {"%tid.z", Special::tid_z},
    {"%ntid.x", Special::ntid_x},
    {"%ntid.y", Special::ntid_y},
    {"%ntid.z", Special::ntid_z},
    {"%ctaid.x", Special::ctaid_x},
    {"%ctaid.y", Special::ctaid_y},
    {"%ctaid.z", Special::ctaid_z},
    {"%nctaid.x", Special::nctaid_x},
    {"%nctaid.y", Special::nctaid_y},
    {"%nctaid.z", Special::nctaid_z},
    {"%laneid", Special::laneid},
    {"%warpid", Special::warpid},
    {"%nwarpid", Special::nwarpid},
    {"%smid", Special::smid},
    {"%nsmid", Special::nsmid},
    {"%lanemask_eq", Special::lanemask_eq},
    {"%lanemask_lt", Special::lanemask_lt},
    {"%lanemask_le", Special::lanemask_le},
    {"%lanemask_gt", Special::lanemask_gt},
    {"%lanemask_ge", Special::lanemask_ge},
    {"%dynamic_smem_size", Special::dynamic_smem_size},
};

std::uint64_t round_up(std::uint64_t value, std::uint64_t alignment) {
  return (value + alignment - 1) / alignment * alignment;
}

}  // namespace

// --- Scopes.

void Builder::close_scope() {
  Scope scope = std::move(scopes_.back());
  scopes_.pop_back();
  const auto resolve = [&](const Jump& jump, std::uint32_t& target) {
    const auto found = scope.labels.find(jump.label);
    if (found == scope.labels.end()) return false;
    target = found->second;
    return true;
  };
  for (const Jump& jump : scope.jumps) {
    if (resolve(jump, kernel_->code[jump.instruction].target)) continue;
    if (scopes_.empty()) refuse(jump.line, "no label '" + jump.label + "'");
    scopes_.back().jumps.push_back(jump);
  }
  for (const Jump& jump : scope.indexed_jumps) {
    const auto table = scope.targets.find(jump.label);
    if (table == scope.targets.end()) {
      if (scopes_.empty()) refuse(jump.line, "no .branchtargets '" + jump.label + "'");
      scopes_.back().indexed_jumps.push_back(jump);
      continue;
    }
    for (const std::string& label : table->second) {
      std::uint32_t target = 0;
      if (!resolve({0, label, jump.line}, target)) refuse(jump.line, "no label '" + label + "'");
      kernel_->code[jump.instruction].targets.push_back(target);
    }
  }
}

void Builder::declare_register(std::uint32_t line, const std::string& name, int bits,
                               std::uint64_t count) {
  Scope& scope = scopes_.back();
  if (count) {
    if (!scope.ranges.insert({name, {bits, count}}).second) {
      refuse(line, "'" + name + "' is declared twice");
    }
  } else if (!scope.registers.insert({name, {bits, {}, false}}).second) {
    refuse(line, "'" + name + "' is declared twice");
  }
}

void Builder::declare_symbol(std::uint32_t line, const std::string& name, Symbol symbol) {
  if (!scopes_.back().symbols.insert({name, symbol}).second) {
    refuse(line, "'" + name + "' is declared twice");
  }
}

std::optional<Symbol> Builder::symbol(const std::string& name) const {
  for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
    const auto found = scope->symbols.find(name);
    if (found != scope->symbols.end()) return found->second;
  }
  return std::nullopt;
}

void Builder::declare_label(std::uint32_t line, const std::string& name) {
  const auto here = static_cast<std::uint32_t>(kernel_->code.size());
  if (!scopes_.back().labels.insert({name, here}).second) {
    refuse(line, "label '" + name + "' is there twice");
  }
}

void Builder::declare_targets(std::uint32_t line, const std::string& name,
                              std::vector<std::string> labels) {
  if (!scopes_.back().targets.insert({name, std::move(labels)}).second) {
    refuse(line, "'" + name + "' is declared twice");
  }
}

void Builder::end_function() {
  for (const std::size_t instruction : returns_.back()) {
    kernel_->code[instruction].target = static_cast<std::uint32_t>(kernel_->code.size());
  }
  returns_.pop_back();
}

// --- Memory.

std::uint64_t Builder::allocate_shared(std::uint64_t bytes, std::uint64_t alignment) {
  const std::uint64_t start = round_up(kernel_->info.shared_bytes, alignment);
  kernel_->info.shared_bytes = start + bytes;
  return kStaticSharedBase + start;
}

std::uint64_t Builder::allocate_local(std::uint64_t bytes, std::uint64_t alignment) {
  const std::uint64_t start = round_up(kernel_->local_bytes, alignment);
  kernel_->local_bytes = static_cast<std::uint32_t>(start + bytes);
  return kLocalWindow + start;
}

// --- Places among a warp's registers.

Operand Builder::place(int bits) {
  // A predicate takes 4 bytes but a line of its own. A register takes 2, 4 or 8 bytes for each
  // lane.
  const std::uint32_t bytes = bits == 64 ? 256 : bits == 32 ? 128 : 64;
  const Operand operand{kernel_->register_bytes, kernel_->register_count};
  kernel_->register_bytes += bytes;
  ++kernel_->register_count;
  return operand;
}

Operand Builder::constant(std::uint32_t line, int bits, std::uint64_t value) {
  if (bits == 1) value = value != 0;
  if (bits < 64) {
    const std::uint64_t high = value >> bits, all_ones = ~std::uint64_t{0} >> bits;
    if (high != 0 && high != all_ones) {
      refuse(line, "a number of more than " + std::to_string(bits) + " bits");
    }
    value &= (std::uint64_t{1} << bits) - 1;
  }
  const auto [entry, is_new] = constants_.insert({{bits, value}, {}});
  if (is_new) {
    entry->second = place(bits);
    kernel_->constants.push_back({entry->second, bits, value});
  }
  return entry->second;
}

Operand Builder::special(const Statement& statement, const std::string& name) {
  for (const NamedSpecial& known : kSpecials) {
    if (name != known.name) continue;
    const auto [entry, is_new] = specials_.insert({known.special, {}});
    if (is_new) {
      entry->second = place(32);
      kernel_->specials.push_back({entry->second, known.special});
    }
    return entry->second;
  }
  refuse(statement.line, "'" + name + "' is neither declared nor a special register known here");
}

Builder::Register* Builder::find_register(const std::string& name) {
  std::size_t prefix = name.size();
  while (prefix > 0 && std::isdigit(static_cast<unsigned char>(name[prefix - 1]))) --prefix;
  for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
    auto found = scope->registers.find(name);
    if (found == scope->registers.end() && prefix < name.size() && name.size() - prefix < 10) {
      const auto range = scope->ranges.find(name.substr(0, prefix));
      if (range != scope->ranges.end() && std::stoull(name.substr(prefix)) < range->second.count) {
        found = scope->registers.insert({name, {range->second.bits, {}, false}}).first;
      }
    }
    if (found == scope->registers.end()) continue;
    Register& known = found->second;
    if (!known.has_place) {
      known.operand = place(known.bits);
      known.has_place = true;
    }
    return &known;
  }
  return nullptr;
}

int Builder::register_bits(const Statement& statement, const Term& term) {
  const Register* known = term.kind == Term::Kind::name ? find_register(term.name) : nullptr;
  if (known) return known->bits;
  if (term.kind == Term::Kind::name && term.name[0] == '%') {
    special(statement, term.name);
    return 32;
  }
  return 0;
}

// Returns an operand of exactly that many bits, as all instructions but loads, stores and cvt
// require.
Operand Builder::source(const Statement& statement, const Term& term, int bits) {
  if (term.kind == Term::Kind::number) return constant(statement.line, bits, term.value);
  if (term.kind != Term::Kind::name)
    refuse(statement.line, "an operand is not a register or number");
  if (const Register* known = find_register(term.name)) {
    if (known->bits != bits) {
      refuse(statement.line, "'" + term.name + "' has " + std::to_string(known->bits) +
                                 " bits where the instruction takes " + std::to_string(bits));
    }
    return known->operand;
  }
  if (term.name == "WARP_SZ") return constant(statement.line, bits, kLanes);
  if (const std::optional<Symbol> known = symbol(term.name)) {
    if (bits != 64 && !(bits == 32 && known->space == Space::shared)) {
      refuse(statement.line,
             "the address of '" + term.name + "' is not " + std::to_string(bits) + " bits");
    }
    return constant(statement.line, bits, known->address);
  }
  const Operand operand = special(statement, term.name);
  if (bits != 32) refuse(statement.line, "'" + term.name + "' has 32 bits");
  return operand;
}

Operand Builder::destination(const Statement& statement, const Term& term, int bits) {
  if (term.kind == Term::Kind::name && term.name == "_") return place(bits);
  const Register* known = term.kind == Term::Kind::name ? find_register(term.name) : nullptr;
  if (!known) refuse(statement.line, "'" + term.name + "' is not a register to write to");
  if (known->bits != bits) {
    refuse(statement.line, "'" + term.name + "' has " + std::to_string(known->bits) +
                               " bits where the instruction writes " + std::to_string(bits));
  }
  return known->operand;
}

}  // namespace ptx
