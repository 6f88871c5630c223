// Pages by bulk copies to shared memory (compute capability 9.0), which begin before the keys are
// walked and go on beside the walk and the scan.
//
// The copies go into the stages of a ring. Each stage has two mbarriers: `full` ends a phase when
// all bytes of the stage are there, `empty` when all warps are through with them. Warp 0 copies.
#pragma once

#include <cstdint>

#include "page_kernel.h"

namespace morphogen {
namespace {

constexpr unsigned kRingBytes = 160 * 1024;  // of dynamic shared memory
constexpr unsigned kQuadPages = 4;           // whose selection bits a thread takes at a time

__device__ __forceinline__ unsigned shared_address(const void* pointer) {
  return static_cast<unsigned>(__cvta_generic_to_shared(pointer));
}

struct Mbarrier {
  std::uint64_t state;

  __device__ __forceinline__ void initialize(unsigned arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(this)),
                 "r"(arrivals)
                 : "memory");
  }
  // Arrives, and adds bytes that copies will bring in this phase.
  __device__ __forceinline__ void arrive_and_expect(unsigned bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(
                     shared_address(this)),
                 "r"(bytes)
                 : "memory");
  }
  __device__ __forceinline__ void arrive() {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(this))
                 : "memory");
  }
  // Waits until the phase of this number, counted from 0, has ended.
  __device__ __forceinline__ void wait(unsigned phase) {
    unsigned ended;
    do {
      asm volatile(
          "{\n\t.reg .pred ended;\n\t"
          "mbarrier.try_wait.parity.shared::cta.b64 ended, [%1], %2;\n\t"
          "selp.u32 %0, 1, 0, ended;\n\t}"
          : "=r"(ended)
          : "r"(shared_address(this)), "r"(phase & 1)
          : "memory");
    } while (!ended);
  }
};

// Lets copies see mbarriers that this thread has initialized.
__device__ __forceinline__ void fence_for_copies() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

__device__ __forceinline__ void copy_bulk(Vector* to, const Vector* from, unsigned bytes,
                                          Mbarrier& full) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(shared_address(to)),
      "l"(__cvta_generic_to_global(from)), "r"(bytes), "r"(shared_address(&full))
      : "memory");
}

// Adds four pages to a sum under the four bits of `choice`.
__device__ __forceinline__ void add_masked(Vector& sum, std::uint32_t choice,
                                           const Vector (&pages)[kQuadPages]) {
  // Brings bit i to the top of byte i: no two of the copies overlap.
  const std::uint32_t tops = choice * 0x10204080u;
  xor_selected(sum, pages[0], top_bit_mask<0>(tops));
  xor_selected(sum, pages[1], top_bit_mask<1>(tops));
  xor_selected(sum, pages[2], top_bit_mask<2>(tops));
  xor_selected(sum, pages[3], top_bit_mask<3>(tops));
}

template <class Plan>
struct Copies {
  // With these a thread of a wide tile has one quad of each stage.
  static constexpr unsigned kStageVectors = kThreads<Plan> * kQuadPages;
  static constexpr unsigned kStages = kRingBytes / kVectorBytes / kStageVectors;

  struct Ring {
    Mbarrier full[kStages], empty[kStages];
  };

  Ring* ring;
  Vector* vectors;               // of all stages
  std::uint64_t first, end;      // pages: where stage 0 begins, and the end of the run
  std::uint64_t begin_page;      // of the run
  unsigned pages;                // of a stage: a power of two, and no more than a leaf has
  unsigned stages;               // of the run
  unsigned next;                 // the stage that is scanned next

  __device__ __forceinline__ void begin(const ChunkJob& job, const BlockRange& range) {
    __shared__ Ring shared_ring;
    extern __shared__ Vector shared_vectors[];
    ring = &shared_ring;
    vectors = shared_vectors;
    pages = min(1u << (31 - __clz(kStageVectors / range.width)), unsigned{kLeafBits});
    first = range.begin & ~std::uint64_t{pages - 1};
    begin_page = range.begin;
    end = range.end;
    stages = static_cast<unsigned>((end - first + pages - 1) / pages);
    next = 0;
    if (threadIdx.x >= kWarpThreads) return;
    if (threadIdx.x == 0) {
      for (unsigned i = 0; i < kStages; ++i) {
        ring->full[i].initialize(1);
        ring->empty[i].initialize(kWarps<Plan>);
      }
      fence_for_copies();
    }
    __syncwarp();
#pragma unroll 1
    for (unsigned stage = 0; stage < min(stages, kStages); ++stage) copy(job, range, stage);
  }

