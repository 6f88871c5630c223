// The page kernels: what a GPU runs for one chunk of queries, in one launch.
//
// A launch cuts the table into column tiles of up to 256 vectors (16 bytes each) and every tile's
// pages into runs; a block answers one run of one tile. It walks the keys' trees to the leaves that
// its pages need, XORs the selected pages, and adds its sums to the accumulators in device memory.
// The last block of a tile to finish moves the accumulators to the answer, which is the host's
// memory, and leaves them zero for the next launch.
//
// The tree is that of dpf.h, the same code that the host runs.
#include "dpf.h"
#include "page_jobs.h"
#include "page_stream.h"

namespace morphogen {
namespace {

constexpr unsigned kWarps = kBlockThreads / kWarpThreads;

// Leaves expanded at a time. With 6 keys that makes 120 walks: a warp for each of the four
// schedulers of a multiprocessor, so that none does two in a row.
constexpr unsigned kWindowLeaves = 20;
constexpr unsigned kWindowWords = kWindowLeaves * kLeafWords;

// While the first leaves are walked to, each block fetches these many bytes of its pages into the
// second-level cache: 35 MB on 132 multiprocessors, what memory delivers in that time.
constexpr unsigned kPrefetchBytes = 256 * 1024;
constexpr unsigned kCacheLineBytes = 128;

__device__ __forceinline__ void xor_selected(Vector& sum, const Vector& page, std::uint32_t mask) {
  sum.x ^= page.x & mask;
  sum.y ^= page.y & mask;
  sum.z ^= page.z & mask;
  sum.w ^= page.w & mask;
}

// All ones where bit `position` of `bits` is set.
__device__ __forceinline__ std::uint32_t bit_mask(std::uint32_t bits, unsigned position) {
  return 0u - ((bits >> position) & 1u);
}

__device__ __forceinline__ void prefetch(const void* address) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(address));
}

// The part of the table that a block answers for.
struct BlockRange {
  unsigned tile;
  unsigned first_vector;     // of the page
  unsigned width;            // vectors
  std::uint64_t begin, end;  // pages
};

__device__ __forceinline__ BlockRange block_range(const ChunkJob& job) {
  BlockRange range;
  range.tile = blockIdx.x % job.tiles;
  range.first_vector = range.tile * job.tile_vectors;
  range.width = min(job.tile_vectors, job.vectors - range.first_vector);
  const unsigned run = blockIdx.x / job.tiles;
  range.begin = job.pages_per_run * run + min(run, job.longer_runs);
  range.end = range.begin + job.pages_per_run + (run < job.longer_runs);
  return range;
}

// The tile's part of a page.
__device__ __forceinline__ const Vector* tile_of(const ChunkJob& job, const BlockRange& range,
                                                 std::uint64_t page) {
  return static_cast<const Vector*>(job.pages) + page * job.vectors + range.first_vector;
}

// Where a thread stands in a block. Where a page is at least a warp wide, whole warps share a page.
// Narrower pages lie side by side in a warp.
struct Place {
  unsigned column;  // vector of the tile
  unsigned row;     // which of the pages that the block reads at the same time
  unsigned rows;    // how many those are
  bool active;      // whether this thread has a column
};

__device__ __forceinline__ bool is_narrow(unsigned width) { return width < kWarpThreads; }

__device__ __forceinline__ Place place_in(unsigned width, unsigned thread) {
  const unsigned warp = thread / kWarpThreads, lane = thread % kWarpThreads;
  Place place;
  if (is_narrow(width)) {
    const unsigned pages = kWarpThreads / width;  // of a warp
    place.rows = kWarps * pages;
    place.row = warp * pages + lane / width;
    place.column = lane % width;
    place.active = lane / width < pages;
  } else {
    const unsigned warps = (width + kWarpThreads - 1) / kWarpThreads;  // of a page
    place.rows = kWarps / warps;
    place.row = warp / warps;
    place.column = warp % warps * kWarpThreads + lane;
    place.active = place.row < place.rows && place.column < width;
  }
  return place;
}

