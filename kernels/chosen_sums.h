// The loop over the pages for chunks of 7 keys and more. It jumps where the loop for fewer keys
// uses masks.
//
// A mask costs 4 LOP3 for each key and page. At 12 keys a multiprocessor cannot start that many
// while memory delivers the page. But all threads of a warp read the same pages for the same keys,
// so the selection of 4 pages by a key is one of 16 cases for all threads. The loop takes one jump
// and 4 LOP3 for 4 pages: LOP3 has three operands, and so computes sum ^= x ^ y, where x is one of
// {0, a, b, a ^ b} and y is one of {0, c, d, c ^ d}.
#pragma once

#include <cstdint>

#include "block_range.h"

namespace morphogen {
namespace {

constexpr unsigned kJumpPages = 4;

// These are macros because the text of an asm statement must be a literal. The jump is in PTX
// because a compiler turns a switch of 16 cases into a tree of branches, and only brx.idx jumps at
// once. The letters stand for the operands of a vector.
#define MORPHOGEN_A 4, 5, 6, 7
#define MORPHOGEN_B 8, 9, 10, 11
#define MORPHOGEN_AB 12, 13, 14, 15
#define MORPHOGEN_C 16, 17, 18, 19
#define MORPHOGEN_D 20, 21, 22, 23
#define MORPHOGEN_CD 24, 25, 26, 27
#define MORPHOGEN_ONE(...) MORPHOGEN_ADD_ONE(__VA_ARGS__)
#define MORPHOGEN_TWO(...) MORPHOGEN_ADD_TWO(__VA_ARGS__)
#define MORPHOGEN_ADD_ONE(x, y, z, w) \
  "xor.b32 %0, %0, %" #x ";\n\txor.b32 %1, %1, %" #y ";\n\t" \
  "xor.b32 %2, %2, %" #z ";\n\txor.b32 %3, %3, %" #w ";\n\tbra.uni DONE;\n\t"
#define MORPHOGEN_ADD_TWO(x, y, z, w, X, Y, Z, W) \
  "lop3.b32 %0, %0, %" #x ", %" #X ", 0x96;\n\tlop3.b32 %1, %1, %" #y ", %" #Y ", 0x96;\n\t" \
  "lop3.b32 %2, %2, %" #z ", %" #Z ", 0x96;\n\tlop3.b32 %3, %3, %" #w ", %" #W ", 0x96;\n\t" \
  "bra.uni DONE;\n\t"

// Adds to `sum` the pages of a, b, c, d that the four bits of `choice` select. All threads of a
// warp that come here together must have the same choice.
__device__ __forceinline__ void add_chosen(Vector& sum, std::uint32_t choice, const Vector& a,
                                           const Vector& b, const Vector& ab, const Vector& c,
                                           const Vector& d, const Vector& cd) {
  asm("{\n\t"
      "CASES: .branchtargets DONE, C1, C2, C3, C4, C5, C6, C7, C8, C9, C10, C11, C12, C13, C14, C15;"
      "\n\t"
      "brx.idx.uni %28, CASES;\n\t"
      "C1: " MORPHOGEN_ONE(MORPHOGEN_A)
      "C2: " MORPHOGEN_ONE(MORPHOGEN_B)
      "C3: " MORPHOGEN_ONE(MORPHOGEN_AB)
      "C4: " MORPHOGEN_ONE(MORPHOGEN_C)
      "C5: " MORPHOGEN_TWO(MORPHOGEN_A, MORPHOGEN_C)
      "C6: " MORPHOGEN_TWO(MORPHOGEN_B, MORPHOGEN_C)
      "C7: " MORPHOGEN_TWO(MORPHOGEN_AB, MORPHOGEN_C)
      "C8: " MORPHOGEN_ONE(MORPHOGEN_D)
      "C9: " MORPHOGEN_TWO(MORPHOGEN_A, MORPHOGEN_D)
      "C10: " MORPHOGEN_TWO(MORPHOGEN_B, MORPHOGEN_D)
      "C11: " MORPHOGEN_TWO(MORPHOGEN_AB, MORPHOGEN_D)
      "C12: " MORPHOGEN_ONE(MORPHOGEN_CD)
      "C13: " MORPHOGEN_TWO(MORPHOGEN_A, MORPHOGEN_CD)
      "C14: " MORPHOGEN_TWO(MORPHOGEN_B, MORPHOGEN_CD)
      "C15: " MORPHOGEN_TWO(MORPHOGEN_AB, MORPHOGEN_CD)
      "DONE:\n\t"
      "}"
      : "+r"(sum.x), "+r"(sum.y), "+r"(sum.z), "+r"(sum.w)
      : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b.x), "r"(b.y), "r"(b.z), "r"(b.w),
        "r"(ab.x), "r"(ab.y), "r"(ab.z), "r"(ab.w), "r"(c.x), "r"(c.y), "r"(c.z), "r"(c.w),
        "r"(d.x), "r"(d.y), "r"(d.z), "r"(d.w), "r"(cd.x), "r"(cd.y), "r"(cd.z), "r"(cd.w),
        "r"(choice));
}

#undef MORPHOGEN_A
#undef MORPHOGEN_B
#undef MORPHOGEN_AB
#undef MORPHOGEN_C
#undef MORPHOGEN_D
#undef MORPHOGEN_CD
#undef MORPHOGEN_ONE
#undef MORPHOGEN_TWO
#undef MORPHOGEN_ADD_ONE
#undef MORPHOGEN_ADD_TWO

struct JumpPages {
  Vector a, b, c, d;
};

// Loads four pages, of which the first `count` exist (at least one). The last that exists stands
// for the missing ones.
template <class Plan>
__device__ __forceinline__ JumpPages load_pages(const Vector* page, unsigned count,
                                                std::uint64_t stride) {
  return {Plan::load(page), Plan::load(page + min(count - 1, 1u) * stride),
          Plan::load(page + min(count - 1, 2u) * stride),
          Plan::load(page + min(count - 1, 3u) * stride)};
}

// XORs the selected pages of `count` pages into `sums`. The first page is bit `bit` of the window.
// All threads of a warp that come here have the same bit and count.
template <class Plan, unsigned Words>
__device__ __forceinline__ void scan_chosen_pages(const Vector* page, unsigned vectors, unsigned bit,
                                                  unsigned count,
                                                  const std::uint32_t (&bits)[Plan::kKeys][Words],
                                                  Vector (&sums)[Plan::kKeys]) {
  constexpr unsigned kWordBits = 32;
  constexpr std::uint32_t kChoice = (1u << kJumpPages) - 1;
  const std::uint64_t stride = vectors;
  if (count == 0) return;
  JumpPages now = load_pages<Plan>(page, count, stride);
  for (; count > 0; bit += kWordBits) {
    const std::uint32_t exists = count < kWordBits ? (1u << count) - 1 : ~0u;
    std::uint32_t selected[Plan::kKeys];
#pragma unroll
    for (int k = 0; k < Plan::kKeys; ++k) {
      selected[k] = exists & __funnelshift_r(bits[k][bit / kWordBits], bits[k][bit / kWordBits + 1],
                                             bit % kWordBits);
    }
    unsigned jumps = (min(count, kWordBits) + kJumpPages - 1) / kJumpPages;
#pragma unroll 1
    do {
      count -= min(count, kJumpPages);
      // Load the next pages before the jumps: else a warp would wait first for memory and then for
      // its jumps. After the last pages this reads one of them again.
      page += count > 0 ? kJumpPages * stride : 0;
      const JumpPages next = load_pages<Plan>(page, max(count, 1u), stride);
      Vector ab = now.a, cd = now.c;
      xor_into(ab, now.b);
      xor_into(cd, now.d);
#pragma unroll
      for (int k = 0; k < Plan::kKeys; ++k) {
        add_chosen(sums[k], selected[k] & kChoice, now.a, now.b, ab, now.c, now.d, cd);
        selected[k] >>= kJumpPages;
      }
      now = next;
    } while (--jumps > 0);
  }
}

}  // namespace
}  // namespace morphogen
