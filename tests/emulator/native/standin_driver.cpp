// Entry points of libcuda.so.1 for memory, streams, events and modules.

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <utility>

#include "standin_call.h"
#include "standin_kernels.h"

using namespace standin;

namespace {

constexpr std::uint64_t kGap = 1 << 20;  // between allocations

std::uint64_t number(const void* handle) { return reinterpret_cast<std::uintptr_t>(handle); }

template <class Handle>
Handle as(std::uint64_t handle) {
  return reinterpret_cast<Handle>(static_cast<std::uintptr_t>(handle));
}

std::size_t free_bytes(const Call& call) {
  const std::int64_t used = call.driver.devices[call.context->device].used;
  return std::max<std::int64_t>(call.driver.setting_of(call.context->device, kFreeMemory) - used, 0);
}

// Returns the allocation that holds a range of device addresses.
std::shared_ptr<Allocation> on_device(const Call& call, std::uint64_t address, std::size_t bytes) {
  for (const auto* handles : {&call.context->device_memory, &call.context->host_memory})
    for (const auto& [key, allocation] : *handles)
      if (allocation->holds(address, bytes)) return allocation;
  throw Failure{CUDA_ERROR_INVALID_VALUE, "a range that is not in one allocation of the device"};
}

// Returns the pinned allocation that holds a range of host memory, or none.
std::shared_ptr<Allocation> pinned(const Call& call, const void* pointer, std::size_t bytes) {
  auto next = call.context->host_memory.upper_bound(number(pointer));
  if (next == call.context->host_memory.begin()) return nullptr;
  const std::shared_ptr<Allocation> found = (--next)->second;
  const std::size_t offset = number(pointer) - next->first;
  if (offset >= found->bytes) return nullptr;
  require(bytes <= found->bytes - offset, "a range beyond the end of pinned memory");
  return found;
}

// A copy reads its source and writes its destination when it runs. If the host memory is pageable,
// the call itself reads the source, and waits until the destination is written.
void copy_to_device(Call& call, std::uint64_t to, const void* from, std::size_t bytes,
                    const std::shared_ptr<Stream>& stream, bool waits) {
  const auto target = on_device(call, to, bytes);
  std::shared_ptr<const void> source = pinned(call, from, bytes);
  const void* pointer = from;
  if (!source) {
    const auto* first = static_cast<const std::uint8_t*>(from);
    const auto staged = std::make_shared<std::vector<std::uint8_t>>(first, first + bytes);
    pointer = staged->data();
    source = staged;
  }
  const Point done = call.queue(stream, [target, source, pointer, to, bytes] {
    if (bytes > 0) std::memcpy(target->host + (to - target->address), pointer, bytes);
  });
  waits ? call.wait(done) : call.schedule(done);
}

void copy_to_host(Call& call, void* to, std::uint64_t from, std::size_t bytes,
                  const std::shared_ptr<Stream>& stream, bool waits) {
  const auto source = on_device(call, from, bytes);
  const auto target = pinned(call, to, bytes);
  const Point done = call.queue(stream, [source, target, to, from, bytes] {
    if (bytes > 0) std::memcpy(to, source->host + (from - source->address), bytes);
  });
  waits || !target ? call.wait(done) : call.schedule(done);
}

void set_memory(Call& call, std::uint64_t to, std::uint32_t value, std::size_t size,
                std::size_t count, CUstream stream) {
  require(to % size == 0, "a misaligned range");
  const auto target = on_device(call, to, size * count);
  call.schedule(call.queue(call.stream(stream), [target, to, value, size, count] {
    std::uint8_t* const bytes = target->host + (to - target->address);
    for (std::size_t i = 0; i < count; ++i) std::memcpy(bytes + i * size, &value, size);
  }));
}

// Answers a poll. Each poll does a piece of work, so that a caller who polls long enough succeeds.
void poll(Call& call, const Point& until) {
  if (until.stream->done >= until.position) return;
  call.wait(until, 1);
  throw Failure{CUDA_ERROR_NOT_READY, ""};
}

void load_module(Call& call, CUmodule* module, const void* image, std::string& log) {
  require(module && image, "no image");
  auto loaded = std::make_shared<LoadedModule>();
  const std::int64_t capability = call.driver.setting_of(call.context->device, kComputeCapability);
  loaded->module = load_image(image, static_cast<int>(setting(kDriverVersion)),
                              static_cast<int>(capability), log);
  const std::uint64_t handle = call.driver.handle();
  call.context->modules.emplace(handle, std::move(loaded));
  *module = as<CUmodule>(handle);
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

// Memory.

CUresult cuMemGetInfo_v2(std::size_t* free, std::size_t* total) {
  return call(kMemGetInfo, Needs::kContext, [&](Call& call) {
    *free = free_bytes(call);
    *total = static_cast<std::size_t>(
        call.driver.setting_of(call.context->device, kTotalMemory));
  });
}

CUresult cuMemAlloc_v2(CUdeviceptr* address, std::size_t bytes) {
  return call(kMemAlloc, Needs::kContext, [&](Call& call) {
    require(address && bytes > 0, "nothing to allocate");
    if (bytes > free_bytes(call)) throw Failure{CUDA_ERROR_OUT_OF_MEMORY, ""};
    Device& device = call.driver.devices[call.context->device];
    // Aligned to the 256 bytes that a driver promises, and never to more by chance.
    const std::uint64_t from = (device.next_address + kGap) / 512 * 512 + 256;
    const auto memory = std::make_shared<Allocation>(from, bytes, !setting(kNull));
    device.next_address = from + bytes;
    device.used += bytes;
    call.context->device_memory.emplace(from, memory);
    *address = from;
  });
}

CUresult cuMemFree_v2(CUdeviceptr address) {
  return call(kMemFree, Needs::kContext, [&](Call& call) {
    call.wait_all();
    const auto found = call.context->device_memory.find(address);
    require(found != call.context->device_memory.end(), "no allocation begins there");
    call.driver.devices[call.context->device].used -= found->second->bytes;
    call.context->device_memory.erase(found);
  });
}

CUresult cuMemHostAlloc(void** pointer, std::size_t bytes, unsigned flags) {
  return call(kMemHostAlloc, Needs::kContext, [&](Call& call) {
    Driver& driver = call.driver;
    require(pointer && bytes > 0, "nothing to allocate");
    const std::size_t limit = static_cast<std::size_t>(setting(kHostMemory));
    if (driver.pinned > limit || bytes > limit - driver.pinned)
      throw Failure{CUDA_ERROR_OUT_OF_MEMORY, ""};
    const std::uint64_t from = (driver.next_mapped_address + kGap) / 4096 * 4096;
    const bool mapped = flags & CU_MEMHOSTALLOC_DEVICEMAP;
    const auto memory = std::make_shared<Allocation>(mapped ? from : 0, bytes, !setting(kNull));
    driver.next_mapped_address = from + bytes;
    driver.pinned += bytes;
    call.context->host_memory.emplace(number(memory->host), memory);
    *pointer = memory->host;
  });
}

// The address differs from the host's: on many machines they are equal, but a caller must ask.
CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr* address, void* pointer, unsigned flags) {
  return call(kMemHostGetDevicePointer, Needs::kContext, [&](Call& call) {
    require(flags == 0, "flags");
    const auto memory = pinned(call, pointer, 0);
    require(memory && memory->address, "not mapped memory");
    *address = memory->address + (number(pointer) - number(memory->host));
  });
}

CUresult cuMemFreeHost(void* pointer) {
  return call(kMemFreeHost, Needs::kContext, [&](Call& call) {
    call.wait_all();
    const auto found = call.context->host_memory.find(number(pointer));
    require(found != call.context->host_memory.end(), "no allocation begins there");
    call.driver.pinned -= found->second->bytes;
    call.context->host_memory.erase(found);
  });
}

CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void* from, std::size_t bytes) {
  if (is_null(kMemcpyHtoD)) return CUDA_SUCCESS;
  return call(kMemcpyHtoD, Needs::kContext, [&](Call& call) {
    copy_to_device(call, to, from, bytes, call.context->legacy, true);
  });
}

