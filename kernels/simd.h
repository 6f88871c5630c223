// Vectors of the widest register that the compiler's flags allow, by the compiler's own vector
// types, so that one source serves every instruction set. Compiled once per instruction set: see
// host_kernels.cpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "chacha20.h"

namespace morphogen {
namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;  // SSE2 on x86-64, NEON on AArch64, plain words elsewhere
#endif

typedef std::uint32_t WordVector __attribute__((vector_size(kVectorBytes)));
constexpr int kWordLanes = kVectorBytes / 4;

MORPHOGEN_FN WordVector load_vector(const std::uint32_t* words) {
  WordVector vector;
  std::memcpy(&vector, words, sizeof vector);
  return vector;
}

MORPHOGEN_FN void store_vector(std::uint32_t* words, WordVector vector) {
  std::memcpy(words, &vector, sizeof vector);
}

// A column of `Bytes` bytes of one page: the unit of the page scan. It is held in as many registers
// as it takes; XOR is all it can do.
template <int Bytes>
struct Column {
  static constexpr int kBytes = Bytes;
  static constexpr int kPartBytes = Bytes < kVectorBytes ? Bytes : kVectorBytes;
  static constexpr int kParts = Bytes / kPartBytes;
  typedef std::uint8_t Part __attribute__((vector_size(kPartBytes)));
  Part part[kParts];

  static MORPHOGEN_FN Column load(const std::uint8_t* bytes) {
    Column column;
    std::memcpy(&column, bytes, Bytes);
    return column;
  }
  MORPHOGEN_FN void store(std::uint8_t* bytes) const { std::memcpy(bytes, this, Bytes); }
};

template <int Bytes>
MORPHOGEN_FN Column<Bytes> operator^(Column<Bytes> a, const Column<Bytes>& b) {
  for (int i = 0; i < Column<Bytes>::kParts; ++i) a.part[i] ^= b.part[i];
  return a;
}

}  // namespace
}  // namespace morphogen
