// Entry points of libcuda.so.1 for errors, devices and contexts, and for the bindings to find them
// all.

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "standin_call.h"

using namespace standin;

namespace {

std::uint64_t number(const void* handle) { return reinterpret_cast<std::uintptr_t>(handle); }

CUcontext as_context(std::uint64_t handle) {
  return reinterpret_cast<CUcontext>(static_cast<std::uintptr_t>(handle));
}

Device& device_of(Call& call, int ordinal) {
  if (ordinal < 0 || ordinal >= std::min<std::int64_t>(setting(kDevices), kMaxDevices))
    throw Failure{CUDA_ERROR_INVALID_DEVICE, ""};
  return call.driver.devices[ordinal];
}

struct Entry {
  const char* name;
  int since;
  void* address;  // nullptr for a later version, which the stand-in does not have
};

#define X(id, name, since, entry) extern "C" void entry_##id() __asm__(#entry);
STANDIN_FUNCTIONS(X)
#undef X

const Entry kEntries[] = {
#define X(id, name, since, entry) {name, since, reinterpret_cast<void*>(entry_##id)},
    STANDIN_FUNCTIONS(X)
#undef X
    {"cuCtxSynchronize", 13000, nullptr},
};

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

CUresult cuGetProcAddress_v2(const char* name, void** address, int version, cuuint64_t flags,
                             CUdriverProcAddressQueryResult* status) {
  const Entry* best = nullptr;
  bool known = false;
  for (const Entry& entry : kEntries) {
    if (std::strcmp(entry.name, name) != 0) continue;
    known = true;
    if (entry.since <= version && (!best || entry.since > best->since)) best = &entry;
  }
  const bool legacy = !(flags & CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM);
  const bool found = best && best->address && legacy;
  *address = found ? best->address : nullptr;
  if (status)
    *status = found   ? CU_GET_PROC_ADDRESS_SUCCESS
              : known ? CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT
                      : CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
  return found ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

CUresult cuGetErrorName(CUresult error, const char** text) {
  *text = nullptr;
#define X(name, number, message) \
  if (error == number) *text = #name;
  STANDIN_RESULTS(X)
#undef X
  return *text ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuGetErrorString(CUresult error, const char** text) {
  *text = nullptr;
#define X(name, number, message) \
  if (error == number) *text = message;
  STANDIN_RESULTS(X)
#undef X
  return *text ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuInit(unsigned flags) {
  return call(kInit, Needs::kNothing, [&](Call& call) {
    require(flags == 0, "flags");
    const auto error = static_cast<CUresult>(setting(kInitError));
    if (error != CUDA_SUCCESS) throw Failure{error, ""};
    if (setting(kDevices) == 0) throw Failure{CUDA_ERROR_NO_DEVICE, ""};
    call.driver.initialized = true;
  });
}

CUresult cuDriverGetVersion(int* version) {
  return call(kDriverGetVersion, Needs::kNothing,
              [&](Call&) { *version = static_cast<int>(setting(kDriverVersion)); });
}

CUresult cuDeviceGetCount(int* count) {
  return call(kDeviceGetCount, Needs::kInitialized,
              [&](Call&) { *count = static_cast<int>(setting(kDevices)); });
}

CUresult cuDeviceGet(CUdevice* handle, int ordinal) {
  return call(kDeviceGet, Needs::kInitialized, [&](Call& call) {
    device_of(call, ordinal);
    *handle = ordinal;
  });
}

CUresult cuDeviceGetName(char* name, int length, CUdevice handle) {
  return call(kDeviceGetName, Needs::kInitialized, [&](Call& call) {
    device_of(call, handle);
    require(name && length > 0, "no room");
    std::snprintf(name, static_cast<std::size_t>(length), "Stand-in GPU");
  });
}

CUresult cuDeviceGetUuid_v2(CUuuid* uuid, CUdevice handle) {
  return call(kDeviceGetUuid, Needs::kInitialized, [&](Call& call) {
    device_of(call, handle);
    std::memset(uuid->bytes, handle + 1, sizeof uuid->bytes);
  });
}

CUresult cuDeviceTotalMem_v2(std::size_t* bytes, CUdevice handle) {
  return call(kDeviceTotalMem, Needs::kInitialized, [&](Call& call) {
    device_of(call, handle);
    *bytes = static_cast<std::size_t>(call.driver.setting_of(handle, kTotalMemory));
  });
}

CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice device) {
  return call(kDeviceGetAttribute, Needs::kInitialized, [&](Call& call) {
    device_of(call, device);
    switch (attribute) {
#define X(name, number, expression) \
  case name: \
    *value = static_cast<int>(expression); \
    break;
      STANDIN_ATTRIBUTES(X)
#undef X
      default:
        throw Failure{CUDA_ERROR_INVALID_VALUE, "an attribute that the stand-in does not know"};
    }
  });
}

// Contexts.

CUresult cuDevicePrimaryCtxRetain(CUcontext* handle, CUdevice ordinal) {
  return call(kDevicePrimaryCtxRetain, Needs::kInitialized, [&](Call& call) {
    Device& device = device_of(call, ordinal);
    if (device.lost != CUDA_SUCCESS) throw Failure{device.lost, ""};
    if (device.primary) {
      ++call.driver.contexts.at(device.primary)->retains;
    } else {
      const auto context = std::make_shared<Context>();
      context->device = ordinal;
      context->legacy = std::make_shared<Stream>();
      context->legacy->context = context;
      context->legacy->blocking = true;
      device.primary = call.driver.handle();
      call.driver.contexts.emplace(device.primary, context);
    }
    *handle = as_context(device.primary);
  });
}

CUresult cuDevicePrimaryCtxRelease_v2(CUdevice ordinal) {
  return call(kDevicePrimaryCtxRelease, Needs::kInitialized, [&](Call& call) {
    const Device& device = device_of(call, ordinal);
    if (!device.primary) throw Failure{CUDA_ERROR_INVALID_CONTEXT, "not retained"};
    if (--call.driver.contexts.at(device.primary)->retains == 0)
      call.driver.destroy(device.primary);
  });
}

CUresult cuDevicePrimaryCtxGetState(CUdevice ordinal, unsigned* flags, int* active) {
  return call(kDevicePrimaryCtxGetState, Needs::kInitialized, [&](Call& call) {
    *active = device_of(call, ordinal).primary != 0;
    *flags = 0;
  });
}

CUresult cuCtxPushCurrent_v2(CUcontext handle) {
  return call(kCtxPushCurrent, Needs::kInitialized, [&](Call& call) {
    if (!call.driver.contexts.count(number(handle)))
      throw Failure{CUDA_ERROR_INVALID_CONTEXT, "no such context"};
    context_stack().push_back(number(handle));
  });
}

CUresult cuCtxPopCurrent_v2(CUcontext* handle) {
  return call(kCtxPopCurrent, Needs::kInitialized, [&](Call&) {
    if (context_stack().empty())
      throw Failure{CUDA_ERROR_INVALID_CONTEXT, "no context is current"};
    if (handle) *handle = as_context(context_stack().back());
    context_stack().pop_back();
  });
}

CUresult cuCtxSetCurrent(CUcontext handle) {
  return call(kCtxSetCurrent, Needs::kInitialized, [&](Call& call) {
    if (handle && !call.driver.contexts.count(number(handle)))
      throw Failure{CUDA_ERROR_INVALID_CONTEXT, "no such context"};
    if (!context_stack().empty()) context_stack().pop_back();
    if (handle) context_stack().push_back(number(handle));
  });
}

CUresult cuCtxGetCurrent(CUcontext* handle) {
  return call(kCtxGetCurrent, Needs::kInitialized, [&](Call&) {
    *handle = as_context(context_stack().empty() ? 0 : context_stack().back());
  });
}

CUresult cuCtxSynchronize() {
  if (is_null(kCtxSynchronize)) return CUDA_SUCCESS;
  return call(kCtxSynchronize, Needs::kContext, [](Call& call) { call.wait_all(); });
}

}  // extern "C"
#pragma GCC visibility pop
