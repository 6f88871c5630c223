// The page kernels. A GPU runs one launch for each chunk of queries: see page_kernel.h.
#include "page_kernel.h"
#include "page_stream.h"

namespace morphogen {

// MORPHOGEN_SCAN is a macro because the driver finds a kernel by its name, and a name with a
// template argument is mangled.
#define MORPHOGEN_SCAN(KEYS)                                                \
  extern "C" __global__ void __launch_bounds__(kThreads<Scan<KEYS>>, 1)           \
      morphogen_scan_##KEYS(const __grid_constant__ ChunkJob job,           \
                            const __grid_constant__ ChunkKeys<KEYS> keys) { \
    scan<Scan<KEYS>>(job, keys);                                                  \
  }
MORPHOGEN_SCAN(1)
MORPHOGEN_SCAN(2)
MORPHOGEN_SCAN(3)
MORPHOGEN_SCAN(4)
MORPHOGEN_SCAN(5)
MORPHOGEN_SCAN(6)
MORPHOGEN_SCAN(12)
MORPHOGEN_SCAN(24)
#undef MORPHOGEN_SCAN

extern "C" __global__ void __launch_bounds__(kBlockThreads, 2)
    morphogen_read(const __grid_constant__ ReadJob job) {
  read(job);
}

extern "C" __global__ void __launch_bounds__(kBlockThreads, 1)
    morphogen_fill(const __grid_constant__ FillJob job) {
  fill(job);
}

}  // namespace morphogen
