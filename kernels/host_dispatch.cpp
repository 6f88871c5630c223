// Lists the instruction sets that were compiled in, and tells which of them this machine can run.
#include <cstring>

#include "host_kernels.h"

namespace morphogen {

#if defined(__x86_64__)
extern const HostKernels kernels_avx512_gfni, kernels_avx512, kernels_avx2;
#endif
extern const HostKernels kernels_baseline;

const HostKernels* const* compiled_kernels() {
  static const HostKernels* const kTables[] = {
#if defined(__x86_64__)
      &kernels_avx512_gfni, &kernels_avx512, &kernels_avx2,
#endif
      &kernels_baseline, nullptr};
  return kTables;
}

bool is_supported(const HostKernels& kernels) {
#if defined(__x86_64__)
  // These builtins ask the processor and the operating system, which must save the wider registers.
  __builtin_cpu_init();
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl");
  if (&kernels == &kernels_avx512_gfni)
    return avx512 && __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("gfni");
  if (&kernels == &kernels_avx512) return avx512;
  if (&kernels == &kernels_avx2) return __builtin_cpu_supports("avx2");
#endif
  return &kernels == &kernels_baseline;
}

}  // namespace morphogen
