// The state of the stand-in driver: its settings, the devices, the contexts and their objects, the
// work that waits in streams, the faults to inject, and the record of past calls.
//
// No work runs when it is queued. By default it runs as late as the API allows: when a thread waits
// for it, on that thread. So an engine that reads an answer too early, reuses a staging buffer that
// a copy still needs, or forgets to make one stream wait for another gets wrong bytes every time.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "ptx_emulator.h"
#include "standin_types.h"

namespace standin {

// Every function as cuda.bindings calls it, the first driver version in which the name means
// `entry`, and `entry`.
#define STANDIN_FUNCTIONS(X) \
  X(kGetErrorString, "cuGetErrorString", 6000, cuGetErrorString) \
  X(kGetErrorName, "cuGetErrorName", 6000, cuGetErrorName) \
  X(kInit, "cuInit", 2000, cuInit) \
  X(kDriverGetVersion, "cuDriverGetVersion", 2020, cuDriverGetVersion) \
  X(kDeviceGet, "cuDeviceGet", 2000, cuDeviceGet) \
  X(kDeviceGetCount, "cuDeviceGetCount", 2000, cuDeviceGetCount) \
  X(kDeviceGetName, "cuDeviceGetName", 2000, cuDeviceGetName) \
  X(kDeviceGetUuid, "cuDeviceGetUuid", 11040, cuDeviceGetUuid_v2) \
  X(kDeviceTotalMem, "cuDeviceTotalMem", 3020, cuDeviceTotalMem_v2) \
  X(kDeviceGetAttribute, "cuDeviceGetAttribute", 2000, cuDeviceGetAttribute) \
  X(kDevicePrimaryCtxRetain, "cuDevicePrimaryCtxRetain", 7000, cuDevicePrimaryCtxRetain) \
  X(kDevicePrimaryCtxRelease, "cuDevicePrimaryCtxRelease", 11000, cuDevicePrimaryCtxRelease_v2) \
  X(kDevicePrimaryCtxGetState, "cuDevicePrimaryCtxGetState", 7000, cuDevicePrimaryCtxGetState) \
  X(kCtxPushCurrent, "cuCtxPushCurrent", 4000, cuCtxPushCurrent_v2) \
  X(kCtxPopCurrent, "cuCtxPopCurrent", 4000, cuCtxPopCurrent_v2) \
  X(kCtxSetCurrent, "cuCtxSetCurrent", 4000, cuCtxSetCurrent) \
  X(kCtxGetCurrent, "cuCtxGetCurrent", 4000, cuCtxGetCurrent) \
  X(kCtxSynchronize, "cuCtxSynchronize", 2000, cuCtxSynchronize) \
  X(kModuleLoadData, "cuModuleLoadData", 2000, cuModuleLoadData) \
  X(kModuleLoadDataEx, "cuModuleLoadDataEx", 2010, cuModuleLoadDataEx) \
  X(kModuleUnload, "cuModuleUnload", 2000, cuModuleUnload) \
  X(kModuleGetFunction, "cuModuleGetFunction", 2000, cuModuleGetFunction) \
  X(kFuncGetAttribute, "cuFuncGetAttribute", 2020, cuFuncGetAttribute) \
  X(kFuncSetAttribute, "cuFuncSetAttribute", 9000, cuFuncSetAttribute) \
  X(kOccupancyMaxActiveBlocksPerMultiprocessor, "cuOccupancyMaxActiveBlocksPerMultiprocessor", \
    6050, cuOccupancyMaxActiveBlocksPerMultiprocessor) \
  X(kMemGetInfo, "cuMemGetInfo", 3020, cuMemGetInfo_v2) \
  X(kMemAlloc, "cuMemAlloc", 3020, cuMemAlloc_v2) \
  X(kMemFree, "cuMemFree", 3020, cuMemFree_v2) \
  X(kMemHostAlloc, "cuMemHostAlloc", 2020, cuMemHostAlloc) \
  X(kMemHostGetDevicePointer, "cuMemHostGetDevicePointer", 3020, cuMemHostGetDevicePointer_v2) \
  X(kMemFreeHost, "cuMemFreeHost", 2000, cuMemFreeHost) \
  X(kMemcpyHtoD, "cuMemcpyHtoD", 3020, cuMemcpyHtoD_v2) \
  X(kMemcpyDtoH, "cuMemcpyDtoH", 3020, cuMemcpyDtoH_v2) \
  X(kMemcpyHtoDAsync, "cuMemcpyHtoDAsync", 3020, cuMemcpyHtoDAsync_v2) \
  X(kMemcpyDtoHAsync, "cuMemcpyDtoHAsync", 3020, cuMemcpyDtoHAsync_v2) \
  X(kMemsetD8Async, "cuMemsetD8Async", 3020, cuMemsetD8Async) \
  X(kMemsetD32Async, "cuMemsetD32Async", 3020, cuMemsetD32Async) \
  X(kStreamCreate, "cuStreamCreate", 2000, cuStreamCreate) \
  X(kStreamDestroy, "cuStreamDestroy", 4000, cuStreamDestroy_v2) \
  X(kStreamSynchronize, "cuStreamSynchronize", 2000, cuStreamSynchronize) \
  X(kStreamQuery, "cuStreamQuery", 2000, cuStreamQuery) \
  X(kStreamWaitEvent, "cuStreamWaitEvent", 3020, cuStreamWaitEvent) \
  X(kEventCreate, "cuEventCreate", 2000, cuEventCreate) \
  X(kEventRecord, "cuEventRecord", 2000, cuEventRecord) \
  X(kEventQuery, "cuEventQuery", 2000, cuEventQuery) \
  X(kEventSynchronize, "cuEventSynchronize", 2000, cuEventSynchronize) \
  X(kEventElapsedTime, "cuEventElapsedTime", 2000, cuEventElapsedTime_v2) \
  X(kEventDestroy, "cuEventDestroy", 4000, cuEventDestroy_v2) \
  X(kLaunchKernel, "cuLaunchKernel", 4000, cuLaunchKernel) \
  X(kGraphCreate, "cuGraphCreate", 10000, cuGraphCreate) \
  X(kGraphDestroy, "cuGraphDestroy", 10000, cuGraphDestroy) \
  X(kGraphAddKernelNode, "cuGraphAddKernelNode", 12000, cuGraphAddKernelNode_v2) \
  X(kGraphInstantiate, "cuGraphInstantiateWithFlags", 11040, cuGraphInstantiateWithFlags) \
  X(kGraphExecKernelNodeSetParams, "cuGraphExecKernelNodeSetParams", 12000, \
    cuGraphExecKernelNodeSetParams_v2) \
  X(kGraphLaunch, "cuGraphLaunch", 10000, cuGraphLaunch) \
  X(kGraphExecDestroy, "cuGraphExecDestroy", 10000, cuGraphExecDestroy)

enum Function {
#define X(id, name, since, entry) id,
  STANDIN_FUNCTIONS(X)
#undef X
  kFunctions
};
extern const char* const kFunctionNames[kFunctions];

// Settings: identifier, name, initial value. The environment variable STANDIN_<NAME> overrides the
// value.
#define STANDIN_SETTINGS(X) \
  X(kDevices, "devices", 1) \
  X(kComputeCapability, "compute_capability", 80) \
  X(kMultiprocessors, "multiprocessors", 4) \
  X(kComputeMode, "compute_mode", 0) \
  X(kTotalMemory, "total_memory", 1 << 30) \
  X(kFreeMemory, "free_memory", 1 << 30)  /* of each device, while nothing is allocated */ \
  X(kHostMemory, "host_memory", 1 << 30)  /* that can be pinned */ \
  X(kDriverVersion, "driver_version", 13000) \
  X(kInitError, "init_error", 0)          /* what cuInit returns */ \
  X(kRegisters, "registers", 64)          /* of each thread of any kernel */ \
  X(kSchedule, "schedule", 0)             /* when work is done, see Schedule */ \
  X(kSeed, "seed", 0)                     /* of Schedule::kRandom, and of the order of blocks */ \
  X(kInstructionLimit, "instruction_limit", 0)  /* of each launch, see ptx_emulator.h; 0: none */ \
  X(kHeld, "held", 0)                     /* no queued work is done; who waits for it waits on */ \
  X(kNull, "null", 0)                     /* kernels, copies, events and waits do nothing */ \
  X(kLog, "log", 1)                       /* keep calls and launches, not only their number */

enum Setting {
#define X(id, name, initial) id,
  STANDIN_SETTINGS(X)
#undef X
  kSettings
};
extern const char* const kSettingNames[kSettings];

// kLate runs work when a thread waits for it, kEager at once, and kRandom runs any part of it at
// any call.
enum Schedule { kLate, kEager, kRandom };

constexpr int kMaxDevices = 8;
constexpr int kAnyDevice = -1;
constexpr std::uint8_t kPoison = 0xA5;  // fills fresh memory

// A result other than success. With a reason it is the caller's own fault.
struct Failure {
  CUresult result;
  std::string reason;
};

// Memory of a device, or pinned host memory.
struct Allocation {
  Allocation(std::uint64_t address, std::size_t bytes, bool poisoned);
  ~Allocation();
  Allocation(const Allocation&) = delete;
  Allocation& operator=(const Allocation&) = delete;

