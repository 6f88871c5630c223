// The types and numbers of the CUDA driver API that the stand-in driver needs, so that it builds
// without a CUDA toolkit. With STANDIN_CUDA_H they come from cuda.h, which then checks these
// numbers and the signatures of the entry points.
#pragma once

#include <cstddef>
#include <cstdint>

// Every result that the stand-in returns by itself or that a test may inject.
#define STANDIN_RESULTS(X) \
  X(CUDA_SUCCESS, 0, "no error") \
  X(CUDA_ERROR_INVALID_VALUE, 1, "invalid argument") \
  X(CUDA_ERROR_OUT_OF_MEMORY, 2, "out of memory") \
  X(CUDA_ERROR_NOT_INITIALIZED, 3, "initialization error") \
  X(CUDA_ERROR_DEINITIALIZED, 4, "driver shutting down") \
  X(CUDA_ERROR_STUB_LIBRARY, 34, "CUDA driver is a stub library") \
  X(CUDA_ERROR_DEVICE_UNAVAILABLE, 46, "device(s) is/are busy or unavailable") \
  X(CUDA_ERROR_NO_DEVICE, 100, "no CUDA-capable device is detected") \
  X(CUDA_ERROR_INVALID_DEVICE, 101, "invalid device ordinal") \
  X(CUDA_ERROR_INVALID_IMAGE, 200, "device kernel image is invalid") \
  X(CUDA_ERROR_INVALID_CONTEXT, 201, "invalid device context") \
  X(CUDA_ERROR_NO_BINARY_FOR_GPU, 209, "no kernel image is available for execution on the device") \
  X(CUDA_ERROR_ECC_UNCORRECTABLE, 214, "uncorrectable ECC error encountered") \
  X(CUDA_ERROR_INVALID_PTX, 218, "a PTX JIT compilation failed") \
  X(CUDA_ERROR_JIT_COMPILER_NOT_FOUND, 221, "PTX JIT compiler library not found") \
  X(CUDA_ERROR_UNSUPPORTED_PTX_VERSION, 222, \
    "the provided PTX was compiled with an unsupported toolchain.") \
  X(CUDA_ERROR_JIT_COMPILATION_DISABLED, 223, "PTX JIT compilation was disabled") \
  X(CUDA_ERROR_OPERATING_SYSTEM, 304, "OS call failed or operation not supported on this OS") \
  X(CUDA_ERROR_INVALID_HANDLE, 400, "invalid resource handle") \
  X(CUDA_ERROR_NOT_FOUND, 500, "named symbol not found") \
  X(CUDA_ERROR_NOT_READY, 600, "device not ready") \
  X(CUDA_ERROR_ILLEGAL_ADDRESS, 700, "an illegal memory access was encountered") \
  X(CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, 701, "too many resources requested for launch") \
  X(CUDA_ERROR_LAUNCH_TIMEOUT, 702, "the launch timed out and was terminated") \
  X(CUDA_ERROR_CONTEXT_IS_DESTROYED, 709, "context is destroyed") \
  X(CUDA_ERROR_ILLEGAL_INSTRUCTION, 715, "an illegal instruction was encountered") \
  X(CUDA_ERROR_MISALIGNED_ADDRESS, 716, "misaligned address") \
  X(CUDA_ERROR_LAUNCH_FAILED, 719, "unspecified launch failure") \
  X(CUDA_ERROR_NOT_PERMITTED, 800, "operation not permitted") \
  X(CUDA_ERROR_NOT_SUPPORTED, 801, "operation not supported") \
  X(CUDA_ERROR_SYSTEM_NOT_READY, 802, "system not yet initialized") \
  X(CUDA_ERROR_SYSTEM_DRIVER_MISMATCH, 803, \
    "system has unsupported display driver / cuda driver combination") \
  X(CUDA_ERROR_UNKNOWN, 999, "unknown error")

