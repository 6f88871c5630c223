// Small helpers of hash tables. Host code.
#pragma once

#include <cstdint>

namespace morphogen {

// Returns a word of 64 random bits as a number below `range`.
inline std::uint64_t scaled(std::uint64_t word, std::uint64_t range) {
  __extension__ typedef unsigned __int128 Wide;
  return static_cast<std::uint64_t>(static_cast<Wide>(word) * range >> 64);
}

// Asks for memory that is read soon.
inline void prefetch(const void* at) { __builtin_prefetch(at); }

}  // namespace morphogen
