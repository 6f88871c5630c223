// What the scan methods for narrow pages share: where they read, and the loop over all pages.
//
// A method takes four steps of pages at a time. In order memory these follow each other. In order
// rows they come from four streams: the hardware follows each by itself, so that more lines are
// under way than in one stretch (docs/experiments.md).
#pragma once

#include "page_scan.h"

namespace morphogen {
namespace {

constexpr std::size_t kNarrowBytes = 256;  // of the least page that is not narrow
constexpr std::size_t kNarrowStreams = 4;
// By measurement: the distance of prefetches in one of several streams and in memory order, and the
// stretch of memory from one stream to the next. The first lines of a stretch are not prefetched.
constexpr std::size_t kStreamAheadBytes = 512, kNarrowAheadBytes = 8 << 10;
constexpr std::size_t kStretchBytes = 32 << 10;

// Returns the bytes from a step to the lines that are asked for with it, which are not its own.
MORPHOGEN_FN std::size_t narrow_ahead(const PageRun& run, std::size_t step_pages) {
  if (!run.in_streams) return kNarrowAheadBytes;
  const std::size_t step_bytes = step_pages * run.columns->page_size + kStreamAheadBytes / 2;
  return step_bytes > kStreamAheadBytes ? step_bytes : kStreamAheadBytes;
}

// Adds all pages of a run. `method` takes step_pages() at a time in each of several streams, or
// fewer at the end. Its selection has kOctetBytes for every 8 pages.
template <class Method>
inline void scan_narrow(const PageRun& run, const Method& method) {
  const std::size_t page_size = run.columns->page_size, step = method.step_pages();
  const std::uint8_t* pages = run.pages;
  const std::uint8_t* selection = run.selection;
  std::size_t left = run.page_count;
  const auto advance = [&](std::size_t count) {
    pages += count * page_size;
    selection += count / kOctet * Method::kOctetBytes;
    left -= count;
  };
  while (!run.in_streams && left >= kNarrowStreams * step) {
    method.template add<kNarrowStreams>(pages, step * page_size, selection,
                                        step / kOctet * Method::kOctetBytes);
    advance(kNarrowStreams * step);
  }
  std::size_t stream = kLeafBits;  // streams begin at whole leaves
  while (stream * page_size < kStretchBytes) stream *= 2;
  // The rest is cut into shorter streams, down to what the hardware takes for one.
  for (; stream >= kLeafBits && stream * page_size >= kRowBytes; stream /= 2) {
    while (left >= kNarrowStreams * stream) {
      for (std::size_t page = 0; page < stream; page += step)
        method.template add<kNarrowStreams>(pages + page * page_size, stream * page_size,
                                            selection + page / kOctet * Method::kOctetBytes,
                                            stream / kOctet * Method::kOctetBytes);
      advance(kNarrowStreams * stream);
    }
  }
  while (left >= step) {
    method.template add<1>(pages, 0, selection, 0);
    advance(step);
  }
  if (left > 0) method.add_rest(pages, selection, left);
}

}  // namespace
}  // namespace morphogen
