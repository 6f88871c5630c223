// Writes the sums of a strip of columns to the answers, a page for each key.
#pragma once

#include "scan_plan.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace morphogen {
namespace {

// Answers so large leave the caches before anybody reads them. To write whole lines past the caches
// saves a read of what they overwrite.
constexpr std::size_t kStreamedBytes = 16 << 20;

enum class Put { copy, stream, add };

template <Put How>
MORPHOGEN_FN void put_line(std::uint8_t* to, const Column<kCacheLine>& line) {
#if defined(__AVX512F__)
  if (How == Put::stream && reinterpret_cast<std::uintptr_t>(to) % kCacheLine == 0)
    return _mm512_stream_si512(reinterpret_cast<__m512i*>(to),
                               reinterpret_cast<__m512i>(line.part[0]));
#endif
  (How == Put::add ? Column<kCacheLine>::load(to) ^ line : line).store(to);
}

template <Put How>
MORPHOGEN_FN void put_bytes(std::uint8_t* to, const std::uint8_t* from, std::size_t bytes) {
  std::size_t at = 0;
  if constexpr (How == Put::stream) {
    const std::size_t head = (0 - reinterpret_cast<std::uintptr_t>(to)) % kCacheLine;
    for (; at < head && at < bytes; ++at) to[at] = from[at];
    for (; at + kCacheLine <= bytes; at += kCacheLine)
      put_line<How>(to + at, Column<kCacheLine>::load(from + at));
  }
  if constexpr (How == Put::add)
    for (; at < bytes; ++at) to[at] = static_cast<std::uint8_t>(to[at] ^ from[at]);
  else
    std::memcpy(to + at, from + at, bytes - at);
}

template <Put How>
class StripWriter {
 public:
  StripWriter(const ScanJob& job, const Plan& plan, const PageRun& run, std::uint8_t* out)
      : job_(job), plan_(plan), columns_(plan.columns), run_(run), out_(out) {}

  MORPHOGEN_FN void write() const {
#if defined(__AVX512BW__) && defined(__GFNI__)
    if (plan_.method == Method::gfni) {
      if (How == Put::stream && !columns_lie_on_lines()) return write_rows();
      return gather_sums(run_.sums, run_.first_column, run_.end_column, job_.key_count,
                         plan_.sum_stride,
                         [this](std::size_t key, std::size_t column, const Line& line) {
                           put_column(key, column, line);
                         });
    }
#endif
    const std::size_t bytes = columns_.bytes;
    for (std::size_t key = 0; key < job_.key_count; ++key) {
      const std::uint8_t* from = run_.sums + key * bytes;
      for (std::size_t column = run_.first_column; column < run_.end_column; ++column) {
        if (bytes == kCacheLine)
          put_column(key, column, Line::load(from));
        else
          put_own(key, column, from);
        from += plan_.sum_stride * bytes;
      }
    }
  }

 private:
  typedef Column<kCacheLine> Line;

  MORPHOGEN_FN std::uint8_t* place(std::size_t key, std::size_t column) const {
    return out_ + key * job_.page_size + columns_.own_start(column);
  }

  // Writes what a column shares with no column before it.
  MORPHOGEN_FN void put_own(std::size_t key, std::size_t column, const std::uint8_t* sum) const {
    const std::size_t start = columns_.own_start(column);
    put_bytes<How>(place(key, column), sum + (start - columns_.offset(column)),
                   columns_.own_start(column + 1) - start);
  }

  MORPHOGEN_FN void put_column(std::size_t key, std::size_t column, const Line& line) const {
    if (columns_.own_start(column + 1) - columns_.own_start(column) == kCacheLine)
      return put_line<How>(place(key, column), line);
    alignas(kCacheLine) std::uint8_t sum[kCacheLine];
    line.store(sum);
    put_own(key, column, sum);
  }

#if defined(__AVX512BW__) && defined(__GFNI__)
  // Tells whether the columns of all answers begin with lines of memory.
  bool columns_lie_on_lines() const {
    return (reinterpret_cast<std::uintptr_t>(out_) + columns_.head) % kCacheLine == 0 &&
           job_.page_size % kCacheLine == 0;
  }

  // Brings the columns of each row of the answers together first, and cuts them into lines anew.
  MORPHOGEN_FN void write_rows() const {
    constexpr std::size_t kMostColumns = 64;
    // The line more keeps rows out of each other's cache sets.
    alignas(kCacheLine) std::uint8_t rows[kOctet][(kMostColumns + 1) * kCacheLine];
    for (std::size_t first = run_.first_column; first < run_.end_column; first += kMostColumns) {
      const std::size_t left = run_.end_column - first;
      const std::size_t end = first + (left < kMostColumns ? left : kMostColumns);
      const std::size_t origin = columns_.offset(first), start = columns_.own_start(first);
      const std::uint8_t* sums =
          run_.sums + (first - run_.first_column) * plan_.sum_stride * kCacheLine;
      for (std::size_t group = 0; group < job_.key_count; group += kOctet) {
        const std::size_t keys_left = job_.key_count - group;
        const std::size_t keys = keys_left < kOctet ? keys_left : kOctet;
        gather_sums(sums + group * kCacheLine, first, end, keys, plan_.sum_stride,
                    [&](std::size_t key, std::size_t column, const Line& line) {
                      line.store(rows[key] + (columns_.offset(column) - origin));
                    });
        for (std::size_t key = 0; key < keys; ++key)
          put_bytes<How>(place(group + key, first), rows[key] + (start - origin),
                         columns_.own_start(end) - start);
      }
    }
  }
#endif

  const ScanJob& job_;
  const Plan& plan_;
  const Columns columns_;
  const PageRun& run_;
  std::uint8_t* const out_;
};

// Writes the sums of a strip, or adds them.
inline void write_sums(const ScanJob& job, const Plan& plan, const PageRun& run, bool add,
                       std::uint8_t* out) {
  if (add) {
    StripWriter<Put::add>(job, plan, run, out).write();
  } else if (job.key_count * job.page_size >= kStreamedBytes) {
    StripWriter<Put::stream>(job, plan, run, out).write();
#if defined(__AVX512F__)
    _mm_sfence();  // before another thread may read them
#endif
  } else {
    StripWriter<Put::copy>(job, plan, run, out).write();
  }
}

}  // namespace
}  // namespace morphogen
