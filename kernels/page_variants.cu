// Variants of the page kernels, among which a measurement on the device decides: `morphogen tune`.
//
// All give the same bytes. engine/cuda/variants.py says what each is for. They are compiled for the
// chunks that are measured; other chunks run the kernels of page_scan.cu.
#include "page_kernel.h"

namespace morphogen {
namespace {

// Sums go to device memory by red in whole sectors. atomicXor becomes an atomic that returns, and
// each of its two words fills half of a sector.
template <int Keys>
struct Red : Scan<Keys> {
  static constexpr bool kReduces = true;
};

// 34 MB of prefetched pages may overflow one of the two partitions of an H100's cache.
template <int Keys>
struct NoPrefetch : Scan<Keys> {
  static constexpr unsigned kPrefetchBytes = 0;
};
template <int Keys>
struct HalfPrefetch : Scan<Keys> {
  static constexpr unsigned kPrefetchBytes = 128 * 1024;
};

// Loads through the read-only path, without the hint that a line is used once.
template <int Keys>
struct Plain : Scan<Keys> {
  static __device__ __forceinline__ Vector load(const Vector* page) { return __ldg(page); }
};

// Loads that pass by the first-level cache and fetch 256 bytes into the second.
template <int Keys>
struct Stream : Scan<Keys> {
  static __device__ __forceinline__ Vector load(const Vector* page) {
    Vector loaded;
    asm volatile("ld.global.nc.L1::no_allocate.L2::256B.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(loaded.x), "=r"(loaded.y), "=r"(loaded.z), "=r"(loaded.w)
                 : "l"(__cvta_generic_to_global(page)));
    return loaded;
  }
};

// Two blocks share a multiprocessor: one scans while the other walks, waits or publishes.
template <int Keys>
struct TwoBlocks : Scan<Keys> {
  static constexpr BlockShape kShape = {kBlockThreads / 2, kTileVectors, 20, Keys};
  static constexpr unsigned kBlocks = 2;
  static constexpr unsigned kPrefetchBytes = 128 * 1024;
};

// Masks where the default has a jump: 4 LOP3 a key and page, and no branch.
template <int Keys>
struct Masks : Scan<Keys> {
  static constexpr bool kJumps = false;
};

}  // namespace

MORPHOGEN_VARIANT(3, red, Red)
MORPHOGEN_VARIANT(6, red, Red)
MORPHOGEN_VARIANT(12, red, Red)
MORPHOGEN_VARIANT(24, red, Red)
MORPHOGEN_VARIANT(6, no_prefetch, NoPrefetch)
MORPHOGEN_VARIANT(6, half_prefetch, HalfPrefetch)
MORPHOGEN_VARIANT(6, plain, Plain)
MORPHOGEN_VARIANT(12, plain, Plain)
MORPHOGEN_VARIANT(6, stream, Stream)
MORPHOGEN_VARIANT(12, stream, Stream)
MORPHOGEN_VARIANT(6, two_blocks, TwoBlocks)
MORPHOGEN_VARIANT(12, masks, Masks)

}  // namespace morphogen
