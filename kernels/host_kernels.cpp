// This file is compiled once per instruction set, with that set's compiler flags, MORPHOGEN_ISA (an
// identifier) and MORPHOGEN_ISA_NAME (its public name). Only the table at the end has external
// linkage, and no template of the standard library is used: the linker must not find a function
// here that other code could call on a machine without the instruction set.
#include "host_kernels.h"

#include <new>

#include "dpf_generate.h"
#include "dpf_leaves.h"
#include "scan_answers.h"
#include "scan_methods.h"

namespace morphogen {
namespace {

void expand(const std::uint8_t* key, std::uint64_t first_leaf, std::uint64_t count,
            std::uint8_t* out) {
  NodeLevel nodes;
  KeyTree tree(key);
  expand_leaves(tree, first_leaf, count, first_leaf + count, nodes, out);
}

ScanShape shape(const ScanJob& job) {
  const Plan plan(job);
  return {plan.strips, plan.scratch_bytes()};
}

// Calls `step` with the buckets of a strip, if that is the method.
template <class Step>
bool with_buckets(const Plan& plan, const PageRun& run, std::uint8_t* scratch, Step&& step) {
  if (plan.method != Method::buckets) return false;
  std::uint8_t* const buckets = scratch + plan.buckets_offset();
  BucketQueue& queue = *reinterpret_cast<BucketQueue*>(scratch + plan.queue_offset());
  switch (plan.columns.bytes) {
    case 64:
      step(BucketScan<64>(run, buckets, queue));
      break;
    case 32:
      step(BucketScan<32>(run, buckets, queue));
      break;
    default:
      step(BucketScan<16>(run, buckets, queue));
  }
  return true;
}

// Returns the selection row of the page at an offset from the first leaf. It moves the page's bits
// to the place where a run of one page has them, in `single`, with planes of one row.
const std::uint8_t* select_single(Layout layout, const std::uint8_t* selection, std::size_t stride,
                                  std::size_t plane_bytes, std::size_t key_count,
                                  std::size_t offset, std::uint8_t* single) {
  if (layout == Layout::patterns) {
    // Each page has a byte of its own, and a run of one page reads no other.
    return selection + offset;
  }
  if (layout == Layout::keys || layout == Layout::groups) {
    const std::size_t size = octet_bytes(layout, stride);
    for (std::size_t key = 0; key < key_count; ++key)
      single[key] = static_cast<std::uint8_t>(
          selection[key / size * plane_bytes + offset / kOctet * size + key % size] >>
          offset % kOctet);
    return single;
  }
  const std::uint8_t* row;
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
    single[key] = static_cast<std::uint8_t>(row[key] >> bit);
  return single;
}

// The leaves whose selection a scratch holds.
struct HeldLeaves {
  std::uint64_t first, count;
};

HeldLeaves& held_leaves(const Plan& plan, std::uint8_t* scratch) {
  return *reinterpret_cast<HeldLeaves*>(scratch + plan.held_offset());
}

PageRun strip_run(const ScanJob& job, const Plan& plan, std::size_t strip, std::uint8_t* scratch) {
  PageRun run = {};
  run.layout = plan.layout;
  run.in_streams = job.read_order == ReadOrder::rows;
  run.in_order = plan.in_order;
  run.key_count = job.key_count;
  run.key_stride = plan.key_stride;
  run.columns = &plan.columns;
  run.first_column = plan.strip_start(strip);
  run.end_column = plan.strip_start(strip + 1);
  run.sums = scratch;
  run.sum_stride = plan.sum_stride;
  return run;
}

void begin(const ScanJob& job, std::uint8_t* scratch) {
  const Plan plan(job);
  KeyTree* trees = reinterpret_cast<KeyTree*>(scratch + plan.trees_offset());
  for (std::size_t key = 0; key < job.key_count; ++key)
    new (trees + key) KeyTree(job.keys + key * job.key_bytes);
  held_leaves(plan, scratch) = {0, 0};
}

void scan(const ScanJob& job, std::size_t strip, std::uint64_t first, std::uint64_t last,
          bool fresh, std::uint8_t* scratch) {
  const Plan plan(job);
  const std::size_t stride = plan.key_stride;
  std::uint8_t* selection = scratch + plan.selection_offset();
  std::uint8_t* staging = scratch + plan.staging_offset();
  NodeLevel* nodes = reinterpret_cast<NodeLevel*>(scratch + plan.nodes_offset());
  KeyTree* trees = reinterpret_cast<KeyTree*>(scratch + plan.trees_offset());
  HeldLeaves& held = held_leaves(plan, scratch);

  PageRun run = strip_run(job, plan, strip, scratch);
  if (fresh) {
    std::memset(scratch, 0, plan.sum_bytes());
    with_buckets(plan, run, scratch, [](auto&& buckets) { buckets.clear(); });
  }
  const std::size_t row_bytes = octet_bytes(plan.layout, stride);
  const auto scan_run = [&] {
    if (plan.is_narrow()) return scan_narrow_pages(plan, run);
    if (with_buckets(plan, run, scratch, [](auto&& buckets) { buckets.run(); })) return;
    if (job.read_order == ReadOrder::memory && job.whole_vectors)
      scan_pages<FirstLevelPrefetcher>(plan, run);
    else if (job.read_order == ReadOrder::memory)
      scan_pages<SecondLevelPrefetcher>(plan, run);
    else if (plan.columns.bytes == kCacheLine && job.page_size < kWidePageBytes)
      scan_with<kCacheLine, RowPrefetcher>(plan.method, run);
    else
      scan_pages<NoPrefetcher>(plan, run);
  };

  const std::uint64_t body_pages = job.page_count - (job.tail != nullptr);
  const std::uint64_t batch_pages = plan.batch_leaves() * kLeafBits;
  // The pages before the job's own from the last multiple of batch_leaves on.
  const std::uint64_t skipped = job.first_leaf * kLeafBits % batch_pages;
  const std::uint64_t end_leaf = (last - 1) / kLeafBits + 1;
  for (std::uint64_t page = first; page < last;) {
    // Batches start at multiples of batch_leaves of the tree, so each batch is one subtree.
    const std::uint64_t batch_end = ((skipped + page) / batch_pages + 1) * batch_pages - skipped;
    const std::uint64_t stop = batch_end < last ? batch_end : last;
    const std::uint64_t first_leaf = page / kLeafBits;
    const std::uint64_t leaves = (stop - 1) / kLeafBits + 1 - first_leaf;
    // The strips of a table of few pages share one selection.
    if (held.first != first_leaf || held.count != leaves) {
      expand_selection(trees, job.key_count, job.first_leaf + first_leaf,
                       static_cast<std::size_t>(leaves), job.first_leaf + end_leaf, plan.layout,
                       stride, nodes, staging, selection);
      held = {first_leaf, leaves};
    }
    run.plane_bytes = plane_size(plan.layout, static_cast<std::size_t>(leaves), stride);
    run.next_strip = nullptr;
    if (stop == last && strip + 1 < plan.strips)
      run.next_strip = job.body + first * job.page_size + plan.columns.offset(run.end_column);
    const std::uint64_t body_stop = stop < body_pages ? stop : body_pages;
    if (page < body_stop) {
      run.pages = job.body + page * job.page_size;
      run.page_count = body_stop - page;
      run.selection = selection + (page - first_leaf * kLeafBits) / kOctet * row_bytes;
      scan_run();
    }
    if (stop > body_pages) {
      run.pages = job.tail;
      run.page_count = 1;
      run.selection = select_single(plan.layout, selection, stride, run.plane_bytes, job.key_count,
                                    static_cast<std::size_t>(body_pages - first_leaf * kLeafBits),
                                    scratch + plan.single_offset());
      run.plane_bytes = row_bytes;
      scan_run();
    }
    page = stop;
  }
}

void finish(const ScanJob& job, std::size_t strip, bool add, std::uint8_t* scratch,
            std::uint8_t* out) {
  const Plan plan(job);
  const PageRun run = strip_run(job, plan, strip, scratch);
  if (plan.method == Method::flat)
    return fold_flat_sums(run.sums, job.page_size, job.key_count, add, out);
  if (plan.method == Method::octets)
    return gather_block_sums(run.sums, job.page_size, job.key_count, plan.key_stride, add, out);
  with_buckets(plan, run, scratch, [](auto&& buckets) { buckets.fold(); });
  write_sums(job, plan, run, add, out);
}

std::uint64_t read(const std::uint8_t* data, std::size_t bytes) {
  typedef Column<kCacheLine> Line;
  constexpr std::size_t kLines = 4;  // independent sums: no addition waits for another
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
const HostKernels MORPHOGEN_ISA = {MORPHOGEN_ISA_NAME, generate_keys, expand, shape, begin, scan,
                                    finish, read};

}  // namespace morphogen
