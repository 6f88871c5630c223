#include "standin_state.h"

#include <sys/mman.h>
#include <time.h>

#include <cctype>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace standin {
namespace {

// No processor maps addresses from here on: a device pointer that is used on the host crashes.
constexpr std::uint64_t kDeviceSpace = std::uint64_t{1} << 48;
constexpr std::uint64_t kDeviceStride = std::uint64_t{1} << 44;
constexpr std::uint64_t kMappedSpace = kDeviceSpace + (std::uint64_t{1} << 47);
constexpr std::int64_t kInitial[kSettings] = {
#define X(id, name, initial) initial,
    STANDIN_SETTINGS(X)
#undef X
};

std::string plural(std::size_t count, const char* what) {
  return std::to_string(count) + " " + what + (count == 1 ? "" : "s");
}

}  // namespace

const char* const kFunctionNames[kFunctions] = {
#define X(id, name, since, entry) name,
    STANDIN_FUNCTIONS(X)
#undef X
};

const char* const kSettingNames[kSettings] = {
#define X(id, name, initial) name,
    STANDIN_SETTINGS(X)
#undef X
};

Allocation::Allocation(std::uint64_t address, std::size_t bytes, bool poisoned)
    : address(address), bytes(bytes) {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw Failure{CUDA_ERROR_OUT_OF_MEMORY, ""};
  host = static_cast<std::uint8_t*>(memory);
  if (poisoned) std::memset(host, kPoison, bytes);
}

Allocation::~Allocation() { munmap(host, bytes); }

Driver::Driver() {
  restore_settings();
  next_handle = 0x100000;
  next_mapped_address = kMappedSpace;
  for (int i = 0; i < kMaxDevices; ++i) devices[i].next_address = kDeviceSpace + i * kDeviceStride;
  for (std::atomic<std::uint64_t>& count : counts) count = 0;
  reset();
}

Driver& Driver::get() {
  static Driver* const driver = new Driver;
  return *driver;
}

void Driver::restore_settings() {
  for (int i = 0; i < kSettings; ++i) {
    std::string variable = "STANDIN_";
    for (const char* c = kSettingNames[i]; *c; ++c)
      variable += static_cast<char>(std::toupper(static_cast<unsigned char>(*c)));
    const char* value = std::getenv(variable.c_str());
    settings[i] = value ? std::strtoll(value, nullptr, 0) : kInitial[i];
  }
}

std::int64_t Driver::setting_of(int device, Setting which) const {
  const auto own = devices[device].settings.find(which);
  return own == devices[device].settings.end() ? settings[which].load() : own->second;
}

void Driver::reset() {
  while (!contexts.empty()) destroy(contexts.begin()->first);
  ++epoch;
  for (Device& device : devices) {
    device.lost = CUDA_SUCCESS;
    device.settings.clear();
  }
  random = 0;
  faults.clear();
  compiled.clear();
  misuse.clear();
  leaks.clear();
  failures.clear();
}

void Driver::destroy(std::uint64_t handle) {
  const std::shared_ptr<Context> context = contexts.at(handle);
  contexts.erase(handle);
  Device& device = devices[context->device];
  device.primary = 0;
  const std::pair<std::size_t, const char*> left[] = {
      {context->device_memory.size(), "device allocation"},
      {context->host_memory.size(), "host allocation"},
      {context->modules.size(), "module"},
      {context->streams.size(), "stream"},
      {context->events.size(), "event"},
      {context->graphs.size(), "graph"},
      {context->graph_execs.size(), "instantiated graph"},
  };
  // After a failure nothing can be freed but by destroying the context.
  const bool failed = context->failed != CUDA_SUCCESS || device.lost != CUDA_SUCCESS;
  for (const auto& [count, what] : left)
    if (count > 0 && !failed) leaks.push_back(plural(count, what) + " left in a destroyed context");

  for (const auto& [address, allocation] : context->device_memory) device.used -= allocation->bytes;
  for (const auto& [address, allocation] : context->host_memory) pinned -= allocation->bytes;
  context->streams.emplace(0, context->legacy);
  for (const auto& [id, stream] : context->streams) {
    stream->queue.clear();
    stream->done = stream->queued;
  }
  context->legacy.reset();
  context->streams.clear();
  context->events.clear();
  context->graphs.clear();
  context->graph_execs.clear();
  context->modules.clear();
  context->functions.clear();
  context->device_memory.clear();
  context->host_memory.clear();
  context->failed = CUDA_ERROR_CONTEXT_IS_DESTROYED;
}

std::int64_t now_ns() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return std::int64_t{now.tv_sec} * 1000000000 + now.tv_nsec;
}

// Two streams may wait for each other's earlier work, and two threads may do the work of both. So a
// thread waits for a piece of work, not for the thread that does it: that thread may go on to
// pieces that wait for this one. A piece waits only for pieces that were queued before it, so no
// ring can close.
void work(const Point& until, std::uint64_t pieces) {
  Driver& driver = Driver::get();
  Stream& stream = *until.stream;
  std::unique_lock<std::mutex> lock(driver.mutex);
  const auto finished = [&] { return stream.done >= until.position; };
  if (pieces != kAll && stream.running) return;
  driver.progress.wait(lock, [&] {
    return finished() || (!stream.running && driver.settings[kHeld] == 0);
  });
  if (finished()) return;
  stream.running = true;
  for (; pieces > 0 && !finished() && !stream.queue.empty(); --pieces) {
    const Work piece = std::move(stream.queue.front());
    stream.queue.pop_front();
    const Context& context = *stream.context;
    lock.unlock();
    for (const Point& point : piece.after) work(point);
    lock.lock();
    if (context.failed == CUDA_SUCCESS && driver.devices[context.device].lost == CUDA_SUCCESS) {
      lock.unlock();
      Failure failure{CUDA_SUCCESS, ""};
      try {
        piece.run();
      } catch (const Failure& thrown) {
        failure = thrown;
      }
      lock.lock();
      if (failure.result != CUDA_SUCCESS) {
        std::fprintf(stderr, "stand-in driver: %s\n", failure.reason.c_str());
        driver.failures.push_back(failure.reason);
        stream.context->failed = failure.result;
      }
    }
    ++stream.done;
    driver.progress.notify_all();
  }
  stream.running = false;
  driver.progress.notify_all();
}

void work_all(Context& context) {
  std::vector<Point> points;
  {
    std::lock_guard<std::mutex> lock(Driver::get().mutex);
    points.push_back({context.legacy, context.legacy->queued});
    for (const auto& [id, stream] : context.streams) points.push_back({stream, stream->queued});
  }
  for (const Point& point : points) work(point);
}

}  // namespace standin
