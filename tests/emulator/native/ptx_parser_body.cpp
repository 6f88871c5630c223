// The bodies of kernels and of the functions that they call.
#include "ptx_parser.h"

namespace ptx {
namespace {

constexpr std::uint64_t kMaxRegisters = 1 << 20;  // of one declaration

}  // namespace

void Parser::parse_body(Builder& builder) {
  for (int depth = 1; depth > 0;) {
    const Token& token = peek();
    if (accept("{")) {
      builder.open_scope();
      ++depth;
    } else if (accept("}")) {
      if (--depth > 0) builder.close_scope();
    } else if (accept(";")) {
    } else if (token.is(".loc") || token.is(".file")) {
      skip_line();
    } else if (token.is(".pragma")) {
      next();
      next();
      expect(";");
    } else if (token.is(".reg")) {
      next();
      parse_registers(builder);
    } else if (token.is(".local") || token.is(".shared") || token.is(".param")) {
      const std::string directive = next().text;
      parse_local_declaration(builder, directive);
    } else if (token.is_word() && peek(1).is(":")) {
      parse_label(builder);
    } else {
      parse_instruction(builder);
    }
  }
  builder.close_scope();
}

void Parser::parse_registers(Builder& builder) {
  const std::uint32_t line = peek().line;
  const std::string type = expect_word();
  const int bits = type == ".pred"                                      ? 1
                   : type == ".b16" || type == ".u16" || type == ".s16" ? 16
                   : type == ".b32" || type == ".u32" || type == ".s32" ? 32
                   : type == ".b64" || type == ".u64" || type == ".s64" ? 64
                                                                        : 0;
  if (!bits) refuse(line, "registers of type '" + type + "' are not known here");
  do {
    const std::string name = expect_word();
    std::uint64_t count = 0;
    if (accept("<")) {
      count = expect_number();
      expect(">");
      if (count == 0 || count > kMaxRegisters) refuse(line, "number of registers is out of range");
    }
    builder.declare_register(line, name, bits, count);
  } while (accept(","));
  expect(";");
}

void Parser::parse_local_declaration(Builder& builder, const std::string& directive) {
  const std::size_t first = at_;
  const Declaration declared = parse_declaration();
  expect(";");
  Symbol symbol{Space::local, 0};
  if (directive == ".shared") {
    // A function has one copy of its variable for all calls.
    const auto [entry, is_new] = function_shared_.insert({first, 0});
    if (is_new) entry->second = builder.allocate_shared(declared.bytes(), declared.alignment);
    symbol = {Space::shared, entry->second};
  } else {
    symbol.address = builder.allocate_local(declared.bytes(), declared.alignment);
  }
  builder.declare_symbol(declared.line, declared.name, symbol);
}

void Parser::parse_label(Builder& builder) {
  const Token label = next();
  expect(":");
  if (!accept(".branchtargets")) {
    builder.declare_label(label.line, label.text);
    return;
  }
  std::vector<std::string> labels;
  do {
    labels.push_back(expect_word());
  } while (accept(","));
  expect(";");
  builder.declare_targets(label.line, label.text, std::move(labels));
}

Term Parser::parse_term() {
  const Token token = peek();
  Term term{Term::Kind::name, "", 0, false, false, {}};
  if (accept("{")) {
    term.kind = Term::Kind::vector;
    do {
      term.parts.push_back(parse_term());
    } while (accept(","));
    expect("}");
  } else if (accept("[")) {
    term.kind = Term::Kind::address;
    if (peek().is_number()) {
      term.value = expect_number();
    } else {
      term.name = expect_word();
      if (accept("+")) {
        term.value = expect_number();
      } else if (accept("-")) {
        term.value = 0 - expect_number();
      }
    }
    expect("]");
  } else if (token.is("-") || token.is_number()) {
    term.kind = Term::Kind::number;
    term.value = expect_number();
  } else {
    term.negated = accept("!");
    term.name = expect_word();
  }
  return term;
}

void Parser::parse_instruction(Builder& builder) {
  Statement statement{peek().line, "", {}, "", false};
  if (accept("@")) {
    statement.guard_negated = accept("!");
    statement.guard = expect_word();
  }
  statement.line = peek().line;
  statement.opcode = expect_word();
  if (statement.opcode == "call" || statement.opcode == "call.uni") {
    if (!statement.guard.empty()) refuse(statement.line, "a call under a guard is not known here");
    parse_call(builder);
    return;
  }
  while (!accept(";")) {
    const bool first = statement.terms.empty();
    const bool paired = !first && accept("|");
    if (!first && !paired) expect(",");
    statement.terms.push_back(parse_term());
    statement.terms.back().paired = paired;
  }
  builder.add(statement);
}

std::vector<std::string> Parser::parse_names() {
  std::vector<std::string> names;
  expect("(");
  while (!accept(")")) {
    if (!names.empty()) expect(",");
    names.push_back(expect_word());
  }
  return names;
}

// Replaces a call by the function's body, whose parameters are the caller's .param variables.
void Parser::parse_call(Builder& builder) {
  const std::uint32_t line = peek().line;
  std::vector<std::string> results, arguments;
  if (peek().is("(")) {
    results = parse_names();
    expect(",");
  }
  const std::string name = expect_word();
  if (accept(",")) arguments = parse_names();
  expect(";");

  const auto found = functions_.find(name);
  if (found == functions_.end() || !found->second.body) {
    refuse(line, "function '" + name + "' is not defined here");
  }
  const Function& function = found->second;
  if (results.size() != function.results.size() || arguments.size() != function.parameters.size()) {
    refuse(line, "call of '" + name + "' with a wrong number of arguments");
  }
  if (!inlining_.insert(name).second) refuse(line, "recursion of '" + name + "'");

  // Look up all names before declaring any: formal names may hide actual ones.
  std::vector<std::pair<std::string, Symbol>> bound;
  const auto bind = [&](const std::vector<Declaration>& formal,
                        const std::vector<std::string>& actual) {
    for (std::size_t i = 0; i < formal.size(); ++i) {
      const std::optional<Symbol> symbol = builder.symbol(actual[i]);
      if (!symbol || symbol->space != Space::local) {
        refuse(line, "argument '" + actual[i] + "' is not a .param variable");
      }
      bound.emplace_back(formal[i].name, *symbol);
    }
  };
  bind(function.results, results);
  bind(function.parameters, arguments);
  builder.open_scope();
  for (const auto& [formal, symbol] : bound) builder.declare_symbol(line, formal, symbol);

  const std::size_t after = at_;
  at_ = function.body;
  builder.begin_function();
  builder.open_scope();
  parse_body(builder);
  builder.end_function();
  builder.close_scope();
  at_ = after;
  inlining_.erase(name);
}

}  // namespace ptx
