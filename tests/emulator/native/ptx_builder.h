// Builds one kernel: places registers, immediates and variables, and decodes instructions.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "ptx_operations.h"
#include "ptx_program.h"
#include "ptx_text.h"

namespace ptx {

// A name that stands for an address.
struct Symbol {
  Space space;
  std::uint64_t address;
};

// An operand as the text writes it.
struct Term {
  enum class Kind { name, number, address, vector };
  Kind kind;
  std::string name;         // of a register or symbol; empty if an address is only a number
  std::uint64_t value = 0;  // a number, or an address's offset
  bool negated = false;     // !name
  bool paired = false;      // true after a |
  std::vector<Term> parts;  // of a vector
};

struct Statement {
  std::uint32_t line;
  std::string opcode;
  std::vector<Term> terms;
  std::string guard;  // empty if there is none
  bool guard_negated;
};

class Builder {
 public:
  explicit Builder(std::shared_ptr<Kernel> kernel) : kernel_(std::move(kernel)) {}

  // --- Names. A name of an inner scope hides those of outer scopes.
  void open_scope() { scopes_.emplace_back(); }
  void close_scope();
  // "%r<10>" declares %r0 to %r9, with `count` = 10. Without a count, "%r" is one register.
  void declare_register(std::uint32_t line, const std::string& name, int bits, std::uint64_t count);
  void declare_symbol(std::uint32_t line, const std::string& name, Symbol symbol);
  std::optional<Symbol> symbol(const std::string& name) const;
  // A branch finds the labels of its own scope and of outer scopes, before and after it.
  void declare_label(std::uint32_t line, const std::string& name);
  void declare_targets(std::uint32_t line, const std::string& name,
                       std::vector<std::string> labels);

  std::uint64_t allocate_shared(std::uint64_t bytes, std::uint64_t alignment);
  std::uint64_t allocate_local(std::uint64_t bytes, std::uint64_t alignment);

  void add(const Statement& statement);
  void add_exit(std::uint32_t line);
  // Starts an inlined function.
  void begin_function() { returns_.emplace_back(); }
  void end_function();

 private:
  struct Register {
    int bits;
    Operand operand;
    bool has_place = false;
  };
  struct Range {
    int bits;
    std::uint64_t count;
  };
  struct Jump {
    std::size_t instruction;
    std::string label;
    std::uint32_t line;
  };
  struct Scope {
    std::map<std::string, Register> registers;
    std::map<std::string, Range> ranges;
    std::map<std::string, Symbol> symbols;
    std::map<std::string, std::uint32_t> labels;
    std::map<std::string, std::vector<std::string>> targets;
    std::vector<Jump> jumps;          // their labels may follow
    std::vector<Jump> indexed_jumps;  // their tables may follow
  };

  Register* find_register(const std::string& name);
  Operand place(int bits);
  Operand constant(std::uint32_t line, int bits, std::uint64_t value);
  Operand special(const Statement& statement, const std::string& name);

  Operand source(const Statement& statement, const Term& term, int bits);
  Operand destination(const Statement& statement, const Term& term, int bits);
  int register_bits(const Statement& statement, const Term& term);

  // Each function returns false if it does not know the statement.
  bool add_control(const Statement& statement, const std::vector<std::string>& parts,
                   Instruction& in);
  bool add_barrier(const Statement& statement, const std::vector<std::string>& parts,
                   Instruction& in);
  bool add_memory(const Statement& statement, const std::vector<std::string>& parts,
                  Instruction& in);
  bool add_move(const Statement& statement, const std::vector<std::string>& parts, Instruction& in);
  bool add_operation(const Statement& statement, Instruction& in);
  bool add_tensor(const Statement& statement, Instruction& in);
  bool add_bulk(const Statement& statement, Instruction& in);

  void decode_access(const Statement& statement, const std::vector<std::string>& parts,
                     Instruction& in);
  void decode_atomic(const Statement& statement, const std::vector<std::string>& parts,
                     Instruction& in);
  void decode_address(const Statement& statement, const Term& term, Instruction& in);

  std::shared_ptr<Kernel> kernel_;
  std::vector<Scope> scopes_;
  std::vector<std::vector<std::size_t>> returns_;  // of the functions being inlined
  std::map<std::pair<int, std::uint64_t>, Operand> constants_;
  std::map<Special, Operand> specials_;
  Operand carry_{};
  bool has_carry_ = false;
};

}  // namespace ptx
