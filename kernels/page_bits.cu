// The kernels for wide chunks, which count on binary tensor cores: native on devices of compute
// capability 8 and 9. bit_jobs.h says how their pages lie.
//
// A chunk takes two launches. The first expands every key once, since a page is cut into so many
// tiles that their blocks must not all walk the trees. The second is a grid of tiles x runs blocks:
// each counts over one run of groups for one tile, adds the parities to the accumulators in device
// memory, and the last block of a tile moves them to the answer in host memory.
#include "bit_jobs.h"
#include "bit_layout.h"
#include "bit_scan.h"
#include "dpf.h"

namespace morphogen {
namespace {

// Writes the selection bits of one key. Each thread walks to a node, and from there to each of the
// leaves below it that are on the device.
__device__ __forceinline__ void expand(const ExpandJob& job) {
  __shared__ alignas(16) std::uint8_t key[kMaxKeyBytes];
  const unsigned index = blockIdx.x / job.key_blocks, part = blockIdx.x % job.key_blocks;
  const auto* const source = static_cast<const Vector*>(job.packed_keys) + index * (job.key_bytes / kVectorBytes);
  for (unsigned i = threadIdx.x; i < job.key_bytes / kVectorBytes; i += kExpandThreads) {
    reinterpret_cast<Vector*>(key)[i] = source[i];
  }
  __syncthreads();
  const int depth = tree_depth(key[kLogPagesOffset]);
  const int level = depth - static_cast<int>(job.log_leaves);
  const std::uint64_t end = job.first_leaf + job.leaves;
  const std::uint64_t target =
      (job.first_leaf >> job.log_leaves) + std::uint64_t{part} * kExpandThreads + threadIdx.x;
  std::uint64_t leaf = target << job.log_leaves;
  if (leaf >= end) return;
  const Node<std::uint32_t> top = descend(root_node(key), key, 0, level, target);
  auto* const selection = static_cast<Vector*>(job.selection);
  const std::uint64_t stop = min(end, leaf + (std::uint64_t{1} << job.log_leaves));
#pragma unroll 1
  for (leaf = max(leaf, job.first_leaf); leaf < stop; ++leaf) {
    const Node<std::uint32_t> node = descend(top, key, level, depth, leaf);
    std::uint32_t block[kLeafWords];
    expand_leaf(node, key, depth, block);
    const std::uint64_t group = (leaf - job.first_leaf) * kLeafGroups;
#pragma unroll
    for (unsigned i = 0; i < kLeafBytes / kVectorBytes; ++i) {
      constexpr unsigned kGroupVectors = kGroupBytes / kVectorBytes;
      const Vector bits = {block[4 * i], block[4 * i + 1], block[4 * i + 2], block[4 * i + 3]};
      selection[((group + i / kGroupVectors) * job.key_slots + index) * kGroupVectors +
                i % kGroupVectors] = bits;
    }
  }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(kTransposeThreads)
    morphogen_transpose(const __grid_constant__ TransposeJob job) {
  transpose(job);
}

extern "C" __global__ void __launch_bounds__(kExpandThreads)
    morphogen_expand(const __grid_constant__ ExpandJob job) {
  expand(job);
}

// A macro because the driver finds a kernel by its name, and a name with a template argument is
// mangled.
#define MORPHOGEN_BITS(KEYS)                                         \
  extern "C" __global__ void __launch_bounds__(kBitThreads<KEYS>, 1) \
      morphogen_bits_##KEYS(const __grid_constant__ BitJob job) {    \
    scan_bits<KEYS>(job);                                            \
  }
MORPHOGEN_BITS(24)
MORPHOGEN_BITS(48)
MORPHOGEN_BITS(96)
#undef MORPHOGEN_BITS

}  // namespace morphogen