  // Copies the pages of a stage. Called by warp 0.
  __device__ __forceinline__ void copy(const ChunkJob& job, const BlockRange& range,
                                       unsigned stage) {
    const std::uint64_t start = first + std::uint64_t{stage} * pages;
    const std::uint64_t from = max(start, begin_page), to = min(start + pages, end);
    const unsigned count = static_cast<unsigned>(to - from);
    const unsigned bytes = range.width * kVectorBytes;
    Mbarrier& full = ring->full[stage % kStages];
    Vector* target = vectors + stage % kStages * kStageVectors +
                     static_cast<unsigned>(from - start) * range.width;
    const Vector* source = tile_of(job, range, from);
    if (threadIdx.x == 0) full.arrive_and_expect(count * bytes);
    __syncwarp();
    if (range.width == job.vectors) {  // the pages lie side by side
      if (threadIdx.x == 0) copy_bulk(target, source, count * bytes, full);
    } else {
#pragma unroll 1
      for (unsigned i = threadIdx.x; i < count; i += kWarpThreads) {
        copy_bulk(target + i * range.width, source + std::uint64_t{i} * job.vectors, bytes, full);
      }
    }
    __syncwarp();
  }

  __device__ __forceinline__ void scan(const ChunkJob& job, const BlockRange& range,
                                       const Window<kWindowLeaves<Plan>>& window,
                                       const std::uint32_t (&bits)[Plan::kKeys][kWindowWords<Plan>],
                                       Vector (&own)[Plan::kKeys]) {
    const unsigned thread = read_thread_index();
    const Place place = place_in<kWarps<Plan>>(range.width, thread);
    // A window ends where a leaf does, and so where a stage does, or with the run.
    const unsigned stop = static_cast<unsigned>((window.end - first + pages - 1) / pages);
#pragma unroll 1
    for (; next < stop; ++next) {
      ring->full[next % kStages].wait(next / kStages);
      if (place.active) scan_stage(window, range.width, place, bits, own);
      __syncwarp();
      if (thread % kWarpThreads == 0) ring->empty[next % kStages].arrive();
      // Fill the stage before this: other warps are through with it by now, or soon.
      if (thread < kWarpThreads && next > 0 && next - 1 + kStages < stages) {
        ring->empty[(next - 1) % kStages].wait((next - 1) / kStages);
        copy(job, range, next - 1 + kStages);
      }
    }
  }

  __device__ __forceinline__ void scan_stage(
      const Window<kWindowLeaves<Plan>>& window, unsigned width, const Place& place,
      const std::uint32_t (&bits)[Plan::kKeys][kWindowWords<Plan>], Vector (&own)[Plan::kKeys]) {
    const std::uint64_t start = first + std::uint64_t{next} * pages;
    const unsigned low = static_cast<unsigned>(max(start, begin_page) - start);
    const unsigned high = static_cast<unsigned>(min(start + pages, end) - start);
    const unsigned bit = static_cast<unsigned>(start - (window.first_leaf << kLeafLogBits));
    const Vector* const column = vectors + next % kStages * kStageVectors + place.column;
#pragma unroll 1
    for (unsigned quad = place.row * kQuadPages; quad < high; quad += place.rows * kQuadPages) {
      if (quad + kQuadPages <= low) continue;
      std::uint32_t exists = 0;
      Vector loaded[kQuadPages];
#pragma unroll
      for (unsigned i = 0; i < kQuadPages; ++i) {
        // A page that exists stands for those that do not.
        const unsigned page = min(max(quad + i, low), high - 1);
        loaded[i] = column[page * width];
        exists |= (page == quad + i ? 1u : 0u) << i;
      }
      const unsigned position = bit + quad;  // a multiple of 4: its bits lie in one word
      if (Plan::kJumps && !is_narrow(width)) {
        Vector ab = loaded[0], cd = loaded[2];
        xor_into(ab, loaded[1]);
        xor_into(cd, loaded[3]);
#pragma unroll
        for (int k = 0; k < Plan::kKeys; ++k) {
          const std::uint32_t choice = bits[k][position / 32] >> position % 32 & exists;
          add_chosen(own[k], choice, loaded[0], loaded[1], ab, loaded[2], loaded[3], cd);
        }
      } else {
#pragma unroll
        for (int k = 0; k < Plan::kKeys; ++k) {
          add_masked(own[k], bits[k][position / 32] >> position % 32 & exists, loaded);
        }
      }
    }
  }
};

}  // namespace
}  // namespace morphogen
