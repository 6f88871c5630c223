#include "standin_kernels.h"

#include <elf.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <map>
#include <sstream>
#include <utility>

#include "standin_call.h"

namespace standin {
namespace {

constexpr int kRegisterFile = 64 << 10;
constexpr int kReservedShared = 1 << 10;
constexpr std::size_t kBlockShared = 48 << 10;
constexpr int kMaxThreads = 2048, kMaxBlocks = 32;  // of a multiprocessor

// Of a multiprocessor.
int shared_bytes() { return (setting(kComputeCapability) < 90 ? 164 : 228) << 10; }

int max_threads(const ptx::KernelInfo& info) {
  return info.max_threads ? static_cast<int>(info.max_threads) : 1024;
}

// Returns the newest PTX version that a driver reads, 90 for 9.0. Drivers 12.6 and 12.5 read the
// same.
int newest_ptx(int driver_version) {
  const int major = driver_version / 1000, minor = driver_version % 1000 / 10;
  if (major <= 11) return 70 + minor;
  if (major == 12) return 80 + (minor > 5 ? minor - 1 : minor);
  return 10 * (major - 4) + minor;
}

// Returns the word after a directive, or "" if there is none. It skips lines that are comments.
std::string directive(const std::string& text, const std::string& name) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string first, second;
    if (words >> first >> second && first == name) return second;
  }
  return "";
}

Failure refuse(std::string& log, CUresult result, const std::string& why) {
  log = "ptxas application ptx input; fatal   : " + why;
  return Failure{result, ""};
}

// Returns the size of an ELF file: the driver gets only its address.
std::size_t elf_bytes(const void* image) {
  Elf64_Ehdr header;
  std::memcpy(&header, image, sizeof header);
  return std::max<std::size_t>({sizeof header,
                                header.e_shoff + std::size_t{header.e_shnum} * header.e_shentsize,
                                header.e_phoff + std::size_t{header.e_phnum} * header.e_phentsize});
}

// Parses PTX, each text once: a test opens many engines, which load the same. No launch changes a
// module. The driver's mutex is held.
std::shared_ptr<ptx::Module> parse(const std::string& text) {
  static std::map<std::string, std::shared_ptr<ptx::Module>> parsed;
  const auto known = parsed.find(text);
  if (known != parsed.end()) return known->second;
  return parsed.emplace(text, std::make_shared<ptx::Module>(text)).first->second;
}

// Loads the PTX that a test names as the source of compiled code. The emulator runs no compiled
// code.
std::shared_ptr<ptx::Module> load_compiled(const void* image, int capability, std::string& log) {
  const std::size_t bytes = elf_bytes(image);
  for (const CompiledCode& code : Driver::get().compiled) {
    if (code.bytes.size() != bytes || std::memcmp(code.bytes.data(), image, bytes) != 0) continue;
    if (code.architecture / 10 != capability / 10 || code.architecture > capability)
      throw refuse(log, CUDA_ERROR_NO_BINARY_FOR_GPU, "code for another device");
    return parse(code.ptx);
  }
  throw refuse(log, CUDA_ERROR_INVALID_IMAGE, "compiled code that the stand-in was not told of");
}

// The memory of a context as a kernel sees it.
class View : public ptx::Memory {
 public:
  explicit View(std::vector<std::shared_ptr<Allocation>> memory) : memory_(std::move(memory)) {
    std::sort(memory_.begin(), memory_.end(),
              [](const auto& a, const auto& b) { return a->address < b->address; });
  }

  void* access(std::uint64_t address, std::size_t bytes, bool write) override {
    if (!last_ || !last_->holds(address, bytes)) last_ = find(address, bytes);
    if (last_) return last_->host + (address - last_->address);
    illegal_ = true;
    char message[100];
    std::snprintf(message, sizeof message, "%s of %zu bytes at 0x%llx, in no allocation",
                  write ? "a write" : "a read", bytes, static_cast<unsigned long long>(address));
    throw ptx::Error(message);
  }

  bool illegal() const { return illegal_; }

 private:
  Allocation* find(std::uint64_t address, std::size_t bytes) const {
    auto next = std::upper_bound(memory_.begin(), memory_.end(), address,
                                 [](std::uint64_t a, const auto& b) { return a < b->address; });
    if (next == memory_.begin()) return nullptr;
    Allocation* const found = (--next)->get();
    return found->holds(address, bytes) ? found : nullptr;
  }

  std::vector<std::shared_ptr<Allocation>> memory_;
  Allocation* last_ = nullptr;
  bool illegal_ = false;
};

}  // namespace

