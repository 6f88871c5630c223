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

// A vector anywhere in memory. Not by memcpy: compilers may then copy in pieces through the stack,
// which halved the speed of the AVX2 scan.
struct __attribute__((packed, may_alias)) UnalignedWords {
  WordVector vector;
};

MORPHOGEN_FN WordVector load_vector(const std::uint32_t* words) {
  return reinterpret_cast<const UnalignedWords*>(words)->vector;
}

MORPHOGEN_FN void store_vector(std::uint32_t* words, WordVector vector) {
  reinterpret_cast<UnalignedWords*>(words)->vector = vector;
}

// A column of `Bytes` bytes of one page: the unit of the page scan. It is held in as many registers
// as it takes.
template <int Bytes>
struct Column {
  static constexpr int kBytes = Bytes;
  static constexpr int kPartBytes = Bytes < kVectorBytes ? Bytes : kVectorBytes;
  static constexpr int kParts = Bytes / kPartBytes;
  typedef std::uint8_t Part __attribute__((vector_size(kPartBytes)));
  struct __attribute__((packed, may_alias)) Unaligned {
    Part part;
  };
  Part part[kParts];

  static MORPHOGEN_FN Column load(const std::uint8_t* bytes) {
    Column column;
    for (int i = 0; i < kParts; ++i)
      column.part[i] = reinterpret_cast<const Unaligned*>(bytes + i * kPartBytes)->part;
    return column;
  }
  static MORPHOGEN_FN Column splat(std::uint8_t byte) {
    Column column;
    for (Part& part : column.part) part = Part{} + byte;
    return column;
  }
  MORPHOGEN_FN void store(std::uint8_t* bytes) const {
    for (int i = 0; i < kParts; ++i)
      reinterpret_cast<Unaligned*>(bytes + i * kPartBytes)->part = part[i];
  }
};

template <int Bytes>
MORPHOGEN_FN Column<Bytes> operator^(Column<Bytes> a, const Column<Bytes>& b) {
  for (int i = 0; i < Column<Bytes>::kParts; ++i) a.part[i] ^= b.part[i];
  return a;
}

template <int Bytes>
MORPHOGEN_FN Column<Bytes> operator&(Column<Bytes> a, const Column<Bytes>& b) {
  for (int i = 0; i < Column<Bytes>::kParts; ++i) a.part[i] &= b.part[i];
  return a;
}

}  // namespace
}  // namespace morphogen
