// Reads a mapped file in order while a pass takes its pages strip by strip. The system reads ahead
// of a thread that touches a file in order, but strips are small parts of pages, far apart.
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
    try {
      reader_ = std::thread([this] { read(); });
      on_ = true;
    } catch (const std::system_error&) {
      // The pass itself reads, in its own order.
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
      for (std::uint64_t at = from; at < end; at += page_bytes())
        (void)*static_cast<const volatile std::uint8_t*>(start_ + at);
      lock.lock();
      reached_ = end;
      reached_changed_.notify_all();
    }
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
