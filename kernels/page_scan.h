// The page scan on the host: one pass over a run of pages XORs, for every key of a chunk, the pages
// that the key selects into the key's sum.
//
// A page is cut into columns of 64 bytes (narrower ones where the page is). A method (scan_masks.h,
// scan_gfni.h, scan_tables.h) adds one column of a tile of pages to the sums of all keys. Sums lie
// column by column, all keys of a column side by side: page by page, 4,096 bytes apart, they would
// share one cache set with each other and with the pages.
//
// Tiles are few pages high, so that the reads stay close to memory order, and each step prefetches
// as much as it uses, in memory order and a fixed distance ahead. docs/performance.md has the
// measurements behind both choices.
#pragma once

#include "simd.h"

namespace morphogen {
namespace {

constexpr std::size_t kCacheLine = 64;
constexpr std::size_t kOctet = 8;  // pages of one selection byte
// Rows of the selection matrix are padded to whole 8-byte words; the spare bytes are zero.
constexpr std::size_t kKeyAlign = 8;
// Pages wider than this are taken in strips.
constexpr std::size_t kStripBytes = 4096;
// How far ahead of its use a line is asked for: far enough to cover a memory access at full rate,
// near enough to still be in the second-level cache (1 MiB on the machine measured) when used.
constexpr std::size_t kPrefetchBytes = 128 << 10;

// How a page is cut into columns: the widest that it holds, laid on cache lines where all pages lie
// alike. Where that leaves a rest, the first or the last column overlaps its neighbour: both then
// hold the same bytes where they overlap.
struct Columns {
  std::size_t page_size, bytes, head, count;

  Columns(const std::uint8_t* pages, std::size_t size) : page_size(size), bytes(kCacheLine), head(0) {
    while (bytes > page_size) bytes /= 2;
    if (page_size % kCacheLine == 0)
      head = (0 - reinterpret_cast<std::uintptr_t>(pages)) % kCacheLine;
    count = (page_size - head + bytes - 1) / bytes + (head != 0);
  }

  MORPHOGEN_FN std::size_t offset(std::size_t column) const {
    if (head != 0 && column == 0) return 0;
    const std::size_t start = head + (column - (head != 0)) * bytes;
    return start + bytes <= page_size ? start : page_size - bytes;
  }
};

struct PageRun {
  const std::uint8_t* pages;  // the first page of the run
  std::size_t page_count;
  const std::uint8_t* selection;  // bit i of byte [o * key_stride + key] selects page 8 * o + i
  std::size_t key_count;
  std::size_t key_stride;  // key_count rounded up to kKeyAlign
  const Columns* columns;
  std::uint8_t* sums;      // [column][sum_stride] columns, arranged as the method likes
  std::size_t sum_stride;
};

// Asks for the lines of a strip in memory order, row by row. It may ask for a few lines more than
// there are, or for addresses past the last page: a prefetch never faults.
class Prefetcher {
 public:
  MORPHOGEN_FN Prefetcher(const std::uint8_t* first, std::size_t distance, std::size_t row_bytes,
                          std::size_t row_step)
      : row_(reinterpret_cast<std::uintptr_t>(first) + distance),
        row_bytes_(row_bytes),
        row_step_(row_step) {}

  template <std::size_t Lines>
  MORPHOGEN_FN void advance() {
    for (std::size_t i = 0; i < Lines; ++i)
      __builtin_prefetch(reinterpret_cast<const void*>(row_ + column_ + i * kCacheLine), 0, 2);
    column_ += Lines * kCacheLine;
    if (column_ >= row_bytes_) {
      column_ = 0;
      row_ += row_step_;
    }
  }

 private:
  std::uintptr_t row_;
  std::size_t row_bytes_, row_step_, column_ = 0;
};

// Wide pages are scanned strip by strip, so that the sums at work stay in the second-level cache.
template <class Method>
inline void scan_run(const PageRun& run) {
  constexpr std::size_t kBytes = Method::kColumnBytes;
  constexpr std::size_t kTilePages = Method::kOctets * kOctet;
  constexpr std::size_t kStripColumns = kStripBytes / kBytes;
  // Whole tiles of a strip that make up the distance, at least one.
  constexpr std::size_t kTilesAhead = (kPrefetchBytes - 1) / (kTilePages * kStripBytes) + 1;
  Method method(run.key_count);
  const Columns& columns = *run.columns;
  const std::size_t page_size = columns.page_size;
  const std::size_t strips = (page_size + kStripBytes - 1) / kStripBytes;

  for (std::size_t strip = 0; strip < strips; ++strip) {
    const std::size_t first = strip * kStripColumns;
    // The last strip may have a column more, where columns overlap.
    const std::size_t end = strip + 1 < strips ? first + kStripColumns : columns.count;
    for (std::size_t tile = 0; tile < run.page_count; tile += kTilePages) {
      const std::uint8_t* pages = run.pages + tile * page_size;
      const std::size_t left = run.page_count - tile;
      const std::size_t tile_pages = left < kTilePages ? left : kTilePages;
      method.select(run.selection + tile / kOctet * run.key_stride, run.key_stride);
      // Pages of one strip are one contiguous stretch.
      Prefetcher prefetcher =
          strips == 1
              ? Prefetcher(pages, kPrefetchBytes, ~std::size_t{0}, 0)
              : Prefetcher(pages, kTilesAhead * kTilePages * page_size + strip * kStripBytes,
                           kStripBytes, page_size);
      for (std::size_t column = first; column < end; ++column)
        method.add_column(pages + columns.offset(column), page_size, tile_pages, prefetcher,
                          run.sums + column * run.sum_stride * kBytes);
    }
  }
}

}  // namespace
}  // namespace morphogen