// The known device attributes: name, number, and value by the settings of standin_state.h.
#define STANDIN_ATTRIBUTES(X) \
  X(CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK, 1, 1024) \
  X(CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X, 2, 1024) \
  X(CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X, 5, 0x7FFFFFFF) \
  X(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK, 8, 48 << 10) \
  X(CU_DEVICE_ATTRIBUTE_TOTAL_CONSTANT_MEMORY, 9, 64 << 10) \
  X(CU_DEVICE_ATTRIBUTE_WARP_SIZE, 10, 32) \
  X(CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK, 12, 64 << 10) \
  X(CU_DEVICE_ATTRIBUTE_CLOCK_RATE, 13, 1000000) \
  X(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 16, call.driver.setting_of(device, kMultiprocessors)) \
  X(CU_DEVICE_ATTRIBUTE_KERNEL_EXEC_TIMEOUT, 17, 0) \
  X(CU_DEVICE_ATTRIBUTE_INTEGRATED, 18, 0) \
  X(CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY, 19, 1) \
  X(CU_DEVICE_ATTRIBUTE_COMPUTE_MODE, 20, call.driver.setting_of(device, kComputeMode)) \
  X(CU_DEVICE_ATTRIBUTE_CONCURRENT_KERNELS, 31, 1) \
  X(CU_DEVICE_ATTRIBUTE_ECC_ENABLED, 32, 1) \
  X(CU_DEVICE_ATTRIBUTE_PCI_BUS_ID, 33, 16 + device) \
  X(CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID, 34, 0) \
  X(CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE, 36, 1000000) \
  X(CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH, 37, 5120) \
  X(CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE, 38, 4 << 20) \
  X(CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR, 39, 2048) \
  X(CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT, 40, 2) \
  X(CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING, 41, 1) \
  X(CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID, 50, 0) \
  X(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, 75, call.driver.setting_of(device, kComputeCapability) / 10) \
  X(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, 76, call.driver.setting_of(device, kComputeCapability) % 10) \
  X(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR, 81, 164 << 10) \
  X(CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_MULTIPROCESSOR, 82, 64 << 10) \
  X(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, 97, (call.driver.setting_of(device, kComputeCapability) < 90 ? 163 : 227) << 10) \
  X(CU_DEVICE_ATTRIBUTE_MAX_BLOCKS_PER_MULTIPROCESSOR, 106, 32) \
  X(CU_DEVICE_ATTRIBUTE_RESERVED_SHARED_MEMORY_PER_BLOCK, 111, 1 << 10)

#ifdef STANDIN_CUDA_H
#include <cuda.h>

#define X(name, number, rest) static_assert(name == number, #name);
STANDIN_RESULTS(X)
STANDIN_ATTRIBUTES(X)
#undef X

#else

enum CUresult {
#define X(name, value, text) name = value,
  STANDIN_RESULTS(X)
#undef X
};

enum CUdevice_attribute {
#define X(name, number, value) name = number,
  STANDIN_ATTRIBUTES(X)
#undef X
};

enum CUfunction_attribute {
  CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK = 0,
  CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES = 1,
  CU_FUNC_ATTRIBUTE_CONST_SIZE_BYTES = 2,
  CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES = 3,
  CU_FUNC_ATTRIBUTE_NUM_REGS = 4,
  CU_FUNC_ATTRIBUTE_PTX_VERSION = 5,
  CU_FUNC_ATTRIBUTE_BINARY_VERSION = 6,
  CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES = 8,
};

enum CUjit_option {
  CU_JIT_INFO_LOG_BUFFER = 3,
  CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES = 4,
  CU_JIT_ERROR_LOG_BUFFER = 5,
  CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES = 6,
};

enum CUdriverProcAddressQueryResult {
  CU_GET_PROC_ADDRESS_SUCCESS = 0,
  CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND = 1,
  CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT = 2,
};

constexpr unsigned CU_STREAM_NON_BLOCKING = 1;
constexpr unsigned CU_EVENT_DISABLE_TIMING = 2;
constexpr unsigned CU_MEMHOSTALLOC_DEVICEMAP = 2;
constexpr unsigned CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM = 2;

typedef int CUdevice;
typedef unsigned long long CUdeviceptr;
typedef std::uint64_t cuuint64_t;
typedef struct CUctx_st* CUcontext;
typedef struct CUmod_st* CUmodule;
typedef struct CUfunc_st* CUfunction;
typedef struct CUstream_st* CUstream;
typedef struct CUevent_st* CUevent;
typedef struct CUgraph_st* CUgraph;
typedef struct CUgraphNode_st* CUgraphNode;
typedef struct CUgraphExec_st* CUgraphExec;
typedef struct CUkern_st* CUkernel;
struct CUDA_KERNEL_NODE_PARAMS {
  CUfunction func;
  unsigned gridDimX, gridDimY, gridDimZ;
  unsigned blockDimX, blockDimY, blockDimZ;
  unsigned sharedMemBytes;
  void** kernelParams;
  void** extra;
  CUkernel kern;
  CUcontext ctx;
};
struct CUuuid {
  char bytes[16];
};

#endif  // STANDIN_CUDA_H
