// Modules and kernels: the driver's handling of PTX, and launches in the emulator.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "standin_state.h"

namespace standin {

// Loads an image as a driver of a version does for a device of a compute capability (80 for 8.0).
// The image is PTX, or compiled code that a test has named the source of. Throws Failure and writes
// the reason to `log`.
std::shared_ptr<ptx::Module> load_image(const void* image, int driver_version, int capability,
                                        std::string& log);

// Returns the bytes of shared memory that a launch of the function can be given, if asked for.
int most_dynamic_shared(const LoadedFunction& function);

int function_attribute(const LoadedFunction& function, CUfunction_attribute attribute);

// Returns the blocks of a kernel that a multiprocessor holds at once.
int resident_blocks(const LoadedFunction& function, int threads, std::size_t dynamic_shared_bytes);

// Throws INVALID_VALUE for a launch that no device takes.
void check_launch(const LoadedFunction& function, ptx::Dim3 grid, ptx::Dim3 block,
                  std::size_t dynamic_shared_bytes);

// Returns the bytes of the parameters at `values`.
std::vector<std::uint8_t> copy_parameters(const LoadedFunction& function, void** values);

// Runs a grid over all memory that the kernel may touch. Throws Failure.
void run_kernel(const LoadedFunction& function, ptx::Dim3 grid, ptx::Dim3 block,
                std::size_t dynamic_shared_bytes, const std::vector<std::uint8_t>& parameters,
                std::vector<std::shared_ptr<Allocation>> memory);

}  // namespace standin
