// SHA-256 (FIPS 180-4) of messages of one length, several at once where that is faster. Host code.
//
// A message is a head of 0 or 32 bytes and a body, which is read where it lies. Nothing here branches
// on the data or indexes by it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#include <sys/auxv.h>
#endif

namespace morphogen {
namespace {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "words are read as they lie in memory");

constexpr std::size_t kShaBlockBytes = 64, kShaBytes = 32;
constexpr int kMaxShaLanes = 4;

// Takes `count` blocks of each of some messages into their states.
using ShaCompress = void (*)(std::uint32_t (*states)[8], const std::uint8_t* const* blocks,
                             std::size_t count);

struct ShaKernel {
  const char* name;
  int lanes;  // messages that `several` takes
  ShaCompress one, several;
};

alignas(16) constexpr std::uint32_t kShaRounds[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

constexpr std::uint32_t kShaStart[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                        0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

#define MORPHOGEN_SHA_FN inline __attribute__((always_inline))

template <class Word>
MORPHOGEN_SHA_FN Word turned_right(Word word, int bits) {
  return word >> bits | word << (32 - bits);
}

MORPHOGEN_SHA_FN std::uint32_t load_big_endian(const std::uint8_t* bytes) {
  std::uint32_t word;
  std::memcpy(&word, bytes, sizeof word);
  return __builtin_bswap32(word);
}

MORPHOGEN_SHA_FN std::uint32_t& lane_of(std::uint32_t& word, int) { return word; }
template <class Word>
MORPHOGEN_SHA_FN std::uint32_t& lane_of(Word& words, int lane) {
  return reinterpret_cast<std::uint32_t*>(&words)[lane];
}

// `Word` is std::uint32_t for one message, or a vector of them for one message a lane.
template <class Word>
MORPHOGEN_SHA_FN void compress_words(std::uint32_t (*states)[8], const std::uint8_t* const* blocks,
                                     std::size_t count) {
  constexpr int kLanes = sizeof(Word) / sizeof(std::uint32_t);
  Word state[8];
  for (int i = 0; i < 8; ++i)
    for (int lane = 0; lane < kLanes; ++lane) lane_of(state[i], lane) = states[lane][i];
  for (std::size_t block = 0; block < count; ++block) {
    Word w[16], v[8];
    for (int i = 0; i < 16; ++i)
      for (int lane = 0; lane < kLanes; ++lane)
        lane_of(w[i], lane) = load_big_endian(blocks[lane] + block * kShaBlockBytes + 4 * i);
    for (int i = 0; i < 8; ++i) v[i] = state[i];
#pragma GCC unroll 64
    for (int i = 0; i < 64; ++i) {
      if (i >= 16) {
        const Word before = w[(i - 15) & 15], late = w[(i - 2) & 15];
        w[i & 15] += w[(i - 7) & 15] +
                     (turned_right(before, 7) ^ turned_right(before, 18) ^ before >> 3) +
                     (turned_right(late, 17) ^ turned_right(late, 19) ^ late >> 10);
      }
      // The letters a to h go round, one place a round.
      const Word a = v[-i & 7], b = v[(1 - i) & 7], c = v[(2 - i) & 7], e = v[(4 - i) & 7],
                 f = v[(5 - i) & 7], g = v[(6 - i) & 7], h = v[(7 - i) & 7];
      const Word sum = h + (turned_right(e, 6) ^ turned_right(e, 11) ^ turned_right(e, 25)) +
                       (g ^ (e & (f ^ g))) + kShaRounds[i] + w[i & 15];
      v[(3 - i) & 7] += sum;
      v[(7 - i) & 7] = sum + (turned_right(a, 2) ^ turned_right(a, 13) ^ turned_right(a, 22)) +
                       ((a & b) | (c & (a | b)));
    }
    for (int i = 0; i < 8; ++i) state[i] += v[i];
  }
  for (int i = 0; i < 8; ++i)
    for (int lane = 0; lane < kLanes; ++lane) states[lane][i] = lane_of(state[i], lane);
}

// 16 bytes are SSE2 on x86-64, NEON on AArch64, plain words elsewhere.
typedef std::uint32_t ShaWords4 __attribute__((vector_size(16), may_alias));

inline void compress_one(std::uint32_t (*states)[8], const std::uint8_t* const* blocks,
                         std::size_t count) {
  compress_words<std::uint32_t>(states, blocks, count);
}

inline void compress_four(std::uint32_t (*states)[8], const std::uint8_t* const* blocks,
                          std::size_t count) {
  compress_words<ShaWords4>(states, blocks, count);
}

#if defined(__x86_64__)

#define MORPHOGEN_SHA_NI __attribute__((target("sha,sse4.1,ssse3")))

// The instruction for two rounds waits for the one before it: two messages take the time of one.
template <int Lanes>
MORPHOGEN_SHA_NI void compress_by_sha_ni(std::uint32_t (*states)[8],
                                         const std::uint8_t* const* blocks, std::size_t count) {
  const __m128i big_endian = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
  const std::uint8_t* at[Lanes];
  __m128i abef[Lanes], cdgh[Lanes];
#pragma GCC unroll 2
  for (int lane = 0; lane < Lanes; ++lane) {
    const auto* const words = reinterpret_cast<const __m128i*>(states[lane]);
    const __m128i badc = _mm_shuffle_epi32(_mm_loadu_si128(words), 0xb1);
    const __m128i hgfe = _mm_shuffle_epi32(_mm_loadu_si128(words + 1), 0x1b);
    abef[lane] = _mm_alignr_epi8(badc, hgfe, 8);
    cdgh[lane] = _mm_blend_epi16(hgfe, badc, 0xf0);
    at[lane] = blocks[lane];
  }
  for (; count != 0; --count) {
    __m128i w[Lanes][4], abef_before[Lanes], cdgh_before[Lanes];
#pragma GCC unroll 2
    for (int lane = 0; lane < Lanes; ++lane) {
      abef_before[lane] = abef[lane];
      cdgh_before[lane] = cdgh[lane];
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i)
        w[lane][i] = _mm_shuffle_epi8(
            _mm_loadu_si128(reinterpret_cast<const __m128i*>(at[lane]) + i), big_endian);
      at[lane] += kShaBlockBytes;
    }
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) {
      const __m128i rounds =
          _mm_load_si128(reinterpret_cast<const __m128i*>(kShaRounds) + i);
#pragma GCC unroll 2
      for (int lane = 0; lane < Lanes; ++lane) {
        __m128i* const m = w[lane];
        const __m128i sum = _mm_add_epi32(m[i & 3], rounds);
        cdgh[lane] = _mm_sha256rnds2_epu32(cdgh[lane], abef[lane], sum);
        abef[lane] = _mm_sha256rnds2_epu32(abef[lane], cdgh[lane], _mm_shuffle_epi32(sum, 0x0e));
        if (i < 12) {
          const __m128i last = m[(i + 3) & 3];
          m[i & 3] = _mm_sha256msg2_epu32(
              _mm_add_epi32(_mm_sha256msg1_epu32(m[i & 3], m[(i + 1) & 3]),
                            _mm_alignr_epi8(last, m[(i + 2) & 3], 4)),
              last);
        }
      }
    }
#pragma GCC unroll 2
    for (int lane = 0; lane < Lanes; ++lane) {
      abef[lane] = _mm_add_epi32(abef[lane], abef_before[lane]);
      cdgh[lane] = _mm_add_epi32(cdgh[lane], cdgh_before[lane]);
    }
  }
#pragma GCC unroll 2
  for (int lane = 0; lane < Lanes; ++lane) {
    auto* const words = reinterpret_cast<__m128i*>(states[lane]);
    const __m128i feba = _mm_shuffle_epi32(abef[lane], 0x1b);
    const __m128i dchg = _mm_shuffle_epi32(cdgh[lane], 0xb1);
    _mm_storeu_si128(words, _mm_blend_epi16(feba, dchg, 0xf0));
    _mm_storeu_si128(words + 1, _mm_alignr_epi8(dchg, feba, 8));
  }
}

inline bool has_sha_instructions() {
  unsigned int eax, ebx, ecx, edx;
  __builtin_cpu_init();
  return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 && (ebx & bit_SHA) != 0 &&
         __builtin_cpu_supports("ssse3") && __builtin_cpu_supports("sse4.1");
}

constexpr ShaKernel kShaInstructions = {"sha-ni", 2, compress_by_sha_ni<1>, compress_by_sha_ni<2>};

#elif defined(__aarch64__)

#if defined(__clang__)
#define MORPHOGEN_SHA2 __attribute__((target("+sha2")))
#else
#define MORPHOGEN_SHA2 __attribute__((target("+crypto")))  // what GCC 12's arm_neon.h asks for
#endif

template <int Lanes>
MORPHOGEN_SHA2 void compress_by_sha2(std::uint32_t (*states)[8], const std::uint8_t* const* blocks,
                                     std::size_t count) {
  const std::uint8_t* at[Lanes];
  uint32x4_t abcd[Lanes], efgh[Lanes];
#pragma GCC unroll 2
  for (int lane = 0; lane < Lanes; ++lane) {
    abcd[lane] = vld1q_u32(states[lane]);
    efgh[lane] = vld1q_u32(states[lane] + 4);
    at[lane] = blocks[lane];
  }
  for (; count != 0; --count) {
    uint32x4_t w[Lanes][4], abcd_before[Lanes], efgh_before[Lanes];
#pragma GCC unroll 2
    for (int lane = 0; lane < Lanes; ++lane) {
      abcd_before[lane] = abcd[lane];
      efgh_before[lane] = efgh[lane];
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i)
        w[lane][i] = vreinterpretq_u32_u8(vrev32q_u8(vld1q_u8(at[lane] + 16 * i)));
      at[lane] += kShaBlockBytes;
    }
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) {
      const uint32x4_t rounds = vld1q_u32(kShaRounds + 4 * i);
#pragma GCC unroll 2
      for (int lane = 0; lane < Lanes; ++lane) {
        uint32x4_t* const m = w[lane];
        const uint32x4_t sum = vaddq_u32(m[i & 3], rounds), abcd_now = abcd[lane];
        abcd[lane] = vsha256hq_u32(abcd_now, efgh[lane], sum);
        efgh[lane] = vsha256h2q_u32(efgh[lane], abcd_now, sum);
        if (i < 12)
          m[i & 3] = vsha256su1q_u32(vsha256su0q_u32(m[i & 3], m[(i + 1) & 3]), m[(i + 2) & 3],
                                     m[(i + 3) & 3]);
      }
    }
#pragma GCC unroll 2
    for (int lane = 0; lane < Lanes; ++lane) {
      abcd[lane] = vaddq_u32(abcd[lane], abcd_before[lane]);
      efgh[lane] = vaddq_u32(efgh[lane], efgh_before[lane]);
    }
  }
