// The plan of a chunk's scan: the method, the layouts of selection and sums, and the scratch
// memory.
#pragma once

#include "scan_buckets.h"
#include "scan_flat.h"
#include "scan_gfni.h"
#include "scan_held.h"
#include "scan_masks.h"
#include "scan_spans.h"
#include "scan_tables.h"
#include "host_kernels.h"

namespace morphogen {
namespace {

MORPHOGEN_FN std::size_t round_up(std::size_t value, std::size_t unit) {
  return (value + unit - 1) / unit * unit;
}

enum class Method { flat, octets, held, buckets, masks, gfni, tables };

#if defined(__AVX512BW__) && defined(__GFNI__)
constexpr bool kHasGfni = true;
#else
constexpr bool kHasGfni = false;
#endif

#if defined(__AVX512VBMI__) && defined(__GFNI__)
constexpr bool kHasOctets = true;
#else
constexpr bool kHasOctets = false;
#endif

#if defined(__AVX512F__)
constexpr bool kHasHeld = true;
#else
constexpr bool kHasHeld = false;
#endif

// Tells whether pages take the flat method: where there are products of octets, as long as these
// cost more (measured on Zen 5, docs/experiments.md). Elsewhere tables are for wider columns: the
// flat method takes all keys of pages that fill few of them. It takes few keys of others, if what it
// holds for a period leaves the first-level cache to the pages.
MORPHOGEN_FN bool is_flat(std::size_t page_size, std::size_t key_count) {
  if (!kHasFlat) return false;
  if (kHasOctets) return key_count <= (page_size < 16 ? 3 : page_size < 32 ? 1 : 0);
  constexpr std::size_t kAllKeysBytes = kVectorBytes == 64 ? 32 : 8, kMostPeriodBytes = 3 << 10;
  if (page_size < kAllKeysBytes) return true;
  const bool many = kVectorBytes == 64 || page_size < kCacheLine;
  return key_count <= (many ? kTwoQueryKeys : 1) && Period(page_size).bytes <= kMostPeriodBytes;
}

// The narrowest columns that masks and buckets take.
constexpr std::size_t kMinMaskBytes = 16, kMinBucketBytes = 16;
// If rows are read side by side or sums are held, smaller pages are not laid on cache lines.
constexpr std::size_t kLeastAlignedBytes = 512;
// The rows of a tile of pages this wide or wider share few sets of a cache.
constexpr std::size_t kWidePageBytes = 8192;
// Wider pages are taken in strips of about this width.
constexpr std::size_t kStripBytes = 4096;
// The bytes of the second-level cache that the sums of all keys may take if a strip is wider than
// kStripBytes.
constexpr std::size_t kStripSumBytes = 384 << 10;

// Tiles of more pages save trips to the sums, which pays with many keys. Tiles of fewer pages read
// closer to memory order, which pays with few keys.
constexpr std::size_t kFewKeys = 8;
constexpr std::size_t kManyKeys = 48;

// Panels of 1 KiB, half as wide for more keys, so that their sums take at most 24 KiB of the
// first-level cache. The pages of a block, 256 KiB of a strip, stay in the second-level cache from
// one panel to the next, while the next block arrives (measured on Zen 5, docs/experiments.md).
constexpr std::size_t kPanelColumns = 16, kPanelPages = 64;
// With more keys two octets a step save trips to the sums; in pages narrower than a panel from fewer
// keys on.
constexpr std::size_t kPanelKeys = 24, kNarrowPanelKeys = 16;

// From this size on 6 keys take panels, not buckets, if columns share no lines.
constexpr std::size_t kLeastPanelBytes = 64 << 10;

// Tells whether bit matrices are taken panel by panel.
MORPHOGEN_FN bool takes_panels(const ScanJob& job) {
  return job.whole_vectors && job.read_order == ReadOrder::memory && job.key_count <= kManyKeys;
}

// Tells whether sums are held in registers: pages read in memory order then cost less than buckets
// and products (measured on Zen 5, docs/experiments.md).
MORPHOGEN_FN bool holds_sums(const ScanJob& job) {
  return kHasHeld && job.whole_vectors && job.read_order == ReadOrder::memory &&
         job.key_count <= kTwoQueryKeys && job.page_size >= kLeastHeldBytes &&
         job.page_size <= kDirectColumns * kCacheLine;
}

// Tells whether pages are added to buckets one by one in memory order.
MORPHOGEN_FN bool adds_in_order(const ScanJob& job) {
  return job.whole_vectors && job.read_order == ReadOrder::memory &&
         job.key_count <= kMaxBucketKeys && job.page_size > kDirectColumns * kCacheLine &&
         job.page_size <= kOrderedBytes[job.key_count] &&
         job.page_count >= (job.page_size > kOrderedStripBytes
                                ? kWideBucketPages * pattern_count(job.key_count)
                                : least_bucket_pages(job.key_count));
}

// Returns the least size of pages whose columns lie on cache lines. Pages that are added one by one
// cost less if columns begin with the page: a line that two columns share is read again at once.
MORPHOGEN_FN std::size_t least_aligned_bytes(const ScanJob& job) {
  if (job.read_order == ReadOrder::rows || holds_sums(job)) return kLeastAlignedBytes;
  return adds_in_order(job) ? ~std::size_t{0} : kCacheLine;
}

// Tells whether the rows of a tile share few sets of a cache, and their columns share lines, which
// would then be read for each column again.
MORPHOGEN_FN bool is_crowded(std::size_t page_size) {
  return page_size % kCacheLine != 0 && (page_size + kCacheLine) % kRowBytes < 2 * kCacheLine;
}

// Tells whether bit matrices take blocks of 32 to 64 pages, or copies of tiles, in order memory
// (measured on Zen 4, docs/experiments.md).
MORPHOGEN_FN bool takes_blocks(std::size_t page_size, std::size_t key_count) {
  return key_count > kFewKeys && (page_size % kCacheLine == 0 || is_crowded(page_size));
}

struct Plan {
  Columns columns;
  Method method;
  bool in_order;
  Layout layout = Layout::octets;
  std::size_t key_count, key_stride, sum_stride, strips, strip_columns;

