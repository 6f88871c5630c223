// Plain C functions of the emulator for other languages. A function that fails returns 0 or a null
// pointer, and leaves a message.
#include <algorithm>
#include <cstdio>
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include "ptx_emulator.h"

extern "C" {

struct PtxKernelInfo {
  std::uint64_t parameters, parameter_bytes, shared_bytes, max_threads;
};

struct PtxParameter {
  std::uint64_t offset, size, alignment;
};

// A part of the global memory.
struct PtxArray {
  std::uint64_t address, bytes;
  void* data;
  std::uint64_t writable;
};

struct PtxLaunch {
  std::uint32_t grid[3], block[3];
  std::uint64_t dynamic_shared_bytes, arrays, seed, instruction_limit;
};

struct PtxStatistics {
  std::uint64_t instructions, global_load_bytes;
};

}  // extern "C"

namespace {

struct Handle {
  explicit Handle(const std::string& text) : module(text), names(module.kernel_names()) {}
  ptx::Module module;
  std::vector<std::string> names;
};

class Arrays final : public ptx::Memory {
 public:
  Arrays(const PtxArray* arrays, std::uint64_t count) : arrays_(arrays, arrays + count) {}

  void* access(std::uint64_t address, std::size_t bytes, bool write) override {
    for (const PtxArray& array : arrays_) {
      if (address < array.address || address - array.address >= array.bytes) continue;
      const std::uint64_t offset = address - array.address;
      if (array.bytes - offset < bytes) break;
      if (write && !array.writable)
        throw ptx::Error(describe("store to a read-only array", address));
      return static_cast<char*>(array.data) + offset;
    }
    throw ptx::Error(describe("global memory access outside of all arrays", address));
  }

 private:
  static std::string describe(const char* what, std::uint64_t address) {
    char text[100];
    std::snprintf(text, sizeof text, "%s, address 0x%llx", what,
                  static_cast<unsigned long long>(address));
    return text;
  }

  std::vector<PtxArray> arrays_;
};

// Runs f and catches its exceptions.
template <class F>
auto guarded(char* message, std::uint64_t size, F f) -> decltype(f()) {
  try {
    return f();
  } catch (const std::exception& error) {
    std::snprintf(message, size, "%s", error.what());
  }
  return {};
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

void* ptx_open(const char* text, std::uint64_t bytes, char* message, std::uint64_t size) {
  return guarded(message, size, [&]() -> void* { return new Handle(std::string(text, bytes)); });
}

void ptx_close(void* handle) { delete static_cast<Handle*>(handle); }

const char* ptx_version(void* handle) {
  return static_cast<Handle*>(handle)->module.version().c_str();
}

const char* ptx_target(void* handle) {
  return static_cast<Handle*>(handle)->module.target().c_str();
}

std::uint64_t ptx_kernels(void* handle) { return static_cast<Handle*>(handle)->names.size(); }

const char* ptx_kernel_name(void* handle, std::uint64_t index) {
  return static_cast<Handle*>(handle)->names[index].c_str();
}

// `parameters` has room for info->parameters parameters, or is null.
void ptx_kernel_info(void* handle, const char* name, PtxKernelInfo* info,
                     PtxParameter* parameters) {
  const ptx::KernelInfo& known = ptx::info(*static_cast<Handle*>(handle)->module.find(name));
  *info = {known.parameters.size(), known.parameter_bytes, known.shared_bytes, known.max_threads};
  for (std::size_t i = 0; parameters && i < known.parameters.size(); ++i) {
    const ptx::Parameter& parameter = known.parameters[i];
    parameters[i] = {parameter.offset, parameter.size, parameter.alignment};
  }
}

int ptx_launch(void* handle, const char* name, const PtxLaunch* how, const std::uint8_t* parameters,
               const PtxArray* arrays, PtxStatistics* statistics, char* message,
               std::uint64_t size) {
  return guarded(message, size, [&] {
    Arrays memory(arrays, how->arrays);
    const auto dim = [](const std::uint32_t (&n)[3]) { return ptx::Dim3{n[0], n[1], n[2]}; };
    const ptx::Statistics result = ptx::launch(
        *static_cast<Handle*>(handle)->module.find(name), dim(how->grid), dim(how->block),
        how->dynamic_shared_bytes, parameters, memory, how->seed, how->instruction_limit);
    *statistics = {result.instructions, result.global_load_bytes};
    return 1;
  });
}

}  // extern "C"
#pragma GCC visibility pop