// The thread's index, read anew: what is derived from it then need not wait in registers, which the
// walk needs, until the scan.
__device__ __forceinline__ unsigned read_thread_index() {
  unsigned index;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(index));
  return index;
}

// Pages that are expanded at a time, and scanned.
struct Window {
  std::uint64_t first_leaf, begin, end;

  __device__ __forceinline__ Window(std::uint64_t begin, std::uint64_t last)
      : first_leaf(begin >> kLeafLogBits), begin(begin),
        end(min(last, (first_leaf + kWindowLeaves) << kLeafLogBits)) {}

  __device__ __forceinline__ unsigned pages() const { return static_cast<unsigned>(end - begin); }

  __device__ __forceinline__ unsigned leaves() const {
    return static_cast<unsigned>(((end - 1) >> kLeafLogBits) - first_leaf) + 1;
  }

  // The first page of a row's contiguous share, counted from begin.
  __device__ __forceinline__ unsigned row_start(unsigned row, unsigned rows) const {
    return pages() * row / rows;
  }
};

// Selection bits of the leaves first_leaf.. of each key: one walk from the root a thread, of all
// leaves at once. A window costs its depth in blocks of the PRG however many leaves it has.
template <int Keys>
__device__ __forceinline__ void expand_window(const std::uint8_t* keys, unsigned key_bytes,
                                              std::uint64_t first_leaf, unsigned leaves,
                                              std::uint32_t (&bits)[Keys][kWindowWords + 1]) {
  for (unsigned walk = threadIdx.x; walk < Keys * leaves; walk += kBlockThreads) {
    unsigned index = walk % Keys;
    const unsigned leaf = walk / Keys;
    // Opaque: with one key the compiler would else keep the key's words in registers, and spill.
    asm("" : "+r"(index));
    const std::uint8_t* key = keys + index * key_bytes;
    const int depth = tree_depth(key[kLogPagesOffset]);
    const Node<std::uint32_t> node = descend(root_node(key), key, 0, depth, first_leaf + leaf);
    std::uint32_t block[kLeafWords];
    expand_leaf(node, key, depth, block);
    for (int i = 0; i < kLeafWords; ++i) bits[index][leaf * kLeafWords + i] = block[i];
  }
  // A group of 32 pages may begin within a word and so read one beyond the last.
  if (threadIdx.x < Keys) bits[threadIdx.x][leaves * kLeafWords] = 0;
}

// The mask of a byte's top bit: all ones where it is set. PRMT copies that bit over four bytes, one
// instruction for what shifting and negating would need three.
template <unsigned Byte>
__device__ __forceinline__ std::uint32_t top_bit_mask(std::uint32_t word) {
  constexpr unsigned kCopyTopBit = 8;  // in a selector's nibble, beside the number of the byte
  std::uint32_t mask;
  // Not __byte_perm: that clears this bit of the selector.
  asm("prmt.b32 %0, %1, 0, %2;" : "=r"(mask) : "r"(word), "n"(0x1111 * (kCopyTopBit | Byte)));
  return mask;
}

constexpr unsigned kGroupPages = 32;  // what a word selects

// XORs the selected pages of a group into `sums`. A step takes the pages whose bits are at the top
// of the words' four bytes: they are 8 pages apart, and the next step's are one before them.
template <int Keys, bool Whole>
__device__ __forceinline__ void scan_group(const Vector* page, std::uint64_t vectors,
                                           unsigned count, std::uint32_t (&selected)[Keys],
                                           Vector (&sums)[Keys]) {
  constexpr int kSteps = kGroupPages / 4;
#pragma unroll 1
  for (int step = kSteps - 1; step >= 0; --step) {
    const Vector* first = page + static_cast<unsigned>(step) * vectors;
    Vector loaded[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const bool exists = Whole || static_cast<unsigned>(step + i * kSteps) < count;
      loaded[i] = exists ? load_once(first + i * kSteps * vectors) : Vector{0, 0, 0, 0};
    }
#pragma unroll
    for (int k = 0; k < Keys; ++k) {
      xor_selected(sums[k], loaded[0], top_bit_mask<0>(selected[k]));
      xor_selected(sums[k], loaded[1], top_bit_mask<1>(selected[k]));
      xor_selected(sums[k], loaded[2], top_bit_mask<2>(selected[k]));
      xor_selected(sums[k], loaded[3], top_bit_mask<3>(selected[k]));
      selected[k] <<= 1;
    }
  }
}

