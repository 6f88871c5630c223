#include "host_scanner.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <new>

#include "read_ahead.h"

namespace morphogen {
namespace {

// To wake a thread takes tens of microseconds, about as long as to read a megabyte.
constexpr std::uint64_t kBytesPerThread = 1 << 20;
// So many keys count as much as a read of the pages. They cost more than that in a pass, but threads
// must also add up the sums of each: measured at 0.5 to 4 MiB and 96 keys (docs/experiments.md).
constexpr std::uint64_t kKeysOfARead = 128;
// To expand a key for a page takes about as long as to read this many of its bytes.
constexpr std::uint64_t kExpandedBytes = 1;
constexpr std::size_t kScratchAlign = 4096;

// A thread that is late, since another program has its core, keeps the others waiting for one piece
// at most.
constexpr std::uint64_t kPiecesPerThread = 10;
constexpr std::uint64_t kLeastPieceBytes = 128 << 10, kMostPieceBytes = 32 << 20;
// The pages of a piece for each key, if the threads that share a strip add up their sums: each then
// adds less than a tenth of what it scans.
constexpr std::uint64_t kPiecePagesPerKey = 8;
// Strips of so many bytes of pages are scanned before the next pages. It is many times the answers'
// bytes, since the sums of each strip are then added to them.
constexpr std::uint64_t kBlockBytes = 512 << 20, kBlockAnswers = 8;
// The same for files that are read from their disk: a block must stay in memory until its last
// strip is scanned, since it would be read again for each strip. Pages without strips are scanned
// as they come.
constexpr std::uint64_t kFileBlockBytes = 32 << 20, kFileBlockAnswers = 2;
constexpr std::uint64_t kFilePieceBytes = 4 << 20;

std::uint64_t divide_up(std::uint64_t value, std::uint64_t unit) {
  return (value + unit - 1) / unit;
}

// Moves this thread to any other core that it may use. Its affinity is the same afterwards.
void leave_core(int core) {
  cpu_set_t own;
  // This fails where there are more cores than a cpu_set_t has: then the thread stays.
  if (sched_getaffinity(0, sizeof(own), &own) != 0 || CPU_COUNT(&own) < 2) return;
  cpu_set_t others = own;
  CPU_CLR(core, &others);
  if (sched_setaffinity(0, sizeof(others), &others) == 0) sched_setaffinity(0, sizeof(own), &own);
}

// The cut of a pass into pieces, each some pages of one strip, or all pages of some strips side by
// side. Strips are disjoint columns of the answers. Pieces are numbered in the order that reads
// pages nearly as they lie in memory and leaves a thread with the same strip for as long as there
// is some of it.
class Cut {
 public:
  struct Piece {
    std::size_t first_strip, last_strip;
    std::uint64_t first, last;
  };

  Cut(const ScanJob& job, std::size_t strips, std::size_t threads, bool from_disk)
      : page_count_(job.page_count), strips_(strips), block_pages_(job.page_count) {
    const std::uint64_t granule = scan_granule(job.page_size);
    if (strips > 1) {
      const std::uint64_t answers =
          (from_disk ? kFileBlockAnswers : kBlockAnswers) * job.key_count;
      const std::uint64_t bytes = from_disk ? kFileBlockBytes : kBlockBytes;
      const std::uint64_t pages = std::max(bytes / job.page_size, answers);
      block_pages_ = std::min(divide_up(pages, granule) * granule, page_count_);
    }
    blocks_ = divide_up(page_count_, block_pages_);
    run_pages_ = block_pages_;
    if (from_disk && strips == 1) {
      const std::uint64_t pages = divide_up(kFilePieceBytes, job.page_size);
      run_pages_ = std::min(divide_up(pages, granule) * granule, page_count_);
      return;
    }
    if (threads == 1) return;
    const std::uint64_t strip_bytes = std::max<std::uint64_t>(job.page_size / strips, 1);
    const std::uint64_t wanted = divide_up(kPiecesPerThread * threads, blocks_ * strips);
    std::uint64_t least = kLeastPieceBytes / strip_bytes;
    if (strips > 1) least = std::max(least, kPiecePagesPerKey * job.key_count);
    std::uint64_t pages = std::max(divide_up(block_pages_, wanted), least);
    pages = std::min(pages, std::max(kMostPieceBytes / strip_bytes, least));
    run_pages_ = std::min(divide_up(pages, granule) * granule, block_pages_);
    // A thread asks for the lines of the next strip while it ends one, so it should be the one that
    // takes it.
    if (runs() == 1)
      piece_strips_ = std::max<std::uint64_t>(blocks_ * strips / (kPiecesPerThread * threads), 1);
  }

  std::uint64_t runs() const { return divide_up(block_pages_, run_pages_); }
  std::uint64_t groups() const { return divide_up(strips_, piece_strips_); }
  std::uint64_t pieces() const { return blocks_ * groups() * runs(); }

  // Tells whether several pieces add to the same bytes of the answers.
  bool shares_strips() const { return blocks_ > 1 || runs() > 1; }

  // Returns the end of what must be in memory for a piece: the pages of its block, which other
  // strips take next.
  std::uint64_t end_of_need(const Piece& piece) const {
    return strips_ == 1 ? piece.last : (piece.first / block_pages_ + 1) * block_pages_;
  }

