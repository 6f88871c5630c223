// Splits PTX text into tokens.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace ptx {

struct Token {
  std::string text;  // a word (%r1, .reg, ld.global.u32, 0x10), a "string" or one other character
  std::uint32_t line;

  bool is(const char* expected) const { return text == expected; }
  bool is_word() const;
  bool is_number() const { return text[0] >= '0' && text[0] <= '9'; }
};

// The last token is empty.
std::vector<Token> tokenize(const std::string& text);

std::vector<std::string> split(const std::string& text, char separator);

std::string to_hex(std::uint64_t value);

[[noreturn]] void refuse(std::uint32_t line, const std::string& message);

// Returns the value of an integer literal, in two's complement if `negative`.
std::uint64_t parse_integer(const Token& token, bool negative);

}  // namespace ptx
