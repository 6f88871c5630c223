#include "ptx_text.h"

#include <cctype>
#include <cstdio>

#include "ptx_program.h"

namespace ptx {
namespace {

bool is_word_character(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '$' || c == '%' ||
         c == '.';
}

}  // namespace

bool Token::is_word() const { return !text.empty() && is_word_character(text[0]); }

std::string to_hex(std::uint64_t value) {
  char digits[19];
  std::snprintf(digits, sizeof digits, "0x%llx", static_cast<unsigned long long>(value));
  return digits;
}

void refuse(std::uint32_t line, const std::string& message) {
  throw Error("PTX line " + std::to_string(line) + ": " + message);
}

std::vector<Token> tokenize(const std::string& text) {
  std::vector<Token> tokens;
  std::uint32_t line = 1;
  std::size_t i = 0;
  const auto at = [&](std::size_t k) { return k < text.size() ? text[k] : '\0'; };
  while (i < text.size()) {
    const char c = text[i];
    if (c == '\n') {
      ++line, ++i;
    } else if (std::isspace(static_cast<unsigned char>(c)) || c == '\0') {
      ++i;  // a driver's image may end in zeros
    } else if (c == '/' && at(i + 1) == '/') {
      while (i < text.size() && text[i] != '\n') ++i;
    } else if (c == '/' && at(i + 1) == '*') {
      const std::size_t end = text.find("*/", i + 2);
      if (end == std::string::npos) refuse(line, "comment without end");
      for (; i < end + 2; ++i) line += text[i] == '\n';
    } else if (c == '"') {
      const std::size_t end = text.find('"', i + 1);
      if (end == std::string::npos) refuse(line, "string without end");
      tokens.push_back({text.substr(i, end + 1 - i), line});
      i = end + 1;
    } else if (is_word_character(c)) {
      const std::size_t start = i;
      // "::" is part of a modifier such as L1::no_allocate. A single ":" ends a label.
      while (is_word_character(at(i)) || (at(i) == ':' && at(i + 1) == ':')) {
        i += at(i) == ':' ? 2 : 1;
      }
      tokens.push_back({text.substr(start, i - start), line});
    } else {
      tokens.push_back({std::string(1, c), line});
      ++i;
    }
  }
  tokens.push_back({"", line});
  return tokens;
}

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts(1);
  for (const char c : text) {
    if (c == separator) {
      parts.emplace_back();
    } else {
      parts.back() += c;
    }
  }
  return parts;
}

std::uint64_t parse_integer(const Token& token, bool negative) {
  std::string digits = token.text;
  if (!digits.empty() && digits.back() == 'U') digits.pop_back();
  int base = 10;
  if (digits.size() > 1 && digits[0] == '0') {
    const char prefix = digits[1];
    base = prefix == 'x' || prefix == 'X' ? 16 : prefix == 'b' || prefix == 'B' ? 2 : 8;
    digits.erase(0, base == 8 ? 1 : 2);
  }
  std::uint64_t value = 0;
  if (digits.empty()) refuse(token.line, "'" + token.text + "' is not an integer");
  for (const char c : digits) {
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                             : 99;
    const auto wide = static_cast<unsigned __int128>(value) * base + digit;
    if (digit >= base || wide >> 64) refuse(token.line, "'" + token.text + "' is not an integer");
    value = static_cast<std::uint64_t>(wide);
  }
  return negative ? 0 - value : value;
}

std::string Source::line(std::uint32_t number) const {
  if (number < 1 || number > lines.size()) return "";
  const std::string& text = lines[number - 1];
  const std::size_t start = text.find_first_not_of(" \t");
  if (start == std::string::npos) return "";
  return text.substr(start, text.find_last_not_of(" \t\r") + 1 - start);
}

}  // namespace ptx