std::shared_ptr<ptx::Module> load_image(const void* image, int driver_version, int capability,
                                        std::string& log) {
  const std::string text = static_cast<const char*>(image);
  const auto begins = [&](const char* magic) { return text.compare(0, 4, magic) == 0; };
  if (begins("\x7f" "ELF")) return load_compiled(image, capability, log);
  if (begins("\x50\xED\x55\xBA"))
    throw refuse(log, CUDA_ERROR_INVALID_IMAGE, "the stand-in takes no fat binaries");
  const std::string version = directive(text, ".version"), target = directive(text, ".target");
  int major = 0, minor = 0;
  if (std::sscanf(version.c_str(), "%d.%d", &major, &minor) != 2)
    throw refuse(log, CUDA_ERROR_INVALID_PTX, "Missing .version directive at start of file");
  const int newest = newest_ptx(driver_version);
  if (10 * major + minor > newest)
    throw refuse(log, CUDA_ERROR_UNSUPPORTED_PTX_VERSION,
                 "Unsupported .version " + version + "; current version is '" +
                     std::to_string(newest / 10) + "." + std::to_string(newest % 10) + "'");
  int architecture = 0;
  char suffix = 0;  // sm_90a runs on 9.0 only
  const int parts = std::sscanf(target.c_str(), "sm_%d%c", &architecture, &suffix);
  if (parts < 1) throw refuse(log, CUDA_ERROR_INVALID_PTX, "Missing .target directive");
  if (architecture > capability || (suffix == 'a' && architecture != capability))
    throw refuse(log, CUDA_ERROR_INVALID_PTX,
                 "SM version specified by .target is higher than default SM version assumed");
  try {
    return parse(text);
  } catch (const ptx::Error& error) {
    throw refuse(log, CUDA_ERROR_INVALID_PTX, error.what());
  }
}

int most_dynamic_shared(const LoadedFunction& function) {
  const int of_block = shared_bytes() - kReservedShared;
  return of_block - static_cast<int>(ptx::info(*function.kernel).shared_bytes);
}

int function_attribute(const LoadedFunction& function, CUfunction_attribute attribute) {
  const ptx::KernelInfo& info = ptx::info(*function.kernel);
  int version = 0;
  switch (attribute) {
    case CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK:
      return max_threads(info);
    case CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES:
      return static_cast<int>(info.shared_bytes);
    case CU_FUNC_ATTRIBUTE_CONST_SIZE_BYTES:
    case CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES:
      return 0;
    case CU_FUNC_ATTRIBUTE_NUM_REGS:
      return static_cast<int>(setting(kRegisters));
    case CU_FUNC_ATTRIBUTE_PTX_VERSION:
      std::sscanf(function.module->target().c_str(), "sm_%d", &version);
      return version;
    case CU_FUNC_ATTRIBUTE_BINARY_VERSION:
      return static_cast<int>(setting(kComputeCapability));
    case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES:
      return static_cast<int>(
          std::max(function.dynamic_shared, kBlockShared - info.shared_bytes));
    default:
      throw Failure{CUDA_ERROR_INVALID_VALUE, "an attribute that the stand-in does not know"};
  }
}

int resident_blocks(const LoadedFunction& function, int threads, std::size_t dynamic_shared_bytes) {
  const ptx::KernelInfo& info = ptx::info(*function.kernel);
  if (threads > max_threads(info)) return 0;
  const int rounded = (threads + 31) / 32 * 32;  // whole warps
  const int shared = static_cast<int>(info.shared_bytes + dynamic_shared_bytes) + kReservedShared;
  return std::min({kMaxThreads / rounded,
                   kRegisterFile / (rounded * static_cast<int>(setting(kRegisters))),
                   shared_bytes() / shared, kMaxBlocks});
}

void check_launch(const LoadedFunction& function, ptx::Dim3 grid, ptx::Dim3 block,
                  std::size_t dynamic_shared_bytes) {
  const ptx::KernelInfo& info = ptx::info(*function.kernel);
  const auto within = [](ptx::Dim3 size, std::uint32_t x, std::uint32_t y, std::uint32_t z) {
    return size.x >= 1 && size.x <= x && size.y >= 1 && size.y <= y && size.z >= 1 && size.z <= z;
  };
  require(within(grid, 0x7FFFFFFF, 0xFFFF, 0xFFFF), "a grid that no device takes");
  require(within(block, 1024, 1024, 64), "a block that no device takes");
  require(block.x * block.y * block.z <= static_cast<std::uint32_t>(max_threads(info)),
          "more threads in a block than the kernel allows");
  require(dynamic_shared_bytes <= std::max(function.dynamic_shared,
                                           kBlockShared - info.shared_bytes),
          "more shared memory than was asked for");
}

std::vector<std::uint8_t> copy_parameters(const LoadedFunction& function, void** values) {
  const ptx::KernelInfo& info = ptx::info(*function.kernel);
  require(values || info.parameters.empty(), "no parameters");
  std::vector<std::uint8_t> bytes(info.parameter_bytes);
  for (std::size_t i = 0; i < info.parameters.size(); ++i)
    std::memcpy(bytes.data() + info.parameters[i].offset, values[i], info.parameters[i].size);
  return bytes;
}

void run_kernel(const LoadedFunction& function, ptx::Dim3 grid, ptx::Dim3 block,
                std::size_t dynamic_shared_bytes, const std::vector<std::uint8_t>& parameters,
                std::vector<std::shared_ptr<Allocation>> memory) {
  View view(std::move(memory));
  try {
    ptx::launch(*function.kernel, grid, block, dynamic_shared_bytes, parameters.data(), view,
                static_cast<std::uint64_t>(setting(kSeed)),
                static_cast<std::uint64_t>(setting(kInstructionLimit)));
  } catch (const std::exception& error) {
    throw Failure{view.illegal() ? CUDA_ERROR_ILLEGAL_ADDRESS : CUDA_ERROR_LAUNCH_FAILED,
                  ptx::info(*function.kernel).name + ": " + error.what()};
  }
}

}  // namespace standin