  bool holds(std::uint64_t from, std::size_t count) const {
    return from >= address && from - address <= bytes && count <= bytes - (from - address);
  }

  std::uint64_t address;  // on the device; 0 for host memory that the device cannot see
  std::size_t bytes;
  std::uint8_t* host;
};

struct Stream;

// The end of a piece of work, which comes when `position` pieces of the stream are done.
struct Point {
  std::shared_ptr<Stream> stream;
  std::uint64_t position = 0;
};

struct Work {
  std::vector<Point> after;
  std::function<void()> run;
};

struct Context;  // destroy() breaks the ring of streams and their context

struct Stream {
  std::shared_ptr<Context> context;
  bool blocking;         // it waits for the legacy default stream, which waits for it
  bool running = false;  // true while a thread does its work
  std::deque<Work> queue;
  std::uint64_t queued = 0, done = 0;
};

struct Event {
  bool timed;
  Point point;  // of the last record; without a stream if there was none
  std::shared_ptr<std::int64_t> time_ns;
};

struct LoadedFunction {
  std::shared_ptr<ptx::Module> module;
  const ptx::Kernel* kernel;
  std::size_t dynamic_shared = 0;  // bytes beyond what a block gets without asking, if asked for
};

struct LoadedModule {
  std::shared_ptr<ptx::Module> module;
  std::vector<std::uint64_t> functions;  // the handles of its kernels
};

struct KernelLaunch {
  std::shared_ptr<LoadedFunction> function;
  ptx::Dim3 grid, block;
  std::size_t dynamic_shared_bytes = 0;
  std::vector<std::uint8_t> parameters;
};

// A graph of one launch.
struct Graph {
  std::uint64_t node = 0;  // handle, or 0 if there is none
  KernelLaunch launch;
};

struct GraphExec {
  std::uint64_t node;
  KernelLaunch launch;
  Point last;  // the end of its last launch
};

template <class T>
using Handles = std::map<std::uint64_t, std::shared_ptr<T>>;

struct Context {
  int device = 0;
  unsigned retains = 1;
  CUresult failed = CUDA_SUCCESS;  // it stays set
  std::shared_ptr<Stream> legacy;
  Handles<Stream> streams;
  Handles<Event> events;
  Handles<LoadedModule> modules;
  Handles<LoadedFunction> functions;
  Handles<Graph> graphs;
  Handles<GraphExec> graph_execs;
  Handles<Allocation> device_memory;  // by device address
  Handles<Allocation> host_memory;    // by host address
};

struct Device {
  CUresult lost = CUDA_SUCCESS;
  std::uint64_t primary = 0;  // handle of its context, or 0
  std::uint64_t next_address = 0;
  std::size_t used = 0;
  std::map<Setting, std::int64_t> settings;  // its own, in place of those of all devices
};

// The part of the state that fails with an injected fault.
enum class Scope { kCall, kContext, kDevice };

struct Fault {
  Function function;
  std::uint64_t calls;  // the number of the failing call, counted from 1
  CUresult result;
  Scope scope;
  bool late;   // the call succeeds, and the work that it queues fails
  int device;  // only calls in its context count; kAnyDevice for all calls
};

// Compiled code, with the PTX that a test names as its source.
struct CompiledCode {
  std::string bytes, ptx;
  int architecture;  // 90 for sm_90
};

struct Launch {
  std::string kernel;
  ptx::Dim3 grid, block;
  const Stream* stream;
};

struct LogEntry {
  Function function;
  CUresult result;
  int thread;
};

// The whole state. `mutex` guards everything that is not atomic.
struct Driver {
  Driver();
  static Driver& get();  // never destroyed: threads may still call when the process exits

