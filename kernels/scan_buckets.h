// A scan method for few keys, for any instruction set. It sorts pages by the set of keys that
// select them. K keys have 2^K - 1 such patterns. Each pattern has a bucket, which sums up its
// pages, whatever the number of keys. Pages that no key selects are not even read. At the end a
// key's sum is the sum of the buckets whose pattern has the key.
//
// Wide pages wait in their bucket's queue until there are eight. Eight lines of pages then cost one
// load and store of the bucket's sum, and they are eight streams of reads side by side, which
// memory serves faster than one (docs/experiments.md). Narrow pages are added one by one, from four
// leaves in turn, for the same reason. Where one stream is served as fast if its lines are asked
// for, pages up to a width are added one by one in memory order.
#pragma once

#include "page_scan.h"

namespace morphogen {
namespace {

// With more keys the second-level cache could not hold the sums.
constexpr std::size_t kMaxBucketKeys = 6;
constexpr std::size_t kMaxPatterns = std::size_t{1} << kMaxBucketKeys;
constexpr std::size_t kQueuePages = 8;
// Pages of at most this many columns are added at once: 1 KiB and one column more, if columns lie
// on cache lines.
constexpr std::size_t kDirectColumns = 17;
constexpr std::size_t kDirectStreams = 4;
// With fewer pages a bucket, adding up the buckets costs more than it saves.
constexpr std::size_t kBucketPages = 8;
// The bytes of all buckets' sums for one strip of wide pages. 6 keys and pages of 4 KiB, which lie
// on up to 65 cache lines, need 260 KiB and should make one strip.
constexpr std::size_t kBucketBytes = 320 << 10;

MORPHOGEN_FN std::size_t pattern_count(std::size_t key_count) { return std::size_t{1} << key_count; }

// Returns the least number of pages for which buckets pay. One key has one bucket that counts, which
// is its sum.
MORPHOGEN_FN std::size_t least_bucket_pages(std::size_t key_count) {
  return kBucketPages * (pattern_count(key_count) - 2);
}

// The widest pages that are added in memory order if a processor takes whole vectors, in bytes by
// the number of keys. The fewer the keys, the more pages a queue leaves unread (measured on Zen 5,
// docs/experiments.md).
constexpr std::size_t kOrderedBytes[kMaxBucketKeys + 1] = {0, 0, 1536, 4096, 4096, 8192, 32 << 10};
constexpr std::size_t kOrderedAheadBytes = 8 << 10;
// Wider pages than this have no strips then, and each thread adds up to 2 MiB of buckets at its end: so
// they need more pages a bucket.
constexpr std::size_t kOrderedStripBytes = 8 << 10, kWideBucketPages = 128;

// Returns the most columns of a strip: as many as all buckets can hold.
inline std::size_t bucket_strip_columns(std::size_t key_count, const Columns& columns) {
  return kBucketBytes / (pattern_count(key_count) * columns.bytes);
}

// The pages that wait for their bucket.
struct BucketQueue {
  const std::uint8_t* pages[kMaxPatterns][kQueuePages];
  std::size_t waiting[kMaxPatterns];
};

// Adds `Count` pages to a bucket. `at` is the offset of the first of `count` columns that lie side
// by side.
template <int Bytes, std::size_t Count>
MORPHOGEN_FN void add_columns(const std::uint8_t* const* pages, std::size_t at, std::size_t count,
                              std::uint8_t* sums) {
  typedef Column<Bytes> C;
  C* out = reinterpret_cast<C*>(sums);
  for (std::size_t column = 0; column < count; ++column, at += Bytes) {
    C sum = C::load(pages[0] + at);
#pragma GCC unroll 8
    for (std::size_t page = 1; page < Count; ++page) sum = sum ^ C::load(pages[page] + at);
    out[column] = out[column] ^ sum;
  }
}

template <int Bytes>
class BucketScan {
 public:
  // The buckets and the queue hold what runs before this one left there.
  BucketScan(const PageRun& run, std::uint8_t* buckets, BucketQueue& queue)
      : run_(run),
        columns_(*run.columns),
        first_(run.first_column),
        end_(run.end_column),
        buckets_(buckets),
        queue_(queue) {}

  // Empties all buckets.
  void clear() {
    std::memset(buckets_, 0, pattern_count(run_.key_count) * width() * Bytes);
    std::memset(queue_.waiting, 0, sizeof queue_.waiting);
  }

  // Adds the pages of the run to the buckets.
  void run() {
    if (columns_.count <= kDirectColumns)
      scan_directly<1>();
    else if (run_.in_order)
      scan_in_order();
    else
      scan_queued();
  }

