// This file is compiled once per instruction set, with that set's compiler flags, MORPHOGEN_ISA (an
// identifier) and MORPHOGEN_ISA_NAME (its public name). Only the table at the end has external
// linkage, and no template of the standard library is used: the linker must not find a function
// here that other code could call on a machine without the instruction set.
#include "host_kernels.h"

#include <new>
#include <type_traits>

#include "dpf_expand.h"
#include "scan_plan.h"

namespace morphogen {
namespace {

void expand(const std::uint8_t* key, std::uint64_t first_leaf, std::uint64_t count,
            std::uint8_t* out) {
  NodeLevel nodes;
  Path path(key);
  expand_leaves(key, first_leaf, count, path, nodes,
                [out](std::uint64_t leaf, const std::uint32_t* words) {
                  store_leaf(out + leaf * kLeafBytes, words);
                });
}

std::size_t scratch_bytes(const ScanJob& job) { return Plan(job).scratch_bytes(); }

// Tiles of more pages save trips to the sums, which pays with many keys. Tiles of fewer pages read
// closer to memory order, which pays with few keys.
constexpr std::size_t kFewKeys = 8;
constexpr std::size_t kManyKeys = 48;

template <int Bytes, class Prefetcher>
void scan_with_masks(const PageRun& run) {
  if (run.key_count <= kOneQueryKeys)
    scan_run<MaskMethod<Bytes, kOneQueryKeys>, Prefetcher>(run);
  else
    scan_run<MaskMethod<Bytes, kTwoQueryKeys>, Prefetcher>(run);
}

template <int Bytes, class Prefetcher>
void scan_with_tables(const PageRun& run) {
  if (run.key_count <= kFewKeys)
    scan_run<TableMethod<Bytes, 1>, Prefetcher>(run);
  else
    scan_run<TableMethod<Bytes, 4>, Prefetcher>(run);
}

#if defined(__AVX512BW__) && defined(__GFNI__)
template <class Prefetcher>
void scan_with_gfni(const PageRun& run) {
  if (run.layout == Layout::streams) {
    switch (gfni_line_pages(run.columns->page_size)) {
      case 1:
        return scan_streams<GfniMethod<2, 1>>(run);
      case 2:
        return scan_streams<GfniMethod<2, 2>>(run);
      default:
        return scan_streams<GfniMethod<2, 4>>(run);
    }
  }
  if (run.key_count <= kFewKeys) return scan_run<GfniMethod<1>, Prefetcher>(run);
  // 32 rows of wide pages would share too few cache sets.
  const bool many = run.key_count > kManyKeys && run.columns->page_size < kWidePageBytes;
  if (!std::is_same<Prefetcher, FarPrefetcher>::value && many)
    return scan_run<GfniMethod<4>, Prefetcher>(run);
  scan_run<GfniMethod<2>, Prefetcher>(run);
}
#endif

template <int Bytes, class Prefetcher>
void scan_with(Method method, const PageRun& run) {
  switch (method) {
    case Method::buckets:
      if constexpr (Bytes >= kMinBucketBytes) BucketScan<Bytes>(run).run();
      return;
    case Method::masks:
      if constexpr (Bytes >= kMinMaskBytes) scan_with_masks<Bytes, Prefetcher>(run);
      return;
    case Method::gfni:
#if defined(__AVX512BW__) && defined(__GFNI__)
      scan_with_gfni<Prefetcher>(run);
#endif
      return;
    case Method::tables:
      return scan_with_tables<Bytes, Prefetcher>(run);
  }
}

template <class Prefetcher>
void scan_pages(const Plan& plan, const PageRun& run) {
  switch (plan.columns.bytes) {
    case 64:
      return scan_with<64, Prefetcher>(plan.method, run);
    case 32:
      return scan_with<32, Prefetcher>(plan.method, run);
    case 16:
      return scan_with<16, Prefetcher>(plan.method, run);
    case 8:
      return scan_with<8, Prefetcher>(plan.method, run);
    case 4:
      return scan_with<4, Prefetcher>(plan.method, run);
    case 2:
      return scan_with<2, Prefetcher>(plan.method, run);
    default:
      return scan_with<1, Prefetcher>(plan.method, run);
  }
}

// Returns the selection row of the page at an offset from the first leaf. It moves the page's bits
// to the place where a run of one page has them.
std::uint8_t* select_single(Layout layout, std::uint8_t* selection, std::size_t stride,
                            std::size_t offset) {
  if (layout == Layout::patterns) {
    // Each page has a byte of its own, and a run of one page reads no other.
    return selection + offset;
  }
  std::uint8_t* row;
  std::size_t bit;
  if (layout == Layout::streams) {
    const std::size_t in_leaf = offset % kLeafBits;
    row = selection + (offset / kLeafBits * kLeafRows + in_leaf % kStreamPages) * stride;
    bit = in_leaf / kStreamPages;
  } else {
    row = selection + offset / kOctet * stride;
    bit = offset % kOctet;
  }
  for (std::size_t key = 0; key < stride; ++key)
    row[key] = static_cast<std::uint8_t>(row[key] >> bit);
  return row;
}

void scan(const ScanJob& job, std::uint64_t first, std::uint64_t last, std::uint8_t* scratch) {
  const Plan plan(job);
  const std::size_t stride = plan.key_stride;
  std::uint8_t* selection = scratch + plan.selection_offset();
  std::uint8_t* staging = scratch + plan.staging_offset();
  NodeLevel& nodes = *reinterpret_cast<NodeLevel*>(scratch + plan.nodes_offset());
  Path* paths = reinterpret_cast<Path*>(scratch + plan.paths_offset());
  for (std::size_t key = 0; key < job.key_count; ++key)
    new (paths + key) Path(job.keys + key * job.key_bytes);
  std::memset(scratch, 0, plan.sum_bytes());

  PageRun run;
  run.layout = plan.layout;
  run.key_count = job.key_count;
  run.key_stride = stride;
  run.columns = &plan.columns;
  run.strip_columns = plan.strip_columns;
  run.sums = scratch;
  run.sum_stride = plan.sum_stride;
  run.buckets = scratch + plan.buckets_offset();
  const auto scan_run = [&] {
    if (job.read_order == ReadOrder::memory)
      scan_pages<FarPrefetcher>(plan, run);
    else if (plan.columns.bytes == kCacheLine && job.page_size < kWidePageBytes)
      scan_with<kCacheLine, RowPrefetcher>(plan.method, run);
    else
      scan_pages<NoPrefetcher>(plan, run);
  };

  const std::uint64_t body_pages = job.page_count - (job.tail != nullptr);
  const std::uint64_t batch_pages = plan.batch_leaves() * kLeafBits;
  for (std::uint64_t page = first; page < last;) {
    // Batches start at multiples of batch_leaves, so each batch is one subtree.
    const std::uint64_t batch = page / batch_pages * batch_pages;
    const std::uint64_t stop = batch + batch_pages < last ? batch + batch_pages : last;
    const std::uint64_t first_leaf = page / kLeafBits;
    const std::uint64_t leaves = (stop - 1) / kLeafBits + 1 - first_leaf;
    expand_selection(job.keys, job.key_bytes, job.key_count, first_leaf,
                     static_cast<std::size_t>(leaves), plan.layout, stride, paths, nodes, staging,
                     selection);
    const std::uint64_t body_stop = stop < body_pages ? stop : body_pages;
    if (page < body_stop) {
      run.pages = job.body + page * job.page_size;
      run.page_count = body_stop - page;
      run.selection = selection + (page - first_leaf * kLeafBits) / kOctet * stride;
      scan_run();
    }
    if (stop > body_pages) {
      run.pages = job.tail;
      run.page_count = 1;
      run.selection = select_single(plan.layout, selection, stride,
                                    static_cast<std::size_t>(body_pages - first_leaf * kLeafBits));
      scan_run();
    }
    page = stop;
  }
}

void finish(const ScanJob& job, std::uint8_t* const* scratch, std::size_t scratch_count,
            std::uint8_t* out) {
  const Plan plan(job);
  const std::size_t sum_bytes = plan.sum_bytes();
  std::uint8_t* total = scratch[0];
  typedef Column<64> Line;  // sums fill whole, aligned lines
  for (std::size_t i = 1; i < scratch_count; ++i)
    for (std::size_t at = 0; at < sum_bytes; at += Line::kBytes)
      (Line::load(total + at) ^ Line::load(scratch[i] + at)).store(total + at);

#if defined(__AVX512BW__) && defined(__GFNI__)
  if (plan.method == Method::gfni) {
    gather_sums(total, plan.columns, job.key_count, plan.sum_stride, out);
    return;
  }
#endif
  const std::size_t bytes = plan.columns.bytes;
  for (std::size_t column = 0; column < plan.columns.count; ++column) {
    const std::uint8_t* from = total + column * plan.sum_stride * bytes;
    std::uint8_t* to = out + plan.columns.offset(column);
    for (std::size_t key = 0; key < job.key_count; ++key)
      std::memcpy(to + key * job.page_size, from + key * bytes, bytes);
  }
}

std::uint64_t read(const std::uint8_t* data, std::size_t bytes) {
  constexpr std::size_t kLines = 4;  // independent sums: no addition waits for another
  typedef Column<64> Line;
  Line sums[kLines] = {};
  std::uint64_t total = 0;
  std::size_t at = 0;
  // Read single words up to a cache line, so that no later load crosses one. If the words
  // themselves cross lines, there is nothing to gain.
  const auto start = reinterpret_cast<std::uintptr_t>(data);
  const std::size_t head = start % sizeof total == 0 ? (0 - start) % kCacheLine : 0;
  for (; at < head && at + sizeof total <= bytes; at += sizeof total) {
    std::uint64_t word;
    std::memcpy(&word, data + at, sizeof word);
    total ^= word;
  }
  for (; at + kLines * Line::kBytes <= bytes; at += kLines * Line::kBytes)
    for (std::size_t i = 0; i < kLines; ++i)
      sums[i] = sums[i] ^ Line::load(data + at + i * Line::kBytes);
  const Line sum = sums[0] ^ sums[1] ^ sums[2] ^ sums[3];
  std::uint64_t words[Line::kBytes / 8];
  sum.store(reinterpret_cast<std::uint8_t*>(words));
  for (std::uint64_t word : words) total ^= word;
  for (; at < bytes; at += sizeof total) {
    std::uint64_t word = 0;
    const std::size_t left = bytes - at;
    std::memcpy(&word, data + at, left < sizeof word ? left : sizeof word);
    total ^= word;
  }
  return total;
}

}  // namespace

extern const HostKernels MORPHOGEN_ISA;
const HostKernels MORPHOGEN_ISA = {MORPHOGEN_ISA_NAME, expand, scratch_bytes, scan, finish, read};

}  // namespace morphogen