// XORs the selected ones of `count` pages, the first of which is bit `bit` of the window.
template <int Keys>
__device__ __forceinline__ void scan_pages(const Vector* page, unsigned vectors, unsigned bit,
                                           unsigned count,
                                           const std::uint32_t (&bits)[Keys][kWindowWords + 1],
                                           Vector (&sums)[Keys]) {
  while (count > 0) {
    std::uint32_t selected[Keys];
    for (int k = 0; k < Keys; ++k) {
      selected[k] = __funnelshift_r(bits[k][bit / 32], bits[k][bit / 32 + 1], bit % 32);
    }
    if (count < kGroupPages) {
      scan_group<Keys, false>(page, vectors, count, selected, sums);
      break;
    }
    scan_group<Keys, true>(page, vectors, count, selected, sums);
    page += std::uint64_t{kGroupPages} * vectors;
    bit += kGroupPages;
    count -= kGroupPages;
  }
}

// The same for pages narrower than a warp: every thread looks its own page's bits up.
template <int Keys>
__device__ __forceinline__ void scan_narrow_pages(
    const Vector* page, unsigned vectors, unsigned bit, unsigned count, const Place& place,
    const std::uint32_t (&bits)[Keys][kWindowWords + 1], Vector (&sums)[Keys]) {
#pragma unroll 2  // loads in flight
  for (unsigned at = place.row; at < count; at += place.rows) {
    const Vector loaded = load_once(page + std::uint64_t{at} * vectors);
    const unsigned position = bit + at;
#pragma unroll
    for (int k = 0; k < Keys; ++k) {
      xor_selected(sums[k], loaded, bit_mask(bits[k][position / 32], position % 32));
    }
  }
}

// Adds up the pages that lie side by side in a warp, into those of its first page.
template <int Keys>
__device__ __forceinline__ void fold_warp(unsigned width, unsigned lane, Vector (&own)[Keys]) {
  for (unsigned pages = kWarpThreads / width; pages > 1;) {
    const unsigned half = (pages + 1) / 2;
    const bool takes = lane / width + half < pages;
#pragma unroll
    for (int k = 0; k < Keys; ++k) {
      const Vector other = {__shfl_down_sync(kAllLanes, own[k].x, half * width),
                            __shfl_down_sync(kAllLanes, own[k].y, half * width),
                            __shfl_down_sync(kAllLanes, own[k].z, half * width),
                            __shfl_down_sync(kAllLanes, own[k].w, half * width)};
      if (takes) xor_into(own[k], other);
    }
    pages = half;
  }
}

// Adds every thread's own sums to the block's, one row of warps after the other.
template <int Keys>
__device__ __forceinline__ void add_in_turns(unsigned width, Vector (&own)[Keys],
                                             Vector (&sums)[Keys][kTileVectors]) {
  const unsigned thread = read_thread_index();
  const Place place = place_in(width, thread);
  unsigned turns = place.rows, turn = place.row;
  bool adds = place.active;
  if (is_narrow(width)) {
    fold_warp<Keys>(width, thread % kWarpThreads, own);
    turns = kWarps;
    turn = thread / kWarpThreads;
    adds = thread % kWarpThreads < width;
  }
#pragma unroll 1
  for (unsigned now = 0; now < turns; ++now) {
    if (adds && turn == now) {
      for (int k = 0; k < Keys; ++k) xor_into(sums[k][place.column], own[k]);
    }
    __syncthreads();
  }
}

