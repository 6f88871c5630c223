// The page scan on the host. One pass over a run of pages XORs, for every key of a chunk, the pages
// that the key selects into the key's sum.
//
// A page is cut into columns of 64 bytes, or narrower columns if the page is narrower. A method
// (scan_masks.h, scan_gfni.h, scan_tables.h) adds one column of a tile of pages to the sums of all
// keys. Sums lie column by column, and all keys of a column lie side by side. If they lay page by
// page, 4,096 bytes apart, they would share one cache set with each other and with the pages.
//
// Tiles are few pages high, so that the reads stay close to memory order. The way to prefetch lines
// differs between processors (ReadOrder in host_kernels.h). docs/experiments.md has the
// measurements behind both choices.
#pragma once

#include "selection.h"
#include "simd.h"

namespace morphogen {
namespace {

constexpr std::size_t kCacheLine = 64;

// The cut of a page into columns: the widest that the page holds. Columns lie on cache lines if all
// pages lie alike and are large enough to pay for the one column more. If the page is no multiple
// of the column, the first or the last column overlaps its neighbour, and both hold the same bytes
// of the overlap.
struct Columns {
  std::size_t page_size, bytes, head, count;

  Columns(const std::uint8_t* pages, std::size_t size, std::size_t least_aligned)
      : page_size(size), bytes(kCacheLine), head(0) {
    while (bytes > page_size) bytes /= 2;
    if (page_size >= least_aligned && page_size % kCacheLine == 0)
      head = (0 - reinterpret_cast<std::uintptr_t>(pages)) % kCacheLine;
    count = (page_size - head + bytes - 1) / bytes + (head != 0);
  }

  MORPHOGEN_FN std::size_t offset(std::size_t column) const {
    if (head != 0 && column == 0) return 0;
    const std::size_t start = head + (column - (head != 0)) * bytes;
    return start + bytes <= page_size ? start : page_size - bytes;
  }

  // Returns where the bytes begin that a column shares with no column before it.
  MORPHOGEN_FN std::size_t own_start(std::size_t column) const {
    if (column == 0) return 0;
    const std::size_t start = head + (column - (head != 0)) * bytes;
    return start < page_size ? start : page_size;
  }
};

struct PageRun {
  const std::uint8_t* pages;  // the first page of the run
  std::size_t page_count;
  const std::uint8_t* selection;  // rows of `layout`, from the first page on
  Layout layout;
  bool in_streams;  // whether narrow pages are read in several streams
  bool in_order;  // whether pages are added to their buckets one by one in memory order
  std::size_t key_count;
  std::size_t key_stride;  // key_count rounded up to kKeyAlign
  std::size_t plane_bytes;  // from one key or group to the next, in Layout::keys and groups
  const Columns* columns;
  std::size_t first_column, end_column;  // of the strip that is scanned
  std::uint8_t* sums;  // [column of the strip][sum_stride] columns, arranged as the method likes
  std::size_t sum_stride;
  const std::uint8_t* next_strip;  // on the first page, if that is scanned next, else null
};

// The distances between the pages of a tile. 8 rows make an octet.
struct Rows {
  std::size_t row_bytes, octet_bytes;
};

// Prefetches the lines of a strip in memory order, row by row, into the cache of a level, at least
// `AheadBytes` ahead. It may prefetch a few lines more than there are, or addresses past the last
// page: a prefetch never faults.
template <int Level, std::size_t AheadBytes>
class FarPrefetcher {
 public:
  static constexpr std::size_t kDistance = 0;  // in columns of the same rows

  // If there is one strip, all its pages are one contiguous stretch. Otherwise only the rows of a
  // strip are, and after the last row comes the first of the next strip. `page` is the first of a
  // block of pages.
  MORPHOGEN_FN FarPrefetcher(const PageRun& run, std::size_t page, std::size_t block_pages) {
    const Columns& columns = *run.columns;
    const std::size_t width = run.end_column - run.first_column;
    const std::size_t strip_bytes = width * columns.bytes, block_bytes = block_pages * strip_bytes;
    if (width == columns.count) {
      row_ = address(run.pages + page * columns.page_size) +
             (block_bytes > AheadBytes ? block_bytes : AheadBytes);
      row_bytes_ = ~std::size_t{0};
      row_step_ = 0;
    } else {
      // The number of whole blocks that make up the distance, at least one, but no more rows than
      // there are.
      const std::size_t rows = ((AheadBytes - 1) / block_bytes + 1) * block_pages;
      page += rows < run.page_count ? rows : run.page_count;
      const std::uint8_t* strip = run.pages + columns.offset(run.first_column);
      if (run.next_strip != nullptr && page >= run.page_count) {
        page -= run.page_count;
        strip = run.next_strip;
      } else if (run.next_strip != nullptr) {
        last_row_ = address(strip + (run.page_count - 1) * columns.page_size);
        next_strip_ = address(run.next_strip);
      }
      row_ = address(strip + page * columns.page_size);
      row_bytes_ = strip_bytes;
      row_step_ = columns.page_size;
    }
  }

  // This prefetcher knows the next column without being told.
  MORPHOGEN_FN void take_column(const std::uint8_t*) {}

  template <std::size_t Lines>
  MORPHOGEN_FN void advance() {
    for (std::size_t i = 0; i < Lines; ++i)
      __builtin_prefetch(reinterpret_cast<const void*>(row_ + column_ + i * kCacheLine), 0,
                         4 - Level);
    column_ += Lines * kCacheLine;
    if (column_ >= row_bytes_) {
      column_ = 0;
      row_ = row_ == last_row_ ? next_strip_ : row_ + row_step_;
    }
  }