CUresult cuMemcpyDtoH_v2(void* to, CUdeviceptr from, std::size_t bytes) {
  if (is_null(kMemcpyDtoH)) return CUDA_SUCCESS;
  return call(kMemcpyDtoH, Needs::kContext, [&](Call& call) {
    copy_to_host(call, to, from, bytes, call.context->legacy, true);
  });
}

CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void* from, std::size_t bytes,
                              CUstream stream) {
  if (is_null(kMemcpyHtoDAsync)) return CUDA_SUCCESS;
  return call(kMemcpyHtoDAsync, Needs::kContext, [&](Call& call) {
    copy_to_device(call, to, from, bytes, call.stream(stream), false);
  });
}

CUresult cuMemcpyDtoHAsync_v2(void* to, CUdeviceptr from, std::size_t bytes, CUstream stream) {
  if (is_null(kMemcpyDtoHAsync)) return CUDA_SUCCESS;
  return call(kMemcpyDtoHAsync, Needs::kContext, [&](Call& call) {
    copy_to_host(call, to, from, bytes, call.stream(stream), false);
  });
}

CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, std::size_t count, CUstream stream) {
  if (is_null(kMemsetD8Async)) return CUDA_SUCCESS;
  return call(kMemsetD8Async, Needs::kContext,
              [&](Call& call) { set_memory(call, to, value, 1, count, stream); });
}