#pragma GCC unroll 2
  for (int lane = 0; lane < Lanes; ++lane) {
    vst1q_u32(states[lane], abcd[lane]);
    vst1q_u32(states[lane] + 4, efgh[lane]);
  }
}

inline bool has_sha_instructions() {
  constexpr unsigned long kSha2 = 1 << 6;  // HWCAP_SHA2
  return (getauxval(AT_HWCAP) & kSha2) != 0;
}

constexpr ShaKernel kShaInstructions = {"sha2", 2, compress_by_sha2<1>, compress_by_sha2<2>};

#endif

constexpr ShaKernel kShaPortable = {"portable", 4, compress_one, compress_four};

// Returns the kernels that were compiled in, the fastest first, ending in null.
inline const ShaKernel* const* compiled_sha_kernels() {
  static const ShaKernel* const kKernels[] = {
#if defined(__x86_64__) || defined(__aarch64__)
      &kShaInstructions,
#endif
      &kShaPortable, nullptr};
  return kKernels;
}

inline bool is_sha_supported(const ShaKernel& kernel) {
#if defined(__x86_64__) || defined(__aarch64__)
  if (&kernel == &kShaInstructions) return has_sha_instructions();
#endif
  return &kernel == &kShaPortable;
}

// Writes the digests of `count` messages, 1 to the kernel's lanes; `head_bytes` is 0 or 32.
inline void sha256_together(const ShaKernel& kernel, int count, std::size_t head_bytes,
                            const std::uint8_t (*heads)[kShaBytes],
                            const std::uint8_t* const* bodies, std::size_t body_bytes,
                            std::uint8_t (*digests)[kShaBytes]) {
  std::uint32_t states[kMaxShaLanes][8];
  std::uint8_t rests[kMaxShaLanes][2 * kShaBlockBytes];
  const std::uint8_t* blocks[kMaxShaLanes];
  const auto compress = [&](std::size_t blocks_each) {
    for (int lane = count; lane < kernel.lanes; ++lane) blocks[lane] = blocks[0];
    (count == 1 ? kernel.one : kernel.several)(states, blocks, blocks_each);
  };
  for (int lane = 0; lane < kernel.lanes; ++lane)
    std::memcpy(states[lane], kShaStart, sizeof kShaStart);

  std::size_t taken = 0, heads_left = head_bytes;
  if (head_bytes != 0 && body_bytes >= kShaBlockBytes - head_bytes) {
    taken = kShaBlockBytes - head_bytes;
    heads_left = 0;
    for (int lane = 0; lane < count; ++lane) {
      std::memcpy(rests[lane], heads[lane], head_bytes);
      std::memcpy(rests[lane] + head_bytes, bodies[lane], taken);
      blocks[lane] = rests[lane];
    }
    compress(1);
  }
  if (heads_left == 0 && body_bytes - taken >= kShaBlockBytes) {
    const std::size_t whole = (body_bytes - taken) / kShaBlockBytes;
    for (int lane = 0; lane < count; ++lane) blocks[lane] = bodies[lane] + taken;
    compress(whole);
    taken += whole * kShaBlockBytes;
  }
  // What is left, a bit that is 1, zeros, and the length in bits.
  const std::size_t left = heads_left + body_bytes - taken;
  const std::size_t last_blocks = left + 9 <= kShaBlockBytes ? 1 : 2;
  const std::uint64_t bits = __builtin_bswap64(8 * (std::uint64_t{head_bytes} + body_bytes));
  for (int lane = 0; lane < count; ++lane) {
    std::uint8_t* const rest = rests[lane];
    std::memset(rest, 0, last_blocks * kShaBlockBytes);
    if (heads_left != 0) std::memcpy(rest, heads[lane], heads_left);
    if (left > heads_left) std::memcpy(rest + heads_left, bodies[lane] + taken, left - heads_left);
    rest[left] = 0x80;
    std::memcpy(rest + last_blocks * kShaBlockBytes - sizeof bits, &bits, sizeof bits);
    blocks[lane] = rest;
  }
  compress(last_blocks);
  for (int lane = 0; lane < count; ++lane) {
    for (std::uint32_t& word : states[lane]) word = __builtin_bswap32(word);
    std::memcpy(digests[lane], states[lane], kShaBytes);
  }
}

inline void sha256(const ShaKernel& kernel, const std::uint8_t* message, std::size_t size,
                   std::uint8_t* digest) {
  std::uint8_t digests[1][kShaBytes];
  sha256_together(kernel, 1, 0, nullptr, &message, size, digests);
  std::memcpy(digest, digests, kShaBytes);
}

}  // namespace
}  // namespace morphogen
