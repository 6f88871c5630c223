#include "host_scanner.h"

#include <algorithm>
#include <cstdlib>
#include <new>

namespace morphogen {
namespace {

// To wake a thread takes tens of microseconds, about as long as to read a megabyte.
constexpr std::uint64_t kBytesPerThread = 1 << 20;
constexpr std::size_t kScratchAlign = 4096;

}  // namespace

ThreadTeam::ThreadTeam(std::size_t size) {
  threads_.reserve(size - 1);
  try {
    for (std::size_t member = 1; member < size; ++member)
      threads_.emplace_back([this, member] { work(member); });
  } catch (...) {
    stop();
    throw;
  }
}

ThreadTeam::~ThreadTeam() { stop(); }

void ThreadTeam::stop() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  start_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void ThreadTeam::run(std::size_t count, Function function, const void* context) {
  if (count > 1) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      function_ = function;
      context_ = context;
      count_ = count;
      pending_ = count - 1;
      ++round_;
    }
    start_.notify_all();
  }
  function(context, 0);
  if (count > 1) {
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [this] { return pending_ == 0; });
  }
}

void ThreadTeam::work(std::size_t member) {
  std::uint64_t seen = 0;
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    start_.wait(lock, [&] { return stopping_ || round_ != seen; });
    if (stopping_) return;
    seen = round_;
    if (member >= count_) continue;
    const Function function = function_;
    const void* const context = context_;
    lock.unlock();
    function(context, member);
    lock.lock();
    if (--pending_ == 0) done_.notify_one();
  }
}

HostScanner::HostScanner(const HostKernels& kernels, std::size_t threads)
    : kernels_(kernels), team_(threads), scratch_views_(threads) {
  scratch_.reserve(threads);
}

void HostScanner::Free::operator()(std::uint8_t* bytes) const { std::free(bytes); }

std::size_t HostScanner::team_for(std::uint64_t bytes) const {
  const std::uint64_t useful = bytes / kBytesPerThread;
  return static_cast<std::size_t>(
      std::min<std::uint64_t>(std::max<std::uint64_t>(useful, 1), team_.size()));
}

void HostScanner::answer(const ScanJob& job, std::uint8_t* out) {
  const std::size_t count = team_for(job.page_count * job.page_size);
  const std::size_t needed = kernels_.scratch_bytes(job);
  if (needed > scratch_bytes_) {
    scratch_.clear();
    scratch_bytes_ = 0;
  }
  while (scratch_.size() < count) {
    const std::size_t bytes = std::max(needed, scratch_bytes_);
    void* memory = std::aligned_alloc(kScratchAlign,
                                      (bytes + kScratchAlign - 1) / kScratchAlign * kScratchAlign);
    if (memory == nullptr) throw std::bad_alloc();
    scratch_bytes_ = bytes;
    scratch_.emplace_back(static_cast<std::uint8_t*>(memory));
    scratch_views_[scratch_.size() - 1] = scratch_.back().get();
  }

  const std::uint64_t granule = scan_granule(job.page_size);
  const std::uint64_t granules = (job.page_count + granule - 1) / granule;
  team_.run(count, [&](std::size_t member) {
    const std::uint64_t first = granules * member / count * granule;
    const std::uint64_t last =
        std::min(granules * (member + 1) / count * granule, job.page_count);
    kernels_.scan(job, first, last, scratch_views_[member]);
  });
  kernels_.finish(job, scratch_views_.data(), count, out);
}

std::uint64_t HostScanner::read(const std::uint8_t* data, std::size_t bytes) {
  const std::size_t count = team_for(bytes);
  std::vector<std::uint64_t> sums(count);
  const std::size_t words = bytes / 8;
  team_.run(count, [&](std::size_t member) {
    const std::size_t first = words * member / count * 8;
    const std::size_t last = member + 1 == count ? bytes : words * (member + 1) / count * 8;
    sums[member] = kernels_.read(data + first, last - first);
  });
  std::uint64_t sum = 0;
  for (std::uint64_t part : sums) sum ^= part;
  return sum;
}

}  // namespace morphogen