CUresult cuMemsetD32Async(CUdeviceptr to, unsigned value, std::size_t count, CUstream stream) {
  if (is_null(kMemsetD32Async)) return CUDA_SUCCESS;
  return call(kMemsetD32Async, Needs::kContext,
              [&](Call& call) { set_memory(call, to, value, 4, count, stream); });
}

// Streams.

CUresult cuStreamCreate(CUstream* handle, unsigned flags) {
  return call(kStreamCreate, Needs::kContext, [&](Call& call) {
    require(flags <= CU_STREAM_NON_BLOCKING, "flags");
    const auto stream = std::make_shared<Stream>();
    stream->context = call.context;
    stream->blocking = flags != CU_STREAM_NON_BLOCKING;
    *handle = as<CUstream>(call.driver.handle());
    call.context->streams.emplace(number(*handle), stream);
  });
}

CUresult cuStreamDestroy_v2(CUstream handle) {
  return call(kStreamDestroy, Needs::kContext, [&](Call& call) {
    const auto stream = find(call.context->streams, handle, "stream");
    call.wait({stream, stream->queued});
    call.context->streams.erase(number(handle));
  });
}

CUresult cuStreamSynchronize(CUstream handle) {
  if (is_null(kStreamSynchronize)) return CUDA_SUCCESS;
  return call(kStreamSynchronize, Needs::kContext, [&](Call& call) {
    const auto stream = call.stream(handle);
    call.wait({stream, stream->queued});
  });
}

CUresult cuStreamQuery(CUstream handle) {
  if (is_null(kStreamQuery)) return CUDA_SUCCESS;
  return call(kStreamQuery, Needs::kContext, [&](Call& call) {
    const auto stream = call.stream(handle);
    poll(call, {stream, stream->queued});
  });
}

CUresult cuStreamWaitEvent(CUstream handle, CUevent event, unsigned flags) {
  if (is_null(kStreamWaitEvent)) return CUDA_SUCCESS;
  return call(kStreamWaitEvent, Needs::kContext, [&](Call& call) {
    require(flags == 0, "flags");
    const Point point = find(call.context->events, event, "event")->point;
    call.schedule(call.queue(call.stream(handle), [] {}, point));
  });
}

// Events.

CUresult cuEventCreate(CUevent* handle, unsigned flags) {
  return call(kEventCreate, Needs::kContext, [&](Call& call) {
    require(flags < 4, "flags");
    const auto event = std::make_shared<Event>();
    event->timed = !(flags & CU_EVENT_DISABLE_TIMING);
    *handle = as<CUevent>(call.driver.handle());
    call.context->events.emplace(number(*handle), event);
  });
}

CUresult cuEventDestroy_v2(CUevent handle) {
  return call(kEventDestroy, Needs::kContext, [&](Call& call) {
    find(call.context->events, handle, "event");
    call.context->events.erase(number(handle));
  });
}

CUresult cuEventRecord(CUevent handle, CUstream stream) {
  if (is_null(kEventRecord)) return CUDA_SUCCESS;
  return call(kEventRecord, Needs::kContext, [&](Call& call) {
    const auto event = find(call.context->events, handle, "event");
    const auto time = event->time_ns = std::make_shared<std::int64_t>(0);
    event->point = call.queue(call.stream(stream), [time] { *time = now_ns(); });
    call.schedule(event->point);
  });
}

CUresult cuEventQuery(CUevent handle) {
  if (is_null(kEventQuery)) return CUDA_SUCCESS;
  return call(kEventQuery, Needs::kContext, [&](Call& call) {
    const Point point = find(call.context->events, handle, "event")->point;
    if (point.stream) poll(call, point);
  });
}

CUresult cuEventSynchronize(CUevent handle) {
  if (is_null(kEventSynchronize)) return CUDA_SUCCESS;
  return call(kEventSynchronize, Needs::kContext, [&](Call& call) {
    const Point point = find(call.context->events, handle, "event")->point;
    if (point.stream) call.wait(point);
  });
}

