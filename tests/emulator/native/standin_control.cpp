// Functions by which a test controls the stand-in driver and reads its state: see
// tests/emulator/standin_driver.py.

#include <cstdio>
#include <cstring>
#include <string>

#include "standin_call.h"

using namespace standin;

namespace {

int function_named(const char* name) {
  for (int i = 0; i < kFunctions; ++i)
    if (std::strcmp(kFunctionNames[i], name) == 0) return i;
  return -1;
}

int setting_named(const char* name) {
  for (int i = 0; i < kSettings; ++i)
    if (std::strcmp(kSettingNames[i], name) == 0) return i;
  return -1;
}

bool belongs_to_device(Setting setting) {
  switch (setting) {
    case kComputeCapability:
    case kMultiprocessors:
    case kComputeMode:
    case kTotalMemory:
    case kFreeMemory:
      return true;
    default:
      return false;
  }
}

bool is_device(int device) { return device >= 0 && device < kMaxDevices; }

bool queues_work(Function function) {
  switch (function) {
    case kMemcpyHtoD:
    case kMemcpyDtoH:
    case kMemcpyHtoDAsync:
    case kMemcpyDtoHAsync:
    case kMemsetD8Async:
    case kMemsetD32Async:
    case kStreamWaitEvent:
    case kEventRecord:
    case kLaunchKernel:
    case kGraphLaunch:
      return true;
    default:
      return false;
  }
}

std::string quoted(const std::string& text) {
  std::string json = "\"";
  for (const char c : text) {
    char escaped[8];
    const auto code = static_cast<unsigned char>(c);
    if (code < 0x20 || code >= 0x7F || c == '"' || c == '\\') {
      std::snprintf(escaped, sizeof escaped, "\\u%04x", code);
      json += escaped;
    } else {
      json += c;
    }
  }
  return json + '"';
}

template <class Items, class Format>
std::string list(const Items& items, const char* brackets, const Format& format) {
  std::string json(1, brackets[0]);
  for (const auto& item : items) {
    if (json.size() > 1) json += ',';
    json += format(item);
  }
  return json + brackets[1];
}

std::string strings(const std::vector<std::string>& items) { return list(items, "[]", quoted); }

struct Count {
  std::string name;
  std::int64_t value;
};

std::string counts(const std::vector<Count>& items) {
  return list(items, "{}", [](const Count& item) {
    return quoted(item.name) + ':' + std::to_string(item.value);
  });
}

std::string size(ptx::Dim3 size) {
  return '[' + std::to_string(size.x) + ',' + std::to_string(size.y) + ',' +
         std::to_string(size.z) + ']';
}

std::vector<Count> live(const Driver& driver) {
  std::vector<Count> sums = {{"retains", 0}, {"device_memory", 0}, {"device_bytes", 0},
                             {"host_memory", 0}, {"host_bytes", 0}, {"modules", 0},
                             {"streams", 0}, {"events", 0}, {"graphs", 0},
                             {"graph_execs", 0}, {"current", 0}};
  for (const auto& [id, context] : driver.contexts) {
    sums[0].value += context->retains;
    sums[1].value += static_cast<std::int64_t>(context->device_memory.size());
    sums[2].value += static_cast<std::int64_t>(driver.devices[context->device].used);
    sums[3].value += static_cast<std::int64_t>(context->host_memory.size());
    sums[5].value += static_cast<std::int64_t>(context->modules.size());
    sums[6].value += static_cast<std::int64_t>(context->streams.size());
    sums[7].value += static_cast<std::int64_t>(context->events.size());
    sums[8].value += static_cast<std::int64_t>(context->graphs.size());
    sums[9].value += static_cast<std::int64_t>(context->graph_execs.size());
  }
  sums[4].value = static_cast<std::int64_t>(driver.pinned);
  sums[10].value = static_cast<std::int64_t>(context_stack().size());
  return sums;
}

std::string report(const Driver& driver, const std::string& section) {
  if (section == "misuse") return strings(driver.misuse);
  if (section == "leaks") return strings(driver.leaks);
  if (section == "failures") return strings(driver.failures);
  if (section == "used")
    return list(driver.devices, "[]",
                [](const Device& device) { return std::to_string(device.used); });
  if (section == "live") return counts(live(driver));
  if (section == "log")
    return list(driver.log, "[]", [](const LogEntry& entry) {
      return '[' + quoted(kFunctionNames[entry.function]) + ',' + std::to_string(entry.result) +
             ',' + std::to_string(entry.thread) + ']';
    });
  if (section == "launches")
    return list(driver.launches, "[]", [](const Launch& launch) {
      return '[' + quoted(launch.kernel) + ',' + size(launch.grid) + ',' + size(launch.block) + ',' +
             std::to_string(reinterpret_cast<std::uintptr_t>(launch.stream)) + ']';
    });
  std::vector<Count> items;
  if (section == "calls")
    for (int i = 0; i < kFunctions; ++i)
      items.push_back({kFunctionNames[i], static_cast<std::int64_t>(driver.counts[i])});
  if (section == "settings")
    for (int i = 0; i < kSettings; ++i) items.push_back({kSettingNames[i], driver.settings[i]});
  if (section == "results") {
#define X(name, number, text) items.push_back({#name, number});
    STANDIN_RESULTS(X)
#undef X
  }
  if (section == "attributes") {
#define X(name, number, value) items.push_back({#name, number});
    STANDIN_ATTRIBUTES(X)
#undef X
  }
  return counts(items);
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

// Returns JSON, which is valid until the calling thread's next report.
const char* standin_report(const char* section) {
  thread_local std::string text;
  Driver& driver = Driver::get();
  std::lock_guard<std::mutex> lock(driver.mutex);
  text = report(driver, section);
  return text.c_str();
}

// Returns false if there is no such setting.
bool standin_set(const char* name, std::int64_t value) {
  const int which = setting_named(name);
  if (which < 0) return false;
  Driver& driver = Driver::get();
  std::lock_guard<std::mutex> lock(driver.mutex);
  driver.settings[which] = value;
  driver.progress.notify_all();  // of those that were held
  for (Device& device : driver.devices) device.settings.erase(static_cast<Setting>(which));
  return true;
}

// Returns false if there is no such device, or no such setting of one device alone.
bool standin_set_device(int device, const char* name, std::int64_t value) {
  const int which = setting_named(name);
  if (which < 0 || !belongs_to_device(static_cast<Setting>(which)) || !is_device(device))
    return false;
  Driver& driver = Driver::get();
  std::lock_guard<std::mutex> lock(driver.mutex);
  driver.devices[device].settings[static_cast<Setting>(which)] = value;
  return true;
}

// Sets the free memory of every device from now on, whatever is allocated on it.
void standin_set_free_memory(std::int64_t bytes) {
  Driver& driver = Driver::get();
  std::lock_guard<std::mutex> lock(driver.mutex);
  for (Device& device : driver.devices)
    device.settings[kFreeMemory] = bytes + static_cast<std::int64_t>(device.used);
}

// Fails all that is done on a device from now on. Returns false if there is no such device.
bool standin_lose(int device, int result) {
  if (!is_device(device)) return false;
  Driver& driver = Driver::get();
  std::lock_guard<std::mutex> lock(driver.mutex);
  driver.devices[device].lost = static_cast<CUresult>(result);
  return true;
}

// Makes the call-th call from now fail, of those in the context of a device or of all. `scope` is a
// Scope. Returns false if there is no such function, or if it queues no work that could fail late.
bool standin_inject(const char* name, int result, std::uint64_t call, int scope, bool late,
                    int device) {
  const int function = function_named(name);
  if (function < 0 || (late && !queues_work(static_cast<Function>(function)))) return false;
  Driver& driver = Driver::get();
  std::lock_guard<std::mutex> lock(driver.mutex);
  driver.faults.push_back({static_cast<Function>(function), call, static_cast<CUresult>(result),
                           static_cast<Scope>(scope), late, device});
  return true;
}

// Tells the PTX from which code for an architecture (90 for sm_90) was compiled. A reset forgets
// it.
void standin_add_compiled(const void* code, std::size_t bytes, const char* ptx, int architecture) {
  Driver& driver = Driver::get();
  std::lock_guard<std::mutex> lock(driver.mutex);
  driver.compiled.push_back({{static_cast<const char*>(code), bytes}, ptx, architecture});
}

// Forgets the faults that have not struck, and restores lost devices.
void standin_clear() {
  Driver& driver = Driver::get();
  std::lock_guard<std::mutex> lock(driver.mutex);
  driver.faults.clear();
  for (Device& device : driver.devices) device.lost = CUDA_SUCCESS;
}

void standin_reset_log() {
  Driver& driver = Driver::get();
  std::lock_guard<std::mutex> lock(driver.mutex);
  for (std::atomic<std::uint64_t>& count : driver.counts) count = 0;
  driver.log.clear();
  driver.launches.clear();
}

// Returns to the state after loading: no contexts, no faults, the environment's settings. Only
// cuInit stays called.
void standin_reset() {
  standin_reset_log();
  Driver& driver = Driver::get();
  std::lock_guard<std::mutex> lock(driver.mutex);
  driver.reset();
  driver.restore_settings();
}

// Returns the time of the last entry into cuLaunchKernel, on CLOCK_MONOTONIC.
std::int64_t standin_last_launch_ns() { return Driver::get().last_launch_ns; }

}  // extern "C"
#pragma GCC visibility pop
