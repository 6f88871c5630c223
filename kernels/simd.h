// Vectors of the widest register that the compiler's flags allow. They are the compiler's own
// vector types, so that one source serves every instruction set. It is compiled once per
// instruction set: see host_kernels.cpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

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

// A vector anywhere in memory. memcpy does not serve: compilers may copy in pieces through the
// stack, which halved the speed of the AVX2 scan.
struct __attribute__((packed, may_alias)) UnalignedWords {
  WordVector vector;
};

MORPHOGEN_FN WordVector load_vector(const std::uint32_t* words) {
  return reinterpret_cast<const UnalignedWords*>(words)->vector;
}

MORPHOGEN_FN void store_vector(std::uint32_t* words, WordVector vector) {
  reinterpret_cast<UnalignedWords*>(words)->vector = vector;
}

// Returns a vector whose element i is element Index::at(i) of `a` followed by `b`.
template <class Index, class Vector, std::size_t... I>
MORPHOGEN_FN Vector shuffle_words(Vector a, Vector b, std::index_sequence<I...>) {
  return __builtin_shufflevector(a, b, Index::at(static_cast<int>(I))...);
}

template <class Index, class Vector>
MORPHOGEN_FN Vector shuffle_words(Vector a, Vector b) {
  return shuffle_words<Index>(a, b, std::make_index_sequence<sizeof(Vector) / 4>());
}

// The halves of the sequence a_0 b_0 a_1 b_1 ...
template <int Half>
struct Interleaved {
  static constexpr int at(int i) { return Half * kWordLanes / 2 + i / 2 + i % 2 * kWordLanes; }
};

// In every group of 4 elements this takes units of `Unit` elements from a and b in turn, from the
// group's lower or upper half.
template <int Unit, int Half>
struct Unpacked {
  static constexpr int at(int i) {
    const int unit = i % 4 / Unit;
    return i / 4 * 4 + Half * 2 + unit / 2 * Unit + i % Unit + unit % 2 * kWordLanes;
  }
};

// A column of `Bytes` bytes of one page: the unit of the page scan. It fills as many registers as
// it needs.
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