CUresult cuEventElapsedTime_v2(float* milliseconds, CUevent start, CUevent end) {
  *milliseconds = 0;
  if (is_null(kEventElapsedTime)) return CUDA_SUCCESS;
  return call(kEventElapsedTime, Needs::kContext, [&](Call& call) {
    const auto from = find(call.context->events, start, "event");
    const auto to = find(call.context->events, end, "event");
    for (const auto& event : {from, to})
      if (!event->timed || !event->point.stream)
        throw Failure{CUDA_ERROR_INVALID_HANDLE, "an event without a time"};
    for (const auto& event : {from, to})
      if (event->point.stream->done < event->point.position)
        throw Failure{CUDA_ERROR_NOT_READY, ""};
    *milliseconds = static_cast<float>(*to->time_ns - *from->time_ns) / 1e6f;
  });
}

// Modules.

CUresult cuModuleLoadData(CUmodule* module, const void* image) {
  return call(kModuleLoadData, Needs::kContext, [&](Call& call) {
    std::string log;
    load_module(call, module, image, log);
  });
}

CUresult cuModuleLoadDataEx(CUmodule* module, const void* image, unsigned count,
                            CUjit_option* options, void** values) {
  return call(kModuleLoadDataEx, Needs::kContext, [&](Call& call) {
    char* error_log = nullptr;
    void** error_log_bytes = nullptr;  // in: the room; out: the bytes written
    for (unsigned i = 0; i < count; ++i) {
      if (options[i] == CU_JIT_ERROR_LOG_BUFFER) error_log = static_cast<char*>(values[i]);
      if (options[i] == CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES) error_log_bytes = &values[i];
      if (options[i] == CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES) values[i] = nullptr;  // no information
    }
    std::string log;
    const auto report = [&] {
      if (!error_log || !error_log_bytes) return;
      const std::size_t room = number(*error_log_bytes);
      const std::size_t bytes = std::min(log.size(), room > 0 ? room - 1 : 0);
      std::memcpy(error_log, log.data(), bytes);
      if (room > 0) error_log[bytes] = 0;
      *error_log_bytes = as<void*>(bytes);
    };
    try {
      load_module(call, module, image, log);
    } catch (const Failure&) {
      report();
      throw;
    }
    report();
  });
}

CUresult cuModuleUnload(CUmodule handle) {
  return call(kModuleUnload, Needs::kContext, [&](Call& call) {
    const auto module = find(call.context->modules, handle, "module");
    for (const std::uint64_t function : module->functions) call.context->functions.erase(function);
    call.context->modules.erase(number(handle));
  });
}

CUresult cuModuleGetFunction(CUfunction* handle, CUmodule module, const char* name) {
  return call(kModuleGetFunction, Needs::kContext, [&](Call& call) {
    const auto loaded = find(call.context->modules, module, "module");
    const ptx::Kernel* const kernel = loaded->module->find(name);
    if (!kernel) throw Failure{CUDA_ERROR_NOT_FOUND, ""};
    *handle = as<CUfunction>(call.driver.handle());
    call.context->functions.emplace(
        number(*handle), std::make_shared<LoadedFunction>(LoadedFunction{loaded->module, kernel, 0}));
    loaded->functions.push_back(number(*handle));
  });
}

CUresult cuFuncGetAttribute(int* value, CUfunction_attribute attribute, CUfunction handle) {
  return call(kFuncGetAttribute, Needs::kContext, [&](Call& call) {
    const auto function = find(call.context->functions, handle, "function");
    *value = function_attribute(*function, attribute);
  });
}

CUresult cuFuncSetAttribute(CUfunction handle, CUfunction_attribute attribute, int value) {
  return call(kFuncSetAttribute, Needs::kContext, [&](Call& call) {
    const auto function = find(call.context->functions, handle, "function");
    require(attribute == CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
            "an attribute that the stand-in does not set");
    require(value >= 0 && value <= most_dynamic_shared(*function), "too much shared memory");
    function->dynamic_shared = static_cast<std::size_t>(value);
  });
}

CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, CUfunction handle, int threads,
                                                     std::size_t dynamic_shared_bytes) {
  return call(kOccupancyMaxActiveBlocksPerMultiprocessor, Needs::kContext, [&](Call& call) {
    const auto function = find(call.context->functions, handle, "function");
    require(threads > 0, "no threads");
    *blocks = resident_blocks(*function, threads, dynamic_shared_bytes);
  });
}

}  // extern "C"
#pragma GCC visibility pop
