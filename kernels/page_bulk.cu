// Variants of the page kernels by the bulk copies of compute capability 9.0: see page_variants.cu.
#include "page_kernel.h"

namespace morphogen {
namespace {

// One instruction prefetches the pages that the default prefetches by one for each cache line.
template <int Keys>
struct BulkPrefetch : Scan<Keys> {
  static constexpr bool kPrefetchesBulk = true;
};

}  // namespace

// See MORPHOGEN_SCAN.
#define MORPHOGEN_VARIANT(KEYS, NAME, PLAN)                                            \
  extern "C" __global__ void __launch_bounds__(kThreads<PLAN<KEYS>>, PLAN<KEYS>::kBlocks) \
      morphogen_scan_##KEYS##_##NAME(const __grid_constant__ ChunkJob job,             \
                                     const __grid_constant__ ChunkKeys<KEYS> keys) {   \
    scan<PLAN<KEYS>>(job, keys);                                                       \
  }
MORPHOGEN_VARIANT(6, bulk_prefetch, BulkPrefetch)
#undef MORPHOGEN_VARIANT

}  // namespace morphogen