  // A piece of the last block may have no pages.
  Piece piece(std::uint64_t number) const {
    const std::uint64_t run = number % runs();
    const std::uint64_t group = number / runs() % groups();
    const std::uint64_t block = number / runs() / groups();
    const std::uint64_t first = block * block_pages_ + run * run_pages_;
    const std::uint64_t end = std::min((block + 1) * block_pages_, page_count_);
    const std::uint64_t last_strip = std::min((group + 1) * piece_strips_, strips_);
    return {static_cast<std::size_t>(group * piece_strips_), static_cast<std::size_t>(last_strip),
            first, std::min(first + run_pages_, end)};
  }

 private:
  std::uint64_t page_count_, strips_, piece_strips_ = 1, blocks_ = 1, block_pages_, run_pages_ = 0;
};

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
      caller_core_ = sched_getcpu();
      ++round_;
    }
    start_.notify_all();
  }
  function(context, 0);
  if (count > 1) {
    std::unique_lock<std::mutex> lock(mutex_);
    count_ = 0;
    done_.wait(lock, [this] { return running_ == 0; });
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
    const int caller_core = caller_core_;
    ++running_;
    lock.unlock();
    // A scheduler that finds no idle core may wake a thread on the caller's. There both would stay
    // for the whole pass: to move one to another program's core would only swap their loads.
    if (caller_core >= 0 && sched_getcpu() == caller_core) leave_core(caller_core);
    function(context, member);
    lock.lock();
    if (--running_ == 0) done_.notify_one();
  }
}

HostScanner::HostScanner(const HostKernels& kernels, std::size_t threads)
    : kernels_(kernels), team_(threads) {
  scratch_.reserve(threads);
}

void HostScanner::Free::operator()(std::uint8_t* bytes) const { std::free(bytes); }

std::size_t HostScanner::team_for(std::uint64_t bytes) const {
  const std::uint64_t useful = bytes / kBytesPerThread;
  return static_cast<std::size_t>(
      std::min<std::uint64_t>(std::max<std::uint64_t>(useful, 1), team_.size()));
}

std::size_t HostScanner::team_for(const ScanJob& job, std::size_t scratch_bytes) const {
  const std::uint64_t scanned = job.page_size + job.page_size * job.key_count / kKeysOfARead;
  const std::uint64_t bytes = job.page_count * (scanned + job.key_count * kExpandedBytes);
  const std::size_t most = std::max<std::size_t>(kMostScratchBytes / scratch_bytes, 1);
  return std::min(team_for(bytes), most);
}

void HostScanner::reserve_scratch(std::size_t count, std::size_t bytes) {
  bytes = static_cast<std::size_t>(divide_up(bytes, kScratchAlign)) * kScratchAlign;
  if (bytes > scratch_bytes_ || count * scratch_bytes_ > kMostScratchBytes) {
    scratch_.clear();
    scratch_bytes_ = bytes;
  }
  while (scratch_.size() < count) {
    void* memory = std::aligned_alloc(kScratchAlign, scratch_bytes_);
    if (memory == nullptr) throw std::bad_alloc();
    scratch_.emplace_back(static_cast<std::uint8_t*>(memory));
  }
}

void HostScanner::answer(const ScanJob& job, std::uint8_t* out) {
  const ScanShape shape = kernels_.shape(job);
  std::size_t count = team_for(job, shape.scratch_bytes);
  const std::uint64_t body_pages = job.page_count - (job.tail != nullptr);
  ReadAhead ahead(job.body, job.body_is_mapped ? body_pages * job.page_size : 0);
  const Cut cut(job, shape.strips, count, ahead.is_on());
  count = static_cast<std::size_t>(std::min<std::uint64_t>(count, cut.pieces()));
  reserve_scratch(count, shape.scratch_bytes);

  const bool add = cut.shares_strips();
  if (add) std::memset(out, 0, job.key_count * job.page_size);
  std::atomic<std::uint64_t> next{0};
  std::mutex adding;
  team_.run(count, [&](std::size_t member) {
    std::uint8_t* const scratch = scratch_[member].get();
    kernels_.begin(job, scratch);
    std::size_t strip = shape.strips;  // none
    const auto finish = [&] {
      if (strip == shape.strips) return;
      std::unique_lock<std::mutex> lock(adding, std::defer_lock);
      if (add) lock.lock();
      kernels_.finish(job, strip, add, scratch, out);
    };
    for (;;) {
      const std::uint64_t number = next.fetch_add(1, std::memory_order_relaxed);
      if (number >= cut.pieces()) break;
      const Cut::Piece piece = cut.piece(number);
      if (piece.first >= piece.last) continue;
      ahead.reach(cut.end_of_need(piece) * job.page_size);
      for (std::size_t next_strip = piece.first_strip; next_strip < piece.last_strip; ++next_strip) {
        const bool fresh = next_strip != strip;
        if (fresh) finish();
        strip = next_strip;
        kernels_.scan(job, strip, piece.first, piece.last, fresh, scratch);
      }
    }
    finish();
  });
}

std::uint64_t HostScanner::read(const std::uint8_t* data, std::size_t bytes) {
  const std::size_t count = team_for(bytes);
  const std::uint64_t pieces = count > 1 ? kPiecesPerThread * count : 1;
  const std::size_t words = bytes / 8;
  std::atomic<std::uint64_t> next{0}, total{0};
  team_.run(count, [&](std::size_t) {
    std::uint64_t sum = 0;
    for (;;) {
      const std::uint64_t piece = next.fetch_add(1, std::memory_order_relaxed);
      if (piece >= pieces) break;
      const std::size_t first = words * piece / pieces * 8;
      const std::size_t last = piece + 1 == pieces ? bytes : words * (piece + 1) / pieces * 8;
      sum ^= kernels_.read(data + first, last - first);
    }
    total.fetch_xor(sum, std::memory_order_relaxed);
  });
  return total;
}

}  // namespace morphogen
