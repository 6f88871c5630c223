// The page kernels. A GPU runs one launch for each chunk of queries.
//
// A launch cuts the table into column tiles of up to 256 vectors (16 bytes each) and every tile's
// pages into runs. A block answers one run of one tile. It walks the keys' trees to the leaves that
// its pages need, XORs the selected pages, and adds its sums to the accumulators in device memory.
// The last block of a tile to finish moves the accumulators to the answer in host memory, and
// leaves them zero for the next launch.
//
// The tree code is dpf.h, which the host runs too.
#include "block_range.h"
#include "chosen_sums.h"
#include "dpf.h"
#include "page_jobs.h"
#include "page_stream.h"
#include "scan_loops.h"

namespace morphogen {
namespace {

template <int Keys>
constexpr unsigned kThreads = block_shape(Keys).threads;
template <int Keys>
constexpr unsigned kWarps = kThreads<Keys> / kWarpThreads;
template <int Keys>
constexpr unsigned kMaxWidth = block_shape(Keys).tile_vectors;
template <int Keys>
constexpr unsigned kWindowLeaves = block_shape(Keys).window_leaves;
// A group of 32 pages may begin within a word, and then reads one word beyond the last.
template <int Keys>
constexpr unsigned kWindowWords = kWindowLeaves<Keys> * kLeafWords + 1;
template <int Keys>
constexpr int kFoldedKeys = block_shape(Keys).folded_keys;
// With many keys a thread keeps its sums until its run ends: it has enough registers.
template <int Keys>
constexpr bool kIsWide = Keys > kMaxChunkKeys;

// While a block walks to its first leaves, it fetches this many bytes of its pages into the
// second-level cache. On 132 multiprocessors that is 35 MB, as much as memory delivers in that
// time.
constexpr unsigned kPrefetchBytes = 256 * 1024;
constexpr unsigned kCacheLineBytes = 128;

__device__ __forceinline__ void prefetch(const void* address) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(address));
}

// Reads the thread's index anew. Values that derive from it then need not stay in registers until
// the scan: the walk needs the registers.
__device__ __forceinline__ unsigned read_thread_index() {
  unsigned index;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(index));
  return index;
}

// Writes the selection bits of `leaves` leaves of each key, from first_leaf on. Each thread makes
// one walk from the root, for all leaves at once, so a window costs its depth in blocks of the PRG
// however many leaves it has.
template <int Keys, unsigned Words>
__device__ __forceinline__ void expand_window(const std::uint8_t* keys, unsigned key_bytes,
                                              unsigned key_count, std::uint64_t first_leaf,
                                              unsigned leaves,
                                              std::uint32_t (&bits)[Keys][Words]) {
  for (unsigned walk = threadIdx.x; walk < key_count * leaves; walk += kThreads<Keys>) {
    unsigned index = walk % key_count;
    const unsigned leaf = walk / key_count;
    // Hide the index from the compiler: with one key it would keep the key's words in registers,
    // and spill.
    asm("" : "+r"(index));
    const std::uint8_t* key = keys + index * key_bytes;
    const int depth = tree_depth(key[kLogPagesOffset]);
    const Node<std::uint32_t> node = descend(root_node(key), key, 0, depth, first_leaf + leaf);
    std::uint32_t block[kLeafWords];
    expand_leaf(node, key, depth, block);
    for (int i = 0; i < kLeafWords; ++i) bits[index][leaf * kLeafWords + i] = block[i];
  }
  if (threadIdx.x < Keys) bits[threadIdx.x][leaves * kLeafWords] = 0;
}

// Adds up the pages that lie side by side in a warp, into the sums of the first page's threads.
template <int Keys, int Folded>
__device__ __forceinline__ void fold_warp(unsigned width, int first, unsigned lane,
                                          Vector (&own)[Keys]) {
  for (unsigned pages = kWarpThreads / width; pages > 1;) {
    const unsigned half = (pages + 1) / 2;
    const bool takes = lane / width + half < pages;
#pragma unroll
    for (int k = first; k < first + Folded; ++k) {
      const Vector other = {__shfl_down_sync(kAllLanes, own[k].x, half * width),
                            __shfl_down_sync(kAllLanes, own[k].y, half * width),
                            __shfl_down_sync(kAllLanes, own[k].z, half * width),
                            __shfl_down_sync(kAllLanes, own[k].w, half * width)};
      if (takes) xor_into(own[k], other);
    }
    pages = half;
  }
}

