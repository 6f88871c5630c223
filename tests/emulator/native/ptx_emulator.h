// An emulator of the PTX that morphogen ships: it runs kernels on the CPU, instruction by
// instruction, so that a machine without a GPU can check what a GPU would compute.
//
// It knows the integer subset of PTX that nvcc makes of kernels/page_scan.cu, and it is strict. It
// throws an Error, which names the kernel, the line of PTX and the thread, for
// - an instruction, modifier or special register that it does not know,
// - an access outside of known memory, or not aligned to its size,
// - a read of a register or of shared memory that nothing wrote,
// - a barrier that not all threads reach,
// - two warps that use the same shared memory with no barrier between.
//
// It does not find missing fences (memory is sequentially consistent here), or races in global
// memory or between the lanes of a warp, which run in lockstep. A lane that spins until another
// lane of its warp comes may spin until the instruction limit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace ptx {

class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct Dim3 {
  std::uint32_t x = 1, y = 1, z = 1;
};

// The global memory of a device: it resolves generic and global addresses.
class Memory {
 public:
  virtual ~Memory() = default;
  // Returns a host pointer to `bytes` bytes at a device address. Throws Error if they do not lie
  // within one allocation.
  virtual void* access(std::uint64_t address, std::size_t bytes, bool write) = 0;
};

struct Parameter {
  std::size_t offset, size, alignment;
};

// The properties of one `.entry`, from the parser.
struct KernelInfo {
  std::string name;
  std::vector<Parameter> parameters;
  std::size_t parameter_bytes = 0;
  std::size_t shared_bytes = 0;         // statically declared
  std::uint32_t max_threads = 0;        // .maxntid, or 0 if there is none
};

struct Statistics {
  std::uint64_t instructions = 0;       // executed, one for each warp
  std::uint64_t global_load_bytes = 0;  // by active threads
};

class Kernel;

class Module {
 public:
  // Parses PTX. Throws Error, with the line, if it meets an unknown construct.
  explicit Module(const std::string& text);
  ~Module();
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;

  const std::string& version() const;   // "9.0"
  const std::string& target() const;    // "sm_80"
  std::vector<std::string> kernel_names() const;
  const Kernel* find(const std::string& name) const;  // nullptr if there is none

 private:
  struct Parsed;
  std::unique_ptr<Parsed> parsed_;
};

const KernelInfo& info(const Kernel& kernel);

// Runs a whole grid. `parameters` are parameter_bytes bytes, laid out as KernelInfo says. Blocks
// run one after the other or interleaved, in an order that `seed` decides: the result must not
// depend on it. A launch of more than `instruction_limit` warp instructions ends with an Error.
Statistics launch(const Kernel& kernel, Dim3 grid, Dim3 block, std::size_t dynamic_shared_bytes,
                  const std::uint8_t* parameters, Memory& memory, std::uint64_t seed = 0,
                  std::uint64_t instruction_limit = 0);

}  // namespace ptx
