// Runs page scans on a team of threads that live as long as the scanner.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "host_kernels.h"

namespace morphogen {

// A fixed number of threads, of which the caller is one. Only one caller may use it at a time.
class ThreadTeam {
 public:
  explicit ThreadTeam(std::size_t size);
  ~ThreadTeam();
  ThreadTeam(const ThreadTeam&) = delete;
  ThreadTeam& operator=(const ThreadTeam&) = delete;

  std::size_t size() const { return threads_.size() + 1; }

  // Calls task(0) on this thread, and task(1), ..., task(count - 1) on others, and returns when all
  // have returned. Those that have not begun when task(0) returns are left out: a thread may wake
  // late, and tasks share out their work among those that are there. `count` is at most size(). A
  // task must not throw. This allocates nothing.
  template <class Task>
  void run(std::size_t count, const Task& task) {
    run(count, [](const void* context, std::size_t member) {
      (*static_cast<const Task*>(context))(member);
    }, &task);
  }

 private:
  typedef void (*Function)(const void* context, std::size_t member);

  void run(std::size_t count, Function function, const void* context);
  void work(std::size_t member);
  void stop();

  std::mutex mutex_;
  std::condition_variable start_, done_;
  Function function_ = nullptr;
  const void* context_ = nullptr;
  std::size_t count_ = 0;  // members that may begin
  std::size_t running_ = 0;
  int caller_core_ = -1;  // where the caller was as it woke the others
  std::uint64_t round_ = 0;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

// The most scratch memory of a pass, whatever the threads and the pages. A pass that would need
// more takes fewer threads.
constexpr std::size_t kMostScratchBytes = 56 << 20;

class HostScanner {
 public:
  HostScanner(const HostKernels& kernels, std::size_t threads);

  const HostKernels& kernels() const { return kernels_; }
  std::size_t threads() const { return team_.size(); }

  // Returns the bytes of scratch memory that passes have left.
  std::size_t scratch_bytes() const { return scratch_.size() * scratch_bytes_; }

  // Makes one pass and writes one page a key, page_size apart. It allocates only if a job needs
  // more scratch than any job before it, and never more than kMostScratchBytes for all threads.
  void answer(const ScanJob& job, std::uint8_t* out);

  // Returns the XOR of the bytes as 64-bit words. It uses as many threads as a pass would.
  std::uint64_t read(const std::uint8_t* data, std::size_t bytes);

 private:
  struct Free {
    void operator()(std::uint8_t* bytes) const;
  };

  // Returns the number of threads that it pays to wake.
  std::size_t team_for(std::uint64_t bytes) const;
  std::size_t team_for(const ScanJob& job, std::size_t scratch_bytes) const;
  void reserve_scratch(std::size_t count, std::size_t bytes);

  const HostKernels& kernels_;
  ThreadTeam team_;
  std::size_t scratch_bytes_ = 0;
  std::vector<std::unique_ptr<std::uint8_t, Free>> scratch_;
};

}  // namespace morphogen
