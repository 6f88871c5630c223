#include "ptx_parser.h"

#include <algorithm>

namespace ptx {
namespace {

// Variables lie apart, so that an access beyond one of them misses the next.
constexpr std::uint64_t kVariableGap = 4096;

// Returns the bits of a type such as ".u32", and 0 for other words.
int type_bits(const std::string& type) {
  if (type.size() < 3 || (type[1] != 'b' && type[1] != 'u' && type[1] != 's')) return 0;
  const std::string bits = type.substr(2);
  return bits == "8" ? 8 : bits == "16" ? 16 : bits == "32" ? 32 : bits == "64" ? 64 : 0;
}

std::uint64_t round_up(std::uint64_t value, std::uint64_t alignment) {
  return (value + alignment - 1) / alignment * alignment;
}

}  // namespace

Parser::Parser(const std::string& text)
    : source_(std::make_shared<Source>()),
      tokens_(tokenize(text)),
      variables_(std::make_shared<std::vector<Variable>>()) {
  source_->lines = split(text, '\n');
}

// --- Tokens.

const Token& Parser::peek(std::size_t ahead) const {
  return tokens_[std::min(at_ + ahead, tokens_.size() - 1)];
}

Token Parser::next() {
  const Token token = peek();
  if (token.text.empty()) refuse(token.line, "the text ends too early");
  ++at_;
  return token;
}

bool Parser::accept(const char* text) {
  if (!peek().is(text)) return false;
  ++at_;
  return true;
}

void Parser::expect(const char* text) {
  const Token token = next();
  if (!token.is(text)) refuse(token.line, "'" + token.text + "' where '" + text + "' should be");
}

std::string Parser::expect_word() {
  const Token token = next();
  if (!token.is_word()) refuse(token.line, "'" + token.text + "' where a name should be");
  return token.text;
}

std::uint64_t Parser::expect_number() {
  const bool negative = accept("-");
  const Token token = next();
  if (!token.is_number()) refuse(token.line, "'" + token.text + "' where a number should be");
  return parse_integer(token, negative);
}

void Parser::skip_line() {
  const std::uint32_t line = peek().line;
  while (peek().line == line && !peek().text.empty()) ++at_;
}

void Parser::skip_block() {
  for (int depth = 1; depth > 0;) {
    const Token token = next();
    depth += token.is("{") ? 1 : token.is("}") ? -1 : 0;
  }
}

// --- Module.

void Parser::parse() {
  bool is_extern = false;
  while (!peek().text.empty()) {
    const Token token = next();
    if (token.is(".version")) {
      version = expect_word();
    } else if (token.is(".target")) {
      target = expect_word();
      while (accept(",")) expect_word();
    } else if (token.is(".address_size")) {
      if (expect_number() != 64) refuse(token.line, "addresses are not 64 bits");
    } else if (token.is(".visible") || token.is(".weak")) {
    } else if (token.is(".extern")) {
      is_extern = true;
      continue;
    } else if (token.is(".global")) {
      parse_variable(Space::global, is_extern);
    } else if (token.is(".const")) {
      parse_variable(Space::constant, is_extern);
    } else if (token.is(".shared")) {
      parse_variable(Space::shared, is_extern);
    } else if (token.is(".func")) {
      parse_function();
    } else if (token.is(".entry")) {
      parse_entry();
    } else if (token.is(".pragma")) {
      next();
      expect(";");
    } else if (token.is(".file")) {
      skip_line();
    } else if (token.is(".section")) {
      expect_word();
      expect("{");
      skip_block();
    } else {
      refuse(token.line, "'" + token.text + "' is not known here");
    }
    is_extern = false;
  }
  if (version.empty() || target.empty()) throw Error("PTX has no .version or no .target");
  for (const Entry& entry : entries_) build(entry);
}

Declaration Parser::parse_declaration() {
  Declaration declaration{"", peek().line, 0, 0, 1};
  if (accept(".align")) declaration.alignment = expect_number();
  const std::string type = expect_word();
  const int bits = type_bits(type);
  if (!bits) refuse(declaration.line, "type '" + type + "' is not known here");
  declaration.element_bytes = static_cast<std::uint64_t>(bits / 8);
  if (accept(".ptr")) {  // the address space of a pointer parameter
    if (accept(".global") || accept(".shared") || accept(".const")) {
    }
    if (accept(".align")) expect_number();
  }
  declaration.name = expect_word();
  while (accept("[")) {
    if (accept("]")) {
      declaration.unsized = true;
    } else {
      declaration.count *= expect_number();
      expect("]");
    }
  }
  if (!declaration.alignment) declaration.alignment = declaration.element_bytes;
  if (declaration.alignment & (declaration.alignment - 1) || declaration.alignment > 1024 ||
      declaration.count > 1u << 28) {
    refuse(declaration.line, "alignment or size of '" + declaration.name + "' is out of range");
  }
  return declaration;
}

std::vector<std::uint8_t> Parser::parse_initializer(const Declaration& declaration) {
  std::vector<std::uint8_t> bytes;
  int depth = 0;
  do {
    if (accept("{")) {
      ++depth;
    } else if (accept("}")) {
      --depth;
    } else if (!accept(",")) {
      const std::uint64_t value = expect_number();
      for (std::uint64_t i = 0; i < declaration.element_bytes; ++i) {
        bytes.push_back(static_cast<std::uint8_t>(value >> (8 * i)));
      }
    }
  } while (depth > 0);
  if (bytes.size() > declaration.bytes()) refuse(declaration.line, "too many initial values");
  return bytes;
}

void Parser::parse_variable(Space space, bool is_extern) {
  const Declaration declaration = parse_declaration();
  if (space == Space::shared) {
    shared_.push_back({declaration, is_extern});
  } else {
    std::vector<std::uint8_t> bytes;
    if (is_extern || declaration.unsized) {
      refuse(declaration.line, "'" + declaration.name + "' is not defined here");
    }
    if (accept("=")) bytes = parse_initializer(declaration);
    bytes.resize(declaration.bytes());
    std::uint64_t& address = space == Space::global ? next_global_ : next_const_;
    address = round_up(address, declaration.alignment);
    symbols_[declaration.name] = {space, address};
    variables_->push_back({space, address, std::move(bytes)});
    address += declaration.bytes() + kVariableGap;
  }
  expect(";");
}

std::vector<Declaration> Parser::parse_parameters() {
  std::vector<Declaration> parameters;
  if (!accept("(")) return parameters;
  while (!accept(")")) {
    if (!parameters.empty()) expect(",");
    expect(".param");
    parameters.push_back(parse_declaration());
  }
  return parameters;
}

void Parser::parse_function() {
  Function function;
  function.results = parse_parameters();
  const std::string name = expect_word();
  function.parameters = parse_parameters();
  accept(".noreturn");
  if (!accept(";")) {
    expect("{");
    function.body = at_;
    skip_block();
  }
  Function& known = functions_[name];
  if (!known.body) known = std::move(function);
}

void Parser::parse_directives(Kernel& kernel) {
  while (!accept("{")) {
    const Token directive = next();
    std::array<std::uint32_t, 3> size{1, 1, 1};
    if (directive.is(".pragma")) {
      next();
      expect(";");
      continue;
    }
    size[0] = static_cast<std::uint32_t>(expect_number());
    for (std::size_t i = 1; i < size.size() && accept(","); ++i) {
      size[i] = static_cast<std::uint32_t>(expect_number());
    }
    if (directive.is(".maxntid") || directive.is(".reqntid")) {
      kernel.info.max_threads = size[0] * size[1] * size[2];
      if (directive.is(".reqntid")) kernel.required_threads = size;
    } else if (!directive.is(".minnctapersm") && !directive.is(".maxnctapersm") &&
               !directive.is(".maxnreg")) {
      refuse(directive.line, "'" + directive.text + "' is not known here");
    }
  }
}

// Returns whether the block that starts at a token contains that name.
bool Parser::mentions(std::size_t begin, const std::string& name) const {
  int depth = 1;
  for (std::size_t i = begin; depth > 0 && i < tokens_.size(); ++i) {
    if (tokens_[i].text == name) return true;
    depth += tokens_[i].is("{") ? 1 : tokens_[i].is("}") ? -1 : 0;
  }
  return false;
}

void Parser::parse_entry() {
  const auto kernel = std::make_shared<Kernel>();
  kernel->source = source_;
  kernel->variables = variables_;
  kernel->info.name = expect_word();
  const std::vector<Declaration> parameters = parse_parameters();
  parse_directives(*kernel);
  entries_.push_back({kernel, parameters, at_});
  skip_block();
}

void Parser::build(const Entry& entry) {
  const std::shared_ptr<Kernel>& kernel = entry.kernel;
  at_ = entry.body;
  inlining_.clear();
  function_shared_.clear();

  Builder builder(kernel);
  builder.open_scope();
  for (const auto& [name, symbol] : symbols_) builder.declare_symbol(0, name, symbol);
  for (const Shared& variable : shared_) {
    const Declaration& declared = variable.declaration;
    const bool used = mentions(at_, declared.name) ||
                      std::any_of(functions_.begin(), functions_.end(), [&](const auto& entry) {
                        return entry.second.body && mentions(entry.second.body, declared.name);
                      });
    if (!used) continue;
    const std::uint64_t address =
        variable.is_extern ? kDynamicSharedBase
                           : builder.allocate_shared(declared.bytes(), declared.alignment);
    builder.declare_symbol(declared.line, declared.name, {Space::shared, address});
  }
  for (const Declaration& parameter : entry.parameters) {
    KernelInfo& info = kernel->info;
    const std::uint64_t offset = round_up(info.parameter_bytes, parameter.alignment);
    info.parameters.push_back({offset, parameter.bytes(), parameter.alignment});
    info.parameter_bytes = offset + parameter.bytes();
    builder.declare_symbol(parameter.line, parameter.name, {Space::param, kParamWindow + offset});
  }
  builder.open_scope();
  parse_body(builder);
  builder.add_exit(tokens_[at_ - 1].line);
  builder.close_scope();
  kernels.push_back(kernel);
}

}  // namespace ptx
