// The page kernels' one template, and what its variants may do otherwise.
//
// A launch cuts the table into column tiles of up to 256 vectors (16 bytes each) and every tile's
// pages into runs. A block answers one run of one tile. It walks the keys' trees to the leaves that
// its pages need, XORs the selected pages, and adds its sums to the accumulators in device memory.
// The last block of a tile to finish moves the accumulators to the answer in host memory, and
// leaves them zero for the next launch.
//
// The tree code is dpf.h, which the host runs too.
#pragma once

#include "block_range.h"
#include "chosen_sums.h"
#include "dpf.h"
#include "page_jobs.h"
#include "page_stream.h"
#include "scan_loops.h"

namespace morphogen {
namespace {

template <class Plan>
struct Loads;

// What a kernel for up to kKeys keys does. A variant derives from this and changes a line.
template <int Keys>
struct Scan {
  static constexpr int kKeys = Keys;
  static constexpr BlockShape kShape = block_shape(Keys);
  static constexpr unsigned kBlocks = 1;  // of a multiprocessor
  // With many keys a thread keeps its sums until its run ends: it has enough registers.
  static constexpr bool kIsWide = Keys > kMaxChunkKeys;
  static constexpr bool kJumps = kIsWide;  // where fewer keys use masks
  // While a block walks to its first leaves, it fetches this many bytes of its pages into the
  // second-level cache. On 132 multiprocessors that is 35 MB, as much as memory delivers in that
  // time.
  static constexpr unsigned kPrefetchBytes = 256 * 1024;
  static constexpr bool kPrefetchesBulk = false;  // by one instruction a page, or for all pages
  static constexpr bool kReduces = false;         // adds sums by red, whole sectors at a time
  // What brings the pages to the threads: begin() before the keys are walked, scan() afterwards.
  template <class Plan>
  using Feed = Loads<Plan>;

  static __device__ __forceinline__ Vector load(const Vector* page) { return load_once(page); }
};

template <class Plan>
constexpr unsigned kThreads = Plan::kShape.threads;
template <class Plan>
constexpr unsigned kWarps = kThreads<Plan> / kWarpThreads;
template <class Plan>
constexpr unsigned kMaxWidth = Plan::kShape.tile_vectors;
template <class Plan>
constexpr unsigned kWindowLeaves = Plan::kShape.window_leaves;
// A group of 32 pages may begin within a word, and then reads one word beyond the last.
template <class Plan>
constexpr unsigned kWindowWords = kWindowLeaves<Plan> * kLeafWords + 1;
template <class Plan>
constexpr int kFoldedKeys = Plan::kShape.folded_keys;

constexpr unsigned kCacheLineBytes = 128;

__device__ __forceinline__ void prefetch(const void* address) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(address));
}

// Prefetches a multiple of 16 bytes by one instruction, on devices of compute capability 9.0.
__device__ __forceinline__ void prefetch_bulk(const void* address, unsigned bytes) {
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(address), "r"(bytes));
}