  // Adds the pages that wait, and then the buckets of each key to the key's sum. Each step takes
  // off the last key's half of the buckets, so that a bucket and column cost two additions.
  void fold() {
    for (std::size_t pattern = 1; pattern < pattern_count(run_.key_count); ++pattern)
      for (std::size_t i = 0; i < queue_.waiting[pattern]; ++i)
        add<1>(&queue_.pages[pattern][i], pattern);
    C* const buckets = reinterpret_cast<C*>(buckets_);
    C* const sums = reinterpret_cast<C*>(run_.sums);
    for (std::size_t key = run_.key_count; key-- > 0;) {
      const std::size_t half = std::size_t{1} << key;
      for (std::size_t column = 0; column < width(); ++column) {
        C& sum = sums[column * run_.sum_stride + key];
        for (std::size_t low = 0; low < half; ++low) {
          const C high = buckets[(half + low) * width() + column];
          sum = sum ^ high;
          buckets[low * width() + column] = buckets[low * width() + column] ^ high;
        }
      }
    }
  }

 private:
  typedef Column<Bytes> C;

  std::size_t width() const { return end_ - first_; }

  void scan_queued() {
    const std::uint8_t* page = run_.pages;
    for (std::size_t i = 0; i < run_.page_count; ++i, page += columns_.page_size) {
      const std::size_t pattern = run_.selection[i];
      if (pattern == 0) continue;
      std::size_t& count = queue_.waiting[pattern];
      queue_.pages[pattern][count] = page;
      if (++count < kQueuePages) continue;
      add<kQueuePages>(queue_.pages[pattern], pattern);
      count = 0;
    }
  }

  // The loop is unrolled by hand: a call for each page, which has few columns, took 5% longer.
  void scan_in_order() {
    constexpr std::size_t kUnrolled = 4;
    const std::size_t size = columns_.page_size, count = columns_.count;
    const std::size_t whole = size / Bytes;  // columns that overlap no other
    const std::uint8_t* page = run_.pages;
    for (std::size_t i = 0; i < run_.page_count; ++i, page += size) {
      C* const sums = reinterpret_cast<C*>(buckets_) + run_.selection[i] * count;
      const auto add_column = [&](std::size_t column, const std::uint8_t* at) {
        const auto ahead = reinterpret_cast<std::uintptr_t>(at) + kOrderedAheadBytes;
        __builtin_prefetch(reinterpret_cast<const void*>(ahead));
        sums[column] = sums[column] ^ C::load(at);
      };
      std::size_t column = 0;
      for (; column + kUnrolled <= whole; column += kUnrolled) {
#pragma GCC unroll 4
        for (std::size_t j = 0; j < kUnrolled; ++j)
          add_column(column + j, page + (column + j) * Bytes);
      }
      for (; column < whole; ++column) add_column(column, page + column * Bytes);
      if (whole < count) add_column(whole, page + size - Bytes);
    }
  }

  // Adds `Count` pages to a bucket.
  template <std::size_t Count>
  MORPHOGEN_FN void add(const std::uint8_t* const* pages, std::size_t pattern) {
    std::uint8_t* sums = buckets_ + pattern * width() * Bytes;
    // All columns but the first and the last of a page lie side by side.
    std::size_t column = first_;
    const std::size_t inner_end = end_ == columns_.count ? end_ - 1 : end_;
    if (column == 0)
      add_columns<Bytes, Count>(pages, columns_.offset(column++), 1, sums);
    add_columns<Bytes, Count>(pages, columns_.offset(column), inner_end - column,
                              sums + (column - first_) * Bytes);
    if (inner_end < end_)
      add_columns<Bytes, Count>(pages, columns_.offset(inner_end), 1,
                                sums + (inner_end - first_) * Bytes);
  }

  // Scans pages of Count columns; for pages of more columns it calls itself with the right Count.
  template <std::size_t Count>
  void scan_directly() {
    // A page of columns narrower than a cache line has at most two.
    constexpr std::size_t kMost = Bytes == kCacheLine ? kDirectColumns : 2;
    if constexpr (Count < kMost) {
      if (columns_.count > Count) return scan_directly<Count + 1>();
    }
    C* const buckets = reinterpret_cast<C*>(buckets_);
    std::size_t offset[Count];
    for (std::size_t i = 0; i < Count; ++i) offset[i] = columns_.offset(i);
    // Pages that no key selects have a bucket too: it costs less to read them than to branch.
    const auto add_page = [&](std::size_t page) {
      const std::uint8_t* bytes = run_.pages + page * columns_.page_size;
      C* const sums = buckets + run_.selection[page] * Count;
#pragma GCC unroll 17
      for (std::size_t i = 0; i < Count; ++i) sums[i] = sums[i] ^ C::load(bytes + offset[i]);
    };
    std::size_t page = 0;
    for (; page + kDirectStreams * kLeafBits <= run_.page_count; page += kDirectStreams * kLeafBits) {
      for (std::size_t i = 0; i < kLeafBits; ++i) {
#pragma GCC unroll 4
        for (std::size_t stream = 0; stream < kDirectStreams; ++stream)
          add_page(page + stream * kLeafBits + i);
      }
    }
    for (; page < run_.page_count; ++page) add_page(page);
  }

  const PageRun& run_;
  const Columns& columns_;
  std::size_t first_, end_;
  std::uint8_t* buckets_;
  BucketQueue& queue_;
};

}  // namespace
}  // namespace morphogen
