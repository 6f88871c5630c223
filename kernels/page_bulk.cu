// Variants of the page kernels by the bulk copies of compute capability 9.0: see page_variants.cu.
#include "page_copies.h"
#include "page_kernel.h"

namespace morphogen {
namespace {

// One instruction prefetches the pages that the default prefetches by one for each cache line.
template <int Keys>
struct BulkPrefetch : Scan<Keys> {
  static constexpr bool kPrefetchesBulk = true;
};

// Bulk copies bring the pages, from before the walk on. A block of 512 threads keeps its sums in
// registers, since no loads need them.
template <int Keys>
struct Tma : Scan<Keys> {
  static constexpr BlockShape kShape = Keys <= kMaxChunkKeys
                                           ? BlockShape{512, kTileVectors, 20, Keys}
                                           : block_shape(Keys);
  static constexpr bool kIsWide = true;
  static constexpr bool kReduces = true;
  template <class Plan>
  using Feed = Copies<Plan>;
};

}  // namespace

MORPHOGEN_VARIANT(6, bulk_prefetch, BulkPrefetch)
MORPHOGEN_VARIANT(3, tma, Tma)
MORPHOGEN_VARIANT(6, tma, Tma)
MORPHOGEN_VARIANT(12, tma, Tma)
MORPHOGEN_VARIANT(24, tma, Tma)

}  // namespace morphogen
