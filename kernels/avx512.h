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

// Returns 4 words of 8 bytes that lie `step` bytes apart.
MORPHOGEN_FN __m256i load_four_words(const std::uint8_t* first, std::size_t step) {
  __m256i words = _mm256_castsi128_si256(
      _mm_loadl_epi64(reinterpret_cast<const __m128i*>(first)));
  words = _mm256_mask_set1_epi64(words, 1 << 1, load_long(first + step));
  words = _mm256_mask_set1_epi64(words, 1 << 2, load_long(first + 2 * step));
  return _mm256_mask_set1_epi64(words, 1 << 3, load_long(first + 3 * step));
}

// Returns 8 such words. Masked broadcasts are loads and merges; a gather takes twice as long on
// Zen 4 (docs/experiments.md).
MORPHOGEN_FN __m512i load_words(const std::uint8_t* first, std::size_t step) {
  return _mm512_inserti64x4(_mm512_castsi256_si512(load_four_words(first, step)),
                            load_four_words(first + 4 * step, step), 1);
}

}  // namespace
}  // namespace morphogen
#endif