  explicit Plan(const ScanJob& job)
      : columns(job.body, job.page_size, least_aligned_bytes(job)),
        method(choose(job)),
        in_order(adds_in_order(job)),
        key_count(job.key_count),
        key_stride(round_up(job.key_count, kKeyAlign)),
        sum_stride(job.key_count) {
    std::size_t strip_bytes = kStripBytes;
    switch (method) {
      case Method::buckets:
        layout = Layout::patterns;
        cut_strips(in_order ? columns.count : bucket_strip_columns(job.key_count, columns));
        return;
      case Method::gfni:
        sum_stride = key_stride;
        if (job.read_order == ReadOrder::rows && job.page_size < kRowBytes) layout = Layout::streams;
        break;
      case Method::flat:
        layout = Layout::keys;
        cut_strips(columns.count);
        return;
      case Method::octets:
        layout = Layout::groups;
        cut_strips(columns.count);
        return;
      case Method::held:
        sum_stride = held_keys(job.key_count);
        break;
      case Method::masks:
        sum_stride = job.key_count <= kOneQueryKeys ? kOneQueryKeys : kTwoQueryKeys;
        break;
      case Method::tables:
        break;
    }
    // A block of many rows must stay in the second-level cache.
    const bool blocks = method == Method::gfni && job.read_order == ReadOrder::memory &&
                        (takes_panels(job) || takes_blocks(job.page_size, job.key_count));
    while (!blocks && 2 * strip_bytes * sum_stride <= kStripSumBytes) strip_bytes *= 2;
    cut_strips(strip_bytes / columns.bytes);
  }

  // Returns the first column of a strip, and where the strip before it ends. The last strip may
  // have one column more than the others: if columns overlap there is one more to a page.
  std::size_t strip_start(std::size_t strip) const {
    return strip == strips ? columns.count : strip * strip_columns;
  }

  // Narrow pages have sums of their own kind.
  bool is_narrow() const { return method == Method::flat || method == Method::octets; }

  // The sums of the widest strip.
  std::size_t sum_bytes() const {
    if (method == Method::flat)
      return round_up(Period(columns.page_size).bytes * key_count, kCacheLine);
    if (method == Method::octets) return Blocks(columns.page_size).sum_bytes(key_stride);
    return round_up(widest_strip() * sum_column_bytes() * sum_stride, kCacheLine);
  }
  std::size_t sum_column_bytes() const {
    return method == Method::gfni ? kCacheLine : columns.bytes;
  }