__device__ __forceinline__ void prefetch_first_pages(const ChunkJob& job, const BlockRange& range) {
  const Place place = place_in(range.width, threadIdx.x);
  if (!place.active || is_narrow(range.width)) return;
  if (place.column % (kCacheLineBytes / kVectorBytes) != 0) return;
  const Window window(range.begin, range.end);
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

template <int Keys>
__device__ __forceinline__ void scan(const ChunkJob& job, const ChunkKeys<Keys>& chunk) {
  __shared__ Vector sums[Keys][kTileVectors];
  __shared__ std::uint32_t bits[Keys][kWindowWords + 1];
  __shared__ alignas(16) std::uint8_t keys[Keys * kMaxKeyBytes];
  __shared__ bool is_last;

  Vector* const accumulators = static_cast<Vector*>(job.accumulators);
  Vector* const answers = static_cast<Vector*>(job.answers);
  const BlockRange range = block_range(job);
  prefetch_first_pages(job, range);

#pragma unroll 1
  for (unsigned i = threadIdx.x; i < Keys * job.key_bytes / kVectorBytes; i += kBlockThreads) {
    reinterpret_cast<Vector*>(keys)[i] = reinterpret_cast<const Vector*>(chunk.bytes)[i];
  }
#pragma unroll 1
  for (unsigned i = threadIdx.x; i < Keys * kTileVectors; i += kBlockThreads) {
    sums[i / kTileVectors][i % kTileVectors] = Vector{0, 0, 0, 0};
  }
  __syncthreads();

  for (std::uint64_t next = range.begin; next < range.end;) {
    const Window window(next, range.end);
    next = window.end;
    expand_window<Keys>(keys, job.key_bytes, window.first_leaf, window.leaves(), bits);
    __syncthreads();

    // The sums live in registers for one window only: the walk needs the registers.
    Vector own[Keys] = {};
    const Place place = place_in(range.width, read_thread_index());
    if (place.active) {
      const unsigned bit = static_cast<unsigned>(window.begin) & (kLeafBits - 1);
      const Vector* column = tile_of(job, range, window.begin) + place.column;
      if (is_narrow(range.width)) {
        scan_narrow_pages<Keys>(column, job.vectors, bit, window.pages(), place, bits, own);
      } else {
        const unsigned first = window.row_start(place.row, place.rows);
        const unsigned last = window.row_start(place.row + 1, place.rows);
        scan_pages<Keys>(column + std::uint64_t{first} * job.vectors, job.vectors, bit + first,
                         last - first, bits, own);
      }
    }
    add_in_turns<Keys>(range.width, own, sums);
  }

#pragma unroll 1
  for (unsigned i = threadIdx.x; i < Keys * range.width; i += kBlockThreads) {
    const unsigned k = i / range.width, column = i % range.width;
    const Vector sum = sums[k][column];
    Word64* to = reinterpret_cast<Word64*>(accumulators + std::uint64_t{k} * job.vectors +
                                           range.first_vector + column);
    atomicXor(to, Word64{sum.y} << 32 | sum.x);
    atomicXor(to + 1, Word64{sum.w} << 32 | sum.z);
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    // After the barrier, so that they cover the whole block's sums: one releases them, the other
    // acquires all other blocks'.
    __threadfence();
    is_last = atomicAdd(&job.finished[range.tile], 1u) == job.runs - 1;
    __threadfence();
  }
  __syncthreads();
  if (!is_last) return;

#pragma unroll 1
  for (unsigned i = threadIdx.x; i < Keys * range.width; i += kBlockThreads) {
    const std::uint64_t at = std::uint64_t{i / range.width} * job.vectors + range.first_vector +
                             i % range.width;
    answers[at] = __ldcg(accumulators + at);
    accumulators[at] = Vector{0, 0, 0, 0};
  }
  if (threadIdx.x == 0) job.finished[range.tile] = 0;
}

}  // namespace

// A macro, since a kernel's name must have no template argument for the driver to find it by.
#define MORPHOGEN_SCAN(KEYS)                                                \
  extern "C" __global__ void __launch_bounds__(kBlockThreads, 1)            \
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
