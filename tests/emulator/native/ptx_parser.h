// Parses the text of a module into kernels.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "ptx_builder.h"
#include "ptx_program.h"
#include "ptx_text.h"

namespace ptx {

// The declaration of a variable or parameter.
struct Declaration {
  std::string name;
  std::uint32_t line;
  std::uint64_t alignment, element_bytes, count;
  bool unsized = false;  // name[]

  std::uint64_t bytes() const { return element_bytes * count; }
};

class Parser {
 public:
  explicit Parser(const std::string& text);

  void parse();

  std::string version, target;
  std::vector<std::shared_ptr<Kernel>> kernels;

 private:
  struct Function {
    std::vector<Declaration> results, parameters;
    std::size_t body = 0;  // the first token after the {, or 0 if there is only a declaration
  };
  // Kernels are built after all functions are known.
  struct Entry {
    std::shared_ptr<Kernel> kernel;
    std::vector<Declaration> parameters;
    std::size_t body;
  };
  struct Shared {
    Declaration declaration;
    bool is_extern;
  };

  // --- Tokens.
  const Token& peek(std::size_t ahead = 0) const;
  Token next();
  bool accept(const char* text);
  void expect(const char* text);
  std::string expect_word();
  std::uint64_t expect_number();
  void skip_line();
  void skip_block();  // from after a { to its }

  // --- Module.
  void parse_variable(Space space, bool is_extern);
  std::vector<std::uint8_t> parse_initializer(const Declaration& declaration);
  Declaration parse_declaration();
  std::vector<Declaration> parse_parameters();
  void parse_function();
  void parse_entry();
  void build(const Entry& entry);
  void parse_directives(Kernel& kernel);
  bool mentions(std::size_t begin, const std::string& name) const;

  // --- Bodies.
  void parse_body(Builder& builder);  // up to and including its }
  void parse_local_declaration(Builder& builder, const std::string& directive);
  void parse_registers(Builder& builder);
  void parse_label(Builder& builder);
  void parse_instruction(Builder& builder);
  void parse_call(Builder& builder);
  std::vector<std::string> parse_names();
  Term parse_term();

  std::shared_ptr<Source> source_;
  std::vector<Token> tokens_;
  std::size_t at_ = 0;
  std::shared_ptr<std::vector<Variable>> variables_;
  std::map<std::string, Symbol> symbols_;  // of .global and .const variables
  std::vector<Shared> shared_;
  std::map<std::string, Function> functions_;
  std::vector<Entry> entries_;
  std::uint64_t next_global_ = kGlobalVariableWindow, next_const_ = kConstWindow;

  // State of the kernel that is being built.
  std::set<std::string> inlining_;
  std::map<std::size_t, std::uint64_t> function_shared_;  // by the declaration's first token
};

}  // namespace ptx
