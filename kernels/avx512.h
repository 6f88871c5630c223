// Steps that the methods for AVX-512 share.
#pragma once

#include "simd.h"

#if defined(__AVX512BW__) && defined(__AVX512VL__)
#include <immintrin.h>

namespace morphogen {
namespace {

MORPHOGEN_FN __m512i xor3(__m512i a, __m512i b, __m512i c) {
  constexpr int kXorOfThree = 0x96;  // the truth table of a ^ b ^ c
  return _mm512_ternarylogic_epi64(a, b, c, kXorOfThree);
}

MORPHOGEN_FN long long load_long(const std::uint8_t* bytes) {
  long long word;
  std::memcpy(&word, bytes, sizeof word);
  return word;
}

}  // namespace
}  // namespace morphogen
#endif