  void reset();
  void restore_settings();
  void destroy(std::uint64_t context);
  std::uint64_t handle() { return next_handle += 16; }
  std::int64_t setting_of(int device, Setting which) const;

  std::atomic<std::int64_t> settings[kSettings];
  std::atomic<std::uint64_t> counts[kFunctions];
  std::atomic<std::int64_t> last_launch_ns{0};
  std::atomic<std::uint64_t> epoch{0};  // counts resets, which empty all context stacks

  std::mutex mutex;
  std::condition_variable progress;  // tells that work is done in any stream
  bool initialized = false;
  Device devices[kMaxDevices];
  Handles<Context> contexts;
  std::uint64_t next_handle, next_mapped_address, random;
  std::size_t pinned = 0;
  std::vector<Fault> faults;
  std::vector<CompiledCode> compiled;
  std::vector<LogEntry> log;
  std::vector<Launch> launches;
  std::vector<std::string> misuse, leaks, failures;
};

inline std::int64_t setting(Setting which) {
  return Driver::get().settings[which].load(std::memory_order_relaxed);
}

std::int64_t now_ns();

constexpr std::uint64_t kAll = ~std::uint64_t{0};

// Does a stream's work up to a position, or waits while another thread does it. With a number of
// pieces it does at most that many, and waits for no other thread. The caller does not hold the
// driver's mutex.
void work(const Point& until, std::uint64_t pieces = kAll);
// Does all work of a context. The caller does not hold the driver's mutex.
void work_all(Context& context);

}  // namespace standin