// Adds the sums of each thread's keys, from `first` on, to the block's sums, one row of warps after
// the other.
template <int Keys, int Folded = kFoldedKeys<Keys>>
__device__ __forceinline__ void add_in_turns(unsigned width, int first, Vector (&own)[Keys],
                                             Vector (&sums)[Folded][kMaxWidth<Keys>]) {
  const unsigned thread = read_thread_index();
  const Place place = place_in<kWarps<Keys>>(width, thread);
  unsigned turns = place.rows, turn = place.row;
  bool adds = place.active;
  if (is_narrow(width)) {
    fold_warp<Keys, Folded>(width, first, thread % kWarpThreads, own);
    turns = kWarps<Keys>;
    turn = thread / kWarpThreads;
    adds = thread % kWarpThreads < width;
  }
#pragma unroll 1
  for (unsigned now = 0; now < turns; ++now) {
    if (adds && turn == now) {
      for (int k = 0; k < Folded; ++k) xor_into(sums[k][place.column], own[first + k]);
    }
    __syncthreads();
  }
}

template <int Keys>
__device__ __forceinline__ void clear(Vector (&sums)[kFoldedKeys<Keys>][kMaxWidth<Keys>]) {
  constexpr unsigned kWidth = kMaxWidth<Keys>;
#pragma unroll 1
  for (unsigned i = threadIdx.x; i < kFoldedKeys<Keys> * kWidth; i += kThreads<Keys>) {
    sums[i / kWidth][i % kWidth] = Vector{0, 0, 0, 0};
  }
}

// Adds a block's sums of `count` keys to the accumulators of the keys from `first` on.
template <int Keys>
__device__ __forceinline__ void publish(const ChunkJob& job, const BlockRange& range, unsigned first,
                                        unsigned count,
                                        const Vector (&sums)[kFoldedKeys<Keys>][kMaxWidth<Keys>]) {
  Vector* const accumulators = static_cast<Vector*>(job.accumulators);
#pragma unroll 1
  for (unsigned i = threadIdx.x; i < count * range.width; i += kThreads<Keys>) {
    const unsigned k = i / range.width, column = i % range.width;
    const Vector sum = sums[k][column];
    Word64* to = reinterpret_cast<Word64*>(accumulators + std::uint64_t{first + k} * job.vectors +
                                           range.first_vector + column);
    atomicXor(to, Word64{sum.y} << 32 | sum.x);
    atomicXor(to + 1, Word64{sum.w} << 32 | sum.z);
  }
}

template <int Keys>
__device__ __forceinline__ void prefetch_first_pages(const ChunkJob& job, const BlockRange& range) {
  const Place place = place_in<kWarps<Keys>>(range.width, threadIdx.x);
  if (!place.active || is_narrow(range.width)) return;
  if (place.column % (kCacheLineBytes / kVectorBytes) != 0) return;
  const Window<kWindowLeaves<Keys>> window(range.begin, range.end);
  const unsigned first = window.row_start(place.row, place.rows);
  const unsigned last = window.row_start(place.row + 1, place.rows);
  const unsigned pages = kPrefetchBytes / kVectorBytes / (range.width * place.rows);
  const unsigned stop = min(last, first + pages);
  const Vector* column = tile_of(job, range, range.begin) + place.column;
#pragma unroll 1
  for (unsigned page = first; page < stop; ++page) {
    prefetch(column + std::uint64_t{page} * job.vectors);
  }
}

// XORs the pages of a window that the keys select into each thread's own sums.
template <int Keys>
__device__ __forceinline__ void scan_window(
    const ChunkJob& job, const BlockRange& range, const Window<kWindowLeaves<Keys>>& window,
    const std::uint32_t (&bits)[Keys][kWindowWords<Keys>], Vector (&own)[Keys]) {
  const Place place = place_in<kWarps<Keys>>(range.width, read_thread_index());
  if (!place.active) return;
  const unsigned bit = static_cast<unsigned>(window.begin) & (kLeafBits - 1);
  const Vector* column = tile_of(job, range, window.begin) + place.column;
  if (is_narrow(range.width)) {
    scan_narrow_pages<Keys>(column, job.vectors, bit, window.pages(), place, bits, own);
    return;
  }
  const unsigned first = window.row_start(place.row, place.rows);
  const unsigned last = window.row_start(place.row + 1, place.rows);
  column += std::uint64_t{first} * job.vectors;
  if constexpr (kIsWide<Keys>) {
    scan_chosen_pages<Keys>(column, job.vectors, bit + first, last - first, bits, own);
  } else {
    scan_pages<Keys>(column, job.vectors, bit + first, last - first, bits, own);
  }
}