// Adds to a word of device memory, and brings nothing back. It is relaxed, as an atomic is: the
// fence before a block's count releases it.
__device__ __forceinline__ void xor_device(Word64* to, Word64 word) {
  asm volatile("red.relaxed.gpu.global.xor.b64 [%0], %1;" ::"l"(__cvta_generic_to_global(to)),
               "l"(word)
               : "memory");
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
template <class Plan, unsigned Words>
__device__ __forceinline__ void expand_window(const std::uint8_t* keys, unsigned key_bytes,
                                              unsigned key_count, std::uint64_t first_leaf,
                                              unsigned leaves,
                                              std::uint32_t (&bits)[Plan::kKeys][Words]) {
  for (unsigned walk = threadIdx.x; walk < key_count * leaves; walk += kThreads<Plan>) {
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
  if (threadIdx.x < Plan::kKeys) bits[threadIdx.x][leaves * kLeafWords] = 0;
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
template <class Plan>
__device__ __forceinline__ void add_in_turns(
    unsigned width, int first, Vector (&own)[Plan::kKeys],
    Vector (&sums)[kFoldedKeys<Plan>][kMaxWidth<Plan>]) {
  const unsigned thread = read_thread_index();
  const Place place = place_in<kWarps<Plan>>(width, thread);
  unsigned turns = place.rows, turn = place.row;
  bool adds = place.active;
  if (is_narrow(width)) {
    fold_warp<Plan::kKeys, kFoldedKeys<Plan>>(width, first, thread % kWarpThreads, own);
    turns = kWarps<Plan>;
    turn = thread / kWarpThreads;
    adds = thread % kWarpThreads < width;
  }
#pragma unroll 1
  for (unsigned now = 0; now < turns; ++now) {
    if (adds && turn == now) {
      for (int k = 0; k < kFoldedKeys<Plan>; ++k) xor_into(sums[k][place.column], own[first + k]);
    }
    __syncthreads();
  }
}

template <class Plan>
__device__ __forceinline__ void clear(Vector (&sums)[kFoldedKeys<Plan>][kMaxWidth<Plan>]) {
  constexpr unsigned kWidth = kMaxWidth<Plan>;
#pragma unroll 1
  for (unsigned i = threadIdx.x; i < kFoldedKeys<Plan> * kWidth; i += kThreads<Plan>) {
    sums[i / kWidth][i % kWidth] = Vector{0, 0, 0, 0};
  }
}

// Adds a block's sums of `count` keys to the accumulators of the keys from `first` on.
template <class Plan>
__device__ __forceinline__ void publish(const ChunkJob& job, const BlockRange& range, unsigned first,
                                        unsigned count,
                                        const Vector (&sums)[kFoldedKeys<Plan>][kMaxWidth<Plan>]) {
  Vector* const accumulators = static_cast<Vector*>(job.accumulators);
  if constexpr (Plan::kReduces) {
    // Threads side by side take words side by side, so that each sector goes out once, and whole.
    const unsigned words = range.width * (kVectorBytes / sizeof(Word64));
#pragma unroll 1
    for (unsigned i = threadIdx.x; i < count * words; i += kThreads<Plan>) {
      const unsigned k = i / words, word = i % words;
      Word64* to = reinterpret_cast<Word64*>(accumulators + std::uint64_t{first + k} * job.vectors +
                                             range.first_vector);
      xor_device(to + word, reinterpret_cast<const Word64*>(sums[k])[word]);
    }
  } else {
#pragma unroll 1
    for (unsigned i = threadIdx.x; i < count * range.width; i += kThreads<Plan>) {
      const unsigned k = i / range.width, column = i % range.width;
      const Vector sum = sums[k][column];
      Word64* to = reinterpret_cast<Word64*>(accumulators + std::uint64_t{first + k} * job.vectors +
                                             range.first_vector + column);
      atomicXor(to, Word64{sum.y} << 32 | sum.x);
      atomicXor(to + 1, Word64{sum.w} << 32 | sum.z);
    }
  }
}

template <class Plan>
__device__ __forceinline__ void prefetch_first_pages(const ChunkJob& job, const BlockRange& range) {
  const Place place = place_in<kWarps<Plan>>(range.width, threadIdx.x);
  if (!place.active || is_narrow(range.width)) return;
  constexpr unsigned kLineVectors = kCacheLineBytes / kVectorBytes;
  if (place.column % (Plan::kPrefetchesBulk ? kMaxWidth<Plan> : kLineVectors) != 0) return;
  const Window<kWindowLeaves<Plan>> window(range.begin, range.end);
  const unsigned first = window.row_start(place.row, place.rows);
  const unsigned last = window.row_start(place.row + 1, place.rows);
  const unsigned pages = Plan::kPrefetchBytes / kVectorBytes / (range.width * place.rows);
  const unsigned stop = min(last, first + pages);
  const Vector* column = tile_of(job, range, range.begin) + place.column;
  if constexpr (Plan::kPrefetchesBulk) {
    // A tile that is a whole page has its pages side by side.
    const bool joined = range.width == job.vectors;
    const unsigned pieces = joined ? min(stop - first, 1u) : stop - first;
    const unsigned bytes = (joined ? stop - first : 1) * range.width * kVectorBytes;
#pragma unroll 1
    for (unsigned i = 0; i < pieces; ++i) {
      prefetch_bulk(column + std::uint64_t{first + i} * job.vectors, bytes);
    }
  } else {
#pragma unroll 1
    for (unsigned page = first; page < stop; ++page) {
      prefetch(column + std::uint64_t{page} * job.vectors);
    }
  }
}

// XORs the pages of a window that the keys select into each thread's own sums.
template <class Plan>
__device__ __forceinline__ void scan_window(
    const ChunkJob& job, const BlockRange& range, const Window<kWindowLeaves<Plan>>& window,
    const std::uint32_t (&bits)[Plan::kKeys][kWindowWords<Plan>], Vector (&own)[Plan::kKeys]) {
  const Place place = place_in<kWarps<Plan>>(range.width, read_thread_index());
  if (!place.active) return;
  const unsigned bit = static_cast<unsigned>(window.begin) & (kLeafBits - 1);
  const Vector* column = tile_of(job, range, window.begin) + place.column;
  if (is_narrow(range.width)) {
    scan_narrow_pages<Plan>(column, job.vectors, bit, window.pages(), place, bits, own);
    return;
  }
  const unsigned first = window.row_start(place.row, place.rows);
  const unsigned last = window.row_start(place.row + 1, place.rows);
  column += std::uint64_t{first} * job.vectors;
  if constexpr (Plan::kJumps) {
    scan_chosen_pages<Plan>(column, job.vectors, bit + first, last - first, bits, own);
  } else {
    scan_pages<Plan>(column, job.vectors, bit + first, last - first, bits, own);
  }
}

// Threads load the pages from device memory, each its own.
template <class Plan>
struct Loads {
  __device__ __forceinline__ void begin(const ChunkJob& job, const BlockRange& range) {
    if constexpr (Plan::kPrefetchBytes > 0) prefetch_first_pages<Plan>(job, range);
  }
  __device__ __forceinline__ void scan(const ChunkJob& job, const BlockRange& range,
                                       const Window<kWindowLeaves<Plan>>& window,
                                       const std::uint32_t (&bits)[Plan::kKeys][kWindowWords<Plan>],
                                       Vector (&own)[Plan::kKeys]) {
    scan_window<Plan>(job, range, window, bits, own);
  }
};

template <class Plan>
__device__ __forceinline__ void scan(const ChunkJob& job, const ChunkKeys<Plan::kKeys>& chunk) {
  __shared__ Vector sums[kFoldedKeys<Plan>][kMaxWidth<Plan>];
  __shared__ std::uint32_t bits[Plan::kKeys][kWindowWords<Plan>];
  __shared__ alignas(16) std::uint8_t keys[Plan::kKeys * kMaxKeyBytes];
  __shared__ bool is_last;

  const unsigned key_count = Plan::kIsWide ? job.keys : Plan::kKeys;
  const BlockRange range = block_range(job);
  typename Plan::template Feed<Plan> feed;
  feed.begin(job, range);

#pragma unroll 1
  for (unsigned i = threadIdx.x; i < key_count * job.key_bytes / kVectorBytes;
       i += kThreads<Plan>) {
    reinterpret_cast<Vector*>(keys)[i] = reinterpret_cast<const Vector*>(chunk.bytes)[i];
  }
  if constexpr (Plan::kIsWide) {
    // Missing keys select nothing.
#pragma unroll 1
    for (unsigned i = threadIdx.x; i < Plan::kKeys * kWindowWords<Plan>; i += kThreads<Plan>) {
      bits[i / kWindowWords<Plan>][i % kWindowWords<Plan>] = 0;
    }
  } else {
    clear<Plan>(sums);
  }
  __syncthreads();

  Vector kept[Plan::kKeys] = {};
  for (std::uint64_t next = range.begin; next < range.end;) {
    const Window<kWindowLeaves<Plan>> window(next, range.end);
    next = window.end;
    expand_window<Plan>(keys, job.key_bytes, key_count, job.first_leaf + window.first_leaf,
                        window.leaves(), bits);
    __syncthreads();
    if constexpr (Plan::kIsWide) {
      feed.scan(job, range, window, bits, kept);
      __syncthreads();
    } else {
      // The sums live in registers for one window only: the walk needs the registers.
      Vector own[Plan::kKeys] = {};
      feed.scan(job, range, window, bits, own);
      add_in_turns<Plan>(range.width, 0, own, sums);
    }
  }

  if constexpr (Plan::kIsWide) {
#pragma unroll
    for (int first = 0; first < Plan::kKeys; first += kFoldedKeys<Plan>) {
      const unsigned begin = static_cast<unsigned>(first);
      if (begin < key_count) {
        clear<Plan>(sums);
        __syncthreads();
        add_in_turns<Plan>(range.width, first, kept, sums);
        const unsigned count = min(key_count - begin, unsigned{kFoldedKeys<Plan>});
        publish<Plan>(job, range, begin, count, sums);
        __syncthreads();
      }
    }
  } else {
    publish<Plan>(job, range, 0, Plan::kKeys, sums);
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
  for (unsigned i = threadIdx.x; i < key_count * range.width; i += kThreads<Plan>) {
    const std::uint64_t at = std::uint64_t{i / range.width} * job.vectors + range.first_vector +
                             i % range.width;
    answers[at] = __ldcg(accumulators + at);
    accumulators[at] = Vector{0, 0, 0, 0};
  }
  if (threadIdx.x == 0) job.finished[range.tile] = 0;
}

}  // namespace
}  // namespace morphogen

// The entry of a variant. It is a macro because the driver finds a kernel by its name, and a name
// with a template argument is mangled. It stands within the namespace.
#define MORPHOGEN_VARIANT(KEYS, NAME, PLAN)                                            \
  extern "C" __global__ void __launch_bounds__(kThreads<PLAN<KEYS>>, PLAN<KEYS>::kBlocks) \
      morphogen_scan_##KEYS##_##NAME(const __grid_constant__ ChunkJob job,             \
                                     const __grid_constant__ ChunkKeys<KEYS> keys) {   \
    scan<PLAN<KEYS>>(job, keys);                                                       \
  }
