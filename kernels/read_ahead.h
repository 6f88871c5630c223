// Reads a mapped file in order, ahead of a pass. The system reads ahead of threads that touch a file
// in order, but the strips of wide pages are far apart, and several threads share the pages.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <system_error>
#include <thread>

namespace morphogen {

class ReadAhead {
 public:
  // Takes `bytes` of a mapped file, or nothing. If parts of it are not in memory, this starts a
  // thread, which waits for the disk most of the time.
  ReadAhead(const std::uint8_t* start, std::uint64_t bytes) : start_(start), bytes_(bytes) {
    if (!is_needed()) return;
    // Each page is taken once a pass. The system would otherwise keep pages for having been touched,
    // and look long for others when it has no memory left for those that come.
    advise(0, bytes_, MADV_SEQUENTIAL);
    try {
      reader_ = std::thread([this] { read(); });
      on_ = true;
    } catch (const std::system_error&) {
      // The pass itself reads, in its own order.
      advise(0, bytes_, MADV_NORMAL);
    }
  }

  ~ReadAhead() {
    if (!on_) return;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      stopping_ = true;
    }
    wanted_changed_.notify_one();
    reader_.join();
    advise(0, bytes_, MADV_NORMAL);
  }

  ReadAhead(const ReadAhead&) = delete;
  ReadAhead& operator=(const ReadAhead&) = delete;

  bool is_on() const { return on_; }

  // Returns when the file was read up to `end`. What comes next is read meanwhile.
  void reach(std::uint64_t end) {
    if (!on_) return;
    end = std::min(end, bytes_);
    std::unique_lock<std::mutex> lock(mutex_);
    if (end > wanted_) {
      wanted_ = end;
      wanted_changed_.notify_one();
    }
    reached_changed_.wait(lock, [&] { return reached_ >= end; });
  }

 private:
  // Enough to keep a disk busy while threads scan.
  static constexpr std::uint64_t kAheadBytes = 32 << 20, kStepBytes = 1 << 20;
  // Smaller files are soon read.
  static constexpr std::uint64_t kLeastBytes = 64 << 20;
  static constexpr std::uint64_t kSamples = 32;
  // MADV_POPULATE_READ, which headers before glibc 2.35 do not have: it maps what it reads, without
  // a fault for every page.
  static constexpr int kPopulateRead = 22;

  // Looks at a sample of the file. It costs microseconds, a pass milliseconds.
  bool is_needed() const {
    if (bytes_ < kLeastBytes) return false;
    for (std::uint64_t sample = 0; sample < kSamples; ++sample) {
      const std::uint8_t* const byte = start_ + (bytes_ - 1) / (kSamples - 1) * sample;
      std::uint8_t* const page =
          const_cast<std::uint8_t*>(byte) - reinterpret_cast<std::uintptr_t>(byte) % page_bytes();
      unsigned char in_memory = 1;
      if (mincore(page, 1, &in_memory) == 0 && (in_memory & 1) == 0) return true;
    }
    return false;
  }

  void read() {
    std::unique_lock<std::mutex> lock(mutex_);
    while (reached_ < bytes_) {
      wanted_changed_.wait(lock, [&] { return stopping_ || reached_ < wanted_ + kAheadBytes; });
      if (stopping_) return;
      const std::uint64_t from = reached_, end = std::min(from + kStepBytes, bytes_);
      lock.unlock();
      // Kernels before Linux 5.14 do not know this advice, and a file may be shorter by now.
      if (!advise(from, end, kPopulateRead)) {
        for (std::uint64_t at = from; at < end; at += page_bytes())
          (void)*static_cast<const volatile std::uint8_t*>(start_ + at);
      }
      lock.lock();
      reached_ = end;
      reached_changed_.notify_all();
    }
  }

  // Advises the system of the bytes from `from` to `end`, and returns whether it took the advice.
  bool advise(std::uint64_t from, std::uint64_t end, int advice) const {
    const auto start = reinterpret_cast<std::uintptr_t>(start_);
    const std::uintptr_t first = (start + from) / page_bytes() * page_bytes();
    return madvise(reinterpret_cast<void*>(first), start + end - first, advice) == 0;
  }

  // The system's pages, not the table's.
  static std::uintptr_t page_bytes() {
    static const auto bytes = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
    return bytes;
  }

  const std::uint8_t* start_;
  std::uint64_t bytes_, wanted_ = 0, reached_ = 0;
  bool on_ = false, stopping_ = false;
  std::mutex mutex_;
  std::condition_variable wanted_changed_, reached_changed_;
  std::thread reader_;
};

}  // namespace morphogen