template <int Keys>
__device__ __forceinline__ void scan(const ChunkJob& job, const ChunkKeys<Keys>& chunk) {
  __shared__ Vector sums[kFoldedKeys<Keys>][kMaxWidth<Keys>];
  __shared__ std::uint32_t bits[Keys][kWindowWords<Keys>];
  __shared__ alignas(16) std::uint8_t keys[Keys * kMaxKeyBytes];
  __shared__ bool is_last;

  const unsigned key_count = kIsWide<Keys> ? job.keys : Keys;
  const BlockRange range = block_range(job);
  prefetch_first_pages<Keys>(job, range);

#pragma unroll 1
  for (unsigned i = threadIdx.x; i < key_count * job.key_bytes / kVectorBytes;
       i += kThreads<Keys>) {
    reinterpret_cast<Vector*>(keys)[i] = reinterpret_cast<const Vector*>(chunk.bytes)[i];
  }
  if constexpr (kIsWide<Keys>) {
    // Missing keys select nothing.
#pragma unroll 1
    for (unsigned i = threadIdx.x; i < Keys * kWindowWords<Keys>; i += kThreads<Keys>) {
      bits[i / kWindowWords<Keys>][i % kWindowWords<Keys>] = 0;
    }
  } else {
    clear<Keys>(sums);
  }
  __syncthreads();

  Vector kept[Keys] = {};
  for (std::uint64_t next = range.begin; next < range.end;) {
    const Window<kWindowLeaves<Keys>> window(next, range.end);
    next = window.end;
    expand_window<Keys>(keys, job.key_bytes, key_count, job.first_leaf + window.first_leaf,
                        window.leaves(), bits);
    __syncthreads();
    if constexpr (kIsWide<Keys>) {
      scan_window<Keys>(job, range, window, bits, kept);
      __syncthreads();
    } else {
      // The sums live in registers for one window only: the walk needs the registers.
      Vector own[Keys] = {};
      scan_window<Keys>(job, range, window, bits, own);
      add_in_turns<Keys>(range.width, 0, own, sums);
    }
  }

  if constexpr (kIsWide<Keys>) {
#pragma unroll
    for (int first = 0; first < Keys; first += kFoldedKeys<Keys>) {
      const unsigned begin = static_cast<unsigned>(first);
      if (begin < key_count) {
        clear<Keys>(sums);
        __syncthreads();
        add_in_turns<Keys>(range.width, first, kept, sums);
        const unsigned count = min(key_count - begin, unsigned{kFoldedKeys<Keys>});
        publish<Keys>(job, range, begin, count, sums);
        __syncthreads();
      }
    }
  } else {
    publish<Keys>(job, range, 0, Keys, sums);
    __syncthreads();
  }
  if (threadIdx.x == 0) {
    // These fences come after the barrier, so they cover the whole block's sums. The first releases
    // them, the second acquires all other blocks' sums.
    __threadfence();
    is_last = atomicAdd(&job.finished[range.tile], 1u) == job.runs - 1;
    __threadfence();
  }
  __syncthreads();
  if (!is_last) return;

  Vector* const accumulators = static_cast<Vector*>(job.accumulators);
  Vector* const answers = static_cast<Vector*>(job.answers);
#pragma unroll 1
  for (unsigned i = threadIdx.x; i < key_count * range.width; i += kThreads<Keys>) {
    const std::uint64_t at = std::uint64_t{i / range.width} * job.vectors + range.first_vector +
                             i % range.width;
    answers[at] = __ldcg(accumulators + at);
    accumulators[at] = Vector{0, 0, 0, 0};
  }
  if (threadIdx.x == 0) job.finished[range.tile] = 0;
}

}  // namespace

// MORPHOGEN_SCAN is a macro because the driver finds a kernel by its name, and a name with a
// template argument is mangled.
#define MORPHOGEN_SCAN(KEYS)                                                \
  extern "C" __global__ void __launch_bounds__(kThreads<KEYS>, 1)           \
      morphogen_scan_##KEYS(const __grid_constant__ ChunkJob job,           \
                            const __grid_constant__ ChunkKeys<KEYS> keys) { \
    scan<KEYS>(job, keys);                                                  \
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
