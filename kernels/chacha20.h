// The ChaCha20 block function (RFC 8439, section 2.3), for host and device code.
//
// One template serves every caller: `Word` is std::uint32_t for one block, or a SIMD vector of them
// for one block a lane. Nothing here branches on the data or indexes by it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

// MORPHOGEN_FN is a macro because no constexpr can carry a function specifier. Host code is forced
// inline because these headers are compiled once per instruction set: the linker could pick an
// out-of-line copy that was built for AVX-512 for all of them.
#if defined(__CUDACC__)
#define MORPHOGEN_FN __host__ __device__ __forceinline__
#else
#define MORPHOGEN_FN inline __attribute__((always_inline))
#endif

namespace morphogen {
namespace {

constexpr int kChaChaWords = 16;
constexpr int kChaChaDoubleRounds = 10;

// The constant words of RFC 8439: "expand 32-byte k".
constexpr std::uint32_t kChaChaConstant0 = 0x61707865u;
constexpr std::uint32_t kChaChaConstant1 = 0x3320646eu;
constexpr std::uint32_t kChaChaConstant2 = 0x79622d32u;
constexpr std::uint32_t kChaChaConstant3 = 0x6b206574u;

// A turn by whole bytes is one instruction that moves bytes on NEON (REV32, TBL) and with AVX2
// (VPSHUFB). GCC would make shifts of it, and take three. AVX-512 has an instruction for any turn.
#if !defined(__CUDACC__) && \
    (defined(__aarch64__) || (defined(__AVX2__) && !defined(__AVX512VL__)))
#define MORPHOGEN_MOVES_BYTES
template <int Turn, class Bytes, std::size_t... I>
MORPHOGEN_FN Bytes turn_bytes(Bytes x, std::index_sequence<I...>) {
  return __builtin_shufflevector(x, x, (I / 4 * 4 + (I + 4 - Turn) % 4)...);
}
#endif

template <int Bits, class Word>
MORPHOGEN_FN Word rotate_left(Word x) {
#if defined(MORPHOGEN_MOVES_BYTES)
  if constexpr (sizeof(Word) > 4 && Bits % 8 == 0) {
    typedef std::uint8_t Bytes __attribute__((vector_size(sizeof(Word))));
    return (Word)turn_bytes<Bits / 8>((Bytes)x, std::make_index_sequence<sizeof(Word)>());
  }
#endif
  return (x << Bits) | (x >> (32 - Bits));
}

template <class Word>
MORPHOGEN_FN void chacha20_quarter_round(Word& a, Word& b, Word& c, Word& d) {
  a += b;
  d = rotate_left<16>(d ^ a);
  c += d;
  b = rotate_left<12>(b ^ c);
  a += b;
  d = rotate_left<8>(d ^ a);
  c += d;
  b = rotate_left<7>(b ^ c);
}

// Runs the 20 rounds in place, without the final addition of the input.
template <class Word>
MORPHOGEN_FN void chacha20_rounds(Word (&x)[kChaChaWords]) {
#if defined(__CUDACC__)
#pragma unroll 1  // 10 times the code would fill a multiprocessor's instruction cache for nothing
#endif
  for (int round = 0; round < kChaChaDoubleRounds; ++round) {
    chacha20_quarter_round(x[0], x[4], x[8], x[12]);
    chacha20_quarter_round(x[1], x[5], x[9], x[13]);
    chacha20_quarter_round(x[2], x[6], x[10], x[14]);
    chacha20_quarter_round(x[3], x[7], x[11], x[15]);
    chacha20_quarter_round(x[0], x[5], x[10], x[15]);
    chacha20_quarter_round(x[1], x[6], x[11], x[12]);
    chacha20_quarter_round(x[2], x[7], x[8], x[13]);
    chacha20_quarter_round(x[3], x[4], x[9], x[14]);
  }
}

// Writes to `out` the block of the state `in`: constants, key, counter and nonce as 16
// little-endian words.
template <class Word>
MORPHOGEN_FN void chacha20_block(const Word (&in)[kChaChaWords], Word (&out)[kChaChaWords]) {
  for (int i = 0; i < kChaChaWords; ++i) out[i] = in[i];
  chacha20_rounds(out);
  for (int i = 0; i < kChaChaWords; ++i) out[i] += in[i];
}

}  // namespace
}  // namespace morphogen