  // Returns the number of leaves whose selection is held at a time. The selection should not push
  // pages out of the second-level cache. But the fewer leaves there are, the more of the work has
  // few nodes, which slows small pages: narrow pages may take more than their share.
  std::size_t batch_leaves() const {
    const std::size_t most_bytes = (is_narrow() ? 768 : 512) << 10;
    constexpr std::size_t kBatchPageBytes = 4 << 20;
    std::size_t leaves = 64;
    while (leaves < kSubtreeLeaves && leaves * kLeafBits * columns.page_size < kBatchPageBytes)
      leaves *= 2;
    while (leaves > 1 && leaves * kLeafBytes * key_stride > most_bytes) leaves /= 2;
    return leaves;
  }
  std::size_t selection_bytes() const {
    const std::size_t planes = key_stride / octet_bytes(layout, key_stride);
    return round_up(planes * plane_size(layout, batch_leaves(), key_stride), kCacheLine);
  }

  // The scratch of a thread holds the sums of a strip, its buckets and their queue, the selection of
  // a batch of leaves, a row of it, and the memory to expand that selection.
  std::size_t buckets_offset() const { return sum_bytes(); }
  std::size_t queue_offset() const {
    if (method != Method::buckets) return buckets_offset();
    const std::size_t bytes = widest_strip() * columns.bytes * pattern_count(key_count);
    return buckets_offset() + round_up(bytes, kCacheLine);
  }
  std::size_t selection_offset() const {
    return queue_offset() +
           (method == Method::buckets ? round_up(sizeof(BucketQueue), kCacheLine) : 0);
  }
  std::size_t single_offset() const {
    return selection_offset() + selection_bytes();
  }
  std::size_t staging_offset() const {
    // Narrow methods load up to a line from any byte of the row.
    return single_offset() + round_up(key_stride, kCacheLine) + kCacheLine;
  }
  std::size_t nodes_offset() const {
    return staging_offset() + kStagingBytes;
  }
  std::size_t trees_offset() const {
    return nodes_offset() + (key_count < kKeyAlign ? key_count : kKeyAlign) * sizeof(NodeLevel);
  }
  std::size_t held_offset() const {
    return trees_offset() + round_up(key_count * sizeof(KeyTree), kCacheLine);
  }
  std::size_t scratch_bytes() const { return held_offset() + kCacheLine; }

 private:
  // Cuts pages into strips of about `most` columns, or fewer.
  void cut_strips(std::size_t most) {
    const std::size_t inner = columns.count > 1 ? columns.count - 1 : 1;
    const std::size_t wanted = inner / most + (inner % most > most / 2);
    strip_columns = wanted < 2 ? columns.count : (inner + wanted - 1) / wanted;
    strips = wanted < 2 ? 1 : (inner + strip_columns - 1) / strip_columns;
  }
  std::size_t widest_strip() const { return strip_columns + (strips > 1); }

  // Returns the most keys for which buckets take less time than masks. Where one instruction masks
  // and adds a line of 64 bytes, and lines are asked for in memory order, they do so if they leave
  // many pages unread, and in pages of few lines (measured on Zen 4 and 5, docs/experiments.md).
  static std::size_t bucket_keys(const ScanJob& job) {
    if (job.read_order == ReadOrder::rows || kVectorBytes < 64) return kMaxBucketKeys;
    if (job.page_size <= 512) return 4;
    if (job.whole_vectors) {
      const bool panels = job.page_size >= kLeastPanelBytes && job.page_size % kCacheLine == 0;
      return panels ? 5 : kMaxBucketKeys;
    }
    if (job.page_size >= kWidePageBytes) return 4;
    return job.page_size >= kRowBytes ? 2 : 0;
  }

  Method choose(const ScanJob& job) const {
    if (holds_sums(job)) return Method::held;
    if (job.page_size < kNarrowBytes) {
      if (is_flat(job.page_size, job.key_count)) return Method::flat;
      if (kHasOctets) return Method::octets;
    }
    if (job.key_count <= bucket_keys(job) && columns.bytes >= kMinBucketBytes &&
        job.page_count >= least_bucket_pages(job.key_count))
      return Method::buckets;
    // Masks are made anew for every tile of pages. The masks of one query always pay for
    // themselves, down to columns of 16 bytes. Those of a second query pay if a page has many
    // columns and registers are wide (measured on Zen 4, docs/experiments.md).
    constexpr std::size_t kManyColumns = 16;
    const bool two_queries =
        kVectorBytes > 16 && columns.count >= kManyColumns && !(kHasGfni && takes_panels(job));
    if (job.key_count <= (two_queries ? kTwoQueryKeys : kOneQueryKeys) &&
        columns.bytes >= kMinMaskBytes)
      return Method::masks;
    if (kHasGfni && columns.bytes == kCacheLine) return Method::gfni;
    return Method::tables;
  }
};

}  // namespace
}  // namespace morphogen