 private:
  static MORPHOGEN_FN std::uintptr_t address(const std::uint8_t* bytes) {
    return reinterpret_cast<std::uintptr_t>(bytes);
  }

  std::uintptr_t row_, last_row_ = 0, next_strip_ = 0;
  std::size_t row_bytes_, row_step_, column_ = 0;
};

// Far enough to cover a memory access at full rate, and near enough that the line is still in the
// second-level cache (1 MiB) when it is used (measured on Zen 4, and the other on Zen 5).
typedef FarPrefetcher<2, std::size_t{128} << 10> SecondLevelPrefetcher;
typedef FarPrefetcher<1, std::size_t{64} << 10> FirstLevelPrefetcher;

// Prefetches the same rows a few columns ahead, into the cache of a level. Hardware that follows
// each row by itself thereby stays ahead of the arithmetic. Rows of wide pages share too few cache
// sets to be held in advance (Distance 0).
template <std::size_t Distance, int Level>
class NearPrefetcher {
 public:
  static constexpr std::size_t kDistance = Distance;

  MORPHOGEN_FN NearPrefetcher(const PageRun& run, std::size_t, std::size_t)
      : NearPrefetcher(Rows{run.columns->page_size, kOctet * run.columns->page_size}) {}
  MORPHOGEN_FN explicit NearPrefetcher(const Rows& rows) : rows_(rows) {}

  // Starts on a column. `ahead` is the column of the same rows that will be taken soon.
  MORPHOGEN_FN void take_column(const std::uint8_t* ahead) { octet_ = ahead; }

  // Prefetches one octet of columns.
  template <std::size_t Lines>
  MORPHOGEN_FN void advance() {
    // The next narrow column lies on the same line.
    if (Distance == 0 || Lines == 0) return;
    for (std::size_t row = 0; row < kOctet; ++row)
      __builtin_prefetch(octet_ + row * rows_.row_bytes, 0, 4 - Level);
    octet_ += rows_.octet_bytes;
  }

 private:
  Rows rows_;
  const std::uint8_t* octet_ = nullptr;
};

// Distances and levels by measurement, for rows of one page each and for streams of several.
typedef NearPrefetcher<4, 2> RowPrefetcher;
typedef NearPrefetcher<8, 1> StreamPrefetcher;
typedef NearPrefetcher<0, 1> NoPrefetcher;

// Scans one strip of pages whose selection has Layout::octets, tile by tile.
template <class Method, class Prefetcher>
inline void scan_run(const PageRun& run) {
  constexpr std::size_t kTilePages = Method::kOctets * kOctet;
  Method method(run.key_count);
  const Columns& columns = *run.columns;
  const std::size_t page_size = columns.page_size;
  const std::size_t first = run.first_column, end = run.end_column;
  const Rows rows{page_size, kOctet * page_size};
  const std::size_t inner = end == columns.count ? end - 1 : end;  // the last may overlap
  for (std::size_t tile = 0; tile < run.page_count; tile += kTilePages) {
    const std::uint8_t* pages = run.pages + tile * page_size;
    const std::size_t left = run.page_count - tile;
    const std::size_t count = left < kTilePages ? left : kTilePages;
    method.select(run.selection + tile / kOctet * run.key_stride, run.key_stride);
    Prefetcher prefetcher(run, tile, kTilePages);
    std::uint8_t* sums = run.sums;
    for (std::size_t column = first; column < end; ++column) {
      if (Prefetcher::kDistance != 0) {
        // After the last column comes the next tile's first.
        const std::size_t ahead = column + Prefetcher::kDistance;
        prefetcher.take_column(ahead < inner ? pages + columns.offset(ahead)
                                             : pages + kTilePages * page_size +
                                                   columns.offset(first + (ahead - inner)));
      }
      method.add_column(pages + columns.offset(column), rows, count, prefetcher, sums);
      sums += run.sum_stride * Method::kColumnBytes;
    }
  }
}

// Scans one strip like scan_run(), but in panels of `width` columns of the pages of a block. The
// sums of a panel stay in the first-level cache from tile to tile.
template <class Method, class Prefetcher>
inline void scan_panels(const PageRun& run, std::size_t block_pages, std::size_t width) {
  constexpr std::size_t kTilePages = Method::kOctets * kOctet;
  static_assert(Prefetcher::kDistance == 0, "rows ahead are those of one tile");
  Method method(run.key_count);
  const Columns& columns = *run.columns;
  const std::size_t page_size = columns.page_size;
  const Rows rows{page_size, kOctet * page_size};
  for (std::size_t block = 0; block < run.page_count; block += block_pages) {
    const std::size_t left = run.page_count - block;
    const std::size_t end = block + (left < block_pages ? left : block_pages);
    Prefetcher prefetcher(run, block, block_pages);
    for (std::size_t first = run.first_column; first < run.end_column; first += width) {
      const std::size_t columns_left = run.end_column - first;
      const std::size_t last = first + (columns_left < width ? columns_left : width);
      for (std::size_t tile = block; tile < end; tile += kTilePages) {
        const std::size_t count = end - tile < kTilePages ? end - tile : kTilePages;
        const std::uint8_t* pages = run.pages + tile * page_size;
        method.select(run.selection + tile / kOctet * run.key_stride, run.key_stride);
        std::uint8_t* sums =
            run.sums + (first - run.first_column) * run.sum_stride * Method::kColumnBytes;
        for (std::size_t column = first; column < last; ++column) {
          method.add_column(pages + columns.offset(column), rows, count, prefetcher, sums);
          sums += run.sum_stride * Method::kColumnBytes;
        }
      }
    }
  }
}

}  // namespace
}  // namespace morphogen
