// How a chunk is scanned: the method, the layouts of selection and sums, and the scratch memory.
#pragma once

#include "scan_buckets.h"
#include "scan_gfni.h"
#include "scan_masks.h"
#include "scan_tables.h"
#include "host_kernels.h"

namespace morphogen {
namespace {

MORPHOGEN_FN std::size_t round_up(std::size_t value, std::size_t unit) {
  return (value + unit - 1) / unit * unit;
}

enum class Method { buckets, masks, gfni, tables };

#if defined(__AVX512BW__) && defined(__GFNI__)
constexpr bool kHasGfni = true;
#else
constexpr bool kHasGfni = false;
#endif

// A page has no columns narrower than this for masks, or for buckets.
constexpr std::size_t kMinMaskBytes = 16, kMinBucketBytes = 16;
// Smaller pages are not laid on cache lines where rows are read side by side.
constexpr std::size_t kLeastAlignedBytes = 512;
// From here on the rows of a tile share few sets of a cache.
constexpr std::size_t kWidePageBytes = 8192;
// Wider pages are taken in strips of about this width.
constexpr std::size_t kStripBytes = 4096;
// What the sums of all keys may take of the second-level cache, where a strip may be wider.
constexpr std::size_t kStripSumBytes = 384 << 10;

struct Plan {
  Columns columns;
  Method method;
  Layout layout = Layout::octets;
  std::size_t key_count, key_stride, sum_stride, strip_columns;
  std::size_t bucket_bytes = 0;

  explicit Plan(const ScanJob& job)
      : columns(job.body, job.page_size,
                job.read_order == ReadOrder::rows ? kLeastAlignedBytes : kCacheLine),
        method(choose(job)),
        key_count(job.key_count),
        key_stride(round_up(job.key_count, kKeyAlign)),
        sum_stride(job.key_count),
        strip_columns(columns.count) {
    switch (method) {
      case Method::buckets:
        layout = Layout::patterns;
        bucket_bytes = pattern_count(job.key_count) * columns.bytes *
                       bucket_strip_columns(job.key_count, columns);
        return;  // cuts strips of its own
      case Method::gfni:
        sum_stride = key_stride;
        if (job.read_order == ReadOrder::rows && job.page_size < kRowBytes) layout = Layout::streams;
        break;
      case Method::masks:
        sum_stride = job.key_count <= kOneQueryKeys ? kOneQueryKeys : kTwoQueryKeys;
        break;
      case Method::tables:
        break;
    }
    std::size_t strip_bytes = kStripBytes;
    if (job.read_order == ReadOrder::rows)
      while (2 * strip_bytes * sum_stride <= kStripSumBytes) strip_bytes *= 2;
    if (job.page_size > strip_bytes) strip_columns = strip_bytes / columns.bytes;
  }

  std::size_t sum_bytes() const {
    const std::size_t bytes = method == Method::gfni ? kCacheLine : columns.bytes;
    return round_up(columns.count * bytes * sum_stride, kCacheLine);
  }

  // Leaves whose selection is held at a time. It should not push pages out of the second-level
  // cache; but the fewer leaves there are, the more of the work is the walk to them, which small
  // pages feel.
  std::size_t batch_leaves() const {
    constexpr std::size_t kSelectionBytes = 512 << 10;
    constexpr std::size_t kBatchPageBytes = 4 << 20;
    std::size_t leaves = 64;
    while (leaves < kSubtreeLeaves && leaves * kLeafBits * columns.page_size < kBatchPageBytes)
      leaves *= 2;
    while (leaves > 1 && leaves * kLeafBytes * key_stride > kSelectionBytes) leaves /= 2;
    return leaves;
  }

  // The scratch of a scan: sums, buckets, the selection of a batch of leaves, what it is made from.
  std::size_t buckets_offset() const { return sum_bytes(); }
  std::size_t selection_offset() const {
    return buckets_offset() + round_up(bucket_bytes, kCacheLine);
  }
  std::size_t staging_offset() const {
    return selection_offset() + round_up(batch_leaves() * kLeafBytes * key_stride, kCacheLine);
  }
  std::size_t nodes_offset() const {
    return staging_offset() + batch_leaves() * kLeafBytes * kKeyAlign;
  }
  std::size_t paths_offset() const {
    return nodes_offset() + round_up(sizeof(NodeLevel), kCacheLine);
  }
  std::size_t scratch_bytes() const {
    return paths_offset() + round_up(key_count * sizeof(Path), kCacheLine);
  }

 private:
  Method choose(const ScanJob& job) const {
    const bool rows = job.read_order == ReadOrder::rows;
    if (rows && job.key_count <= kMaxBucketKeys && columns.bytes >= kMinBucketBytes &&
        job.page_count >= kBucketPages * pattern_count(job.key_count))
      return Method::buckets;
    // Masks are made anew for every tile of pages. A second query's pay for themselves where a page
    // has many columns and registers are wide; the first one's always, down to columns of 16 bytes.
    constexpr std::size_t kManyColumns = 16;
    const bool two_queries = kVectorBytes > 16 && columns.count >= kManyColumns;
    if (job.key_count <= (two_queries ? kTwoQueryKeys : kOneQueryKeys) &&
        columns.bytes >= kMinMaskBytes)
      return Method::masks;
    if (kHasGfni && (columns.bytes == 64 || (rows && gfni_line_pages(job.page_size) > 1)))
      return Method::gfni;
    return Method::tables;
  }
};

}  // namespace
}  // namespace morphogen
