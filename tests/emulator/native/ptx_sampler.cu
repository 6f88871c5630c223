// A kernel with many kinds of instruction as the compiler makes them, for the PTX emulator.
#include <cstdint>

namespace {

struct Job {
  std::uint8_t bytes[3600];
  const uint4* numbers;
};

__constant__ std::uint32_t table[5] = {3, 1, 4, 1, 5};
extern __shared__ std::uint32_t threads[];

__device__ __noinline__ std::uint32_t scale(std::uint32_t a, std::uint64_t b) {
  return a * static_cast<std::uint32_t>(b >> 7);
}

}  // namespace

// The last block to finish XORs the values of all threads of the grid.
__global__ void __launch_bounds__(256, 2)
    sample(const __grid_constant__ Job job, std::uint32_t* out, std::uint32_t* total,
           unsigned* finished) {
  __shared__ uint4 tile[256];
  __shared__ std::uint32_t sums[8];
  __shared__ bool is_last;
  const unsigned thread = threadIdx.x;
  const unsigned i = thread + blockIdx.x * blockDim.x;
  tile[thread] = __ldcs(job.numbers + i);
  threads[thread] = thread;
  __syncthreads();

  const uint4 n = tile[(thread + 1) & 255];
  std::uint32_t value = job.bytes[n.x % 3600] + scale(table[n.z % 5], n.y);
  const std::uint64_t xy = std::uint64_t{n.y} << 32 | n.x, zw = std::uint64_t{n.w} << 32 | n.z;
  switch (n.w % 8) {
    case 0: value *= 3; break;
    case 1: value += threads[thread ^ 0]; break;
    case 2: value = __funnelshift_l(n.y, n.x, n.z); break;
    case 3: value = __brev(n.x); break;
    case 4: value = __popc(n.x) * 100 + __clz(n.y); break;
    case 5: value = n.x / (n.y | 1) + n.z % (n.w | 1); break;
    case 6: value = __umulhi(n.x, n.y); break;
    default: value = static_cast<std::uint32_t>(xy % (zw | 1));
  }
  out[i] = value;

  for (int step = 16; step > 0; step /= 2) value ^= __shfl_xor_sync(0xffffffffu, value, step);
  if (thread % 32 == 0) sums[thread / 32] = value;
  __syncthreads();
  if (thread == 0) {
    std::uint32_t sum = 0;
    for (int warp = 0; warp < 8; ++warp) sum ^= sums[warp];
    atomicXor(total, sum);
    __threadfence();
    is_last = atomicAdd(finished, 1u) == gridDim.x - 1;
    if (is_last) *finished = 0;
  }
}
