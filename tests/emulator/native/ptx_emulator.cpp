#include "ptx_emulator.h"

#include <algorithm>
#include <numeric>

#include "ptx_parser.h"
#include "ptx_warp.h"

namespace ptx {

constexpr std::uint32_t kMaxThreads = 1024;          // of a block
constexpr std::size_t kMaxSharedBytes = 227 * 1024;  // of a block
constexpr std::uint64_t kMaxBlocks = 1 << 24;        // of a grid in this emulator
constexpr std::uint32_t kMaxResident = 4;

struct Module::Parsed {
  explicit Parsed(const std::string& text) : parser(text) { parser.parse(); }
  Parser parser;
};

Module::Module(const std::string& text) : parsed_(std::make_unique<Parsed>(text)) {}
Module::~Module() = default;

const std::string& Module::version() const { return parsed_->parser.version; }
const std::string& Module::target() const { return parsed_->parser.target; }

std::vector<std::string> Module::kernel_names() const {
  std::vector<std::string> names;
  for (const auto& kernel : parsed_->parser.kernels) names.push_back(kernel->info.name);
  return names;
}

const Kernel* Module::find(const std::string& name) const {
  for (const auto& kernel : parsed_->parser.kernels) {
    if (kernel->info.name == name) return kernel.get();
  }
  return nullptr;
}

const KernelInfo& info(const Kernel& kernel) { return kernel.info; }

namespace {

std::uint64_t volume(Dim3 size) {
  // Each number is below 2^32. A product of two fits 64 bits; one of three fits only if the first
  // two are small.
  const std::uint64_t area = std::uint64_t{size.x} * size.y;
  return area > kMaxBlocks ? area : area * size.z;
}

void check(const Kernel& kernel, Dim3 grid, Dim3 block, std::size_t dynamic_shared_bytes) {
  const std::string name = "kernel " + kernel.info.name + ": ";
  const std::uint64_t threads = volume(block);
  const std::uint32_t limit = kernel.info.max_threads ? kernel.info.max_threads : kMaxThreads;
  if (threads < 1 || threads > std::min(limit, kMaxThreads)) {
    throw Error(name + std::to_string(threads) + " threads a block, where 1 to " +
                std::to_string(limit) + " are allowed");
  }
  const auto [x, y, z] = kernel.required_threads;
  if (x && (block.x != x || block.y != y || block.z != z)) {
    throw Error(name + "the block is not of the size that the kernel requires");
  }
  if (volume(grid) < 1 || volume(grid) > kMaxBlocks) {
    throw Error(name + "a grid of " + std::to_string(volume(grid)) + " blocks");
  }
  if (kernel.info.shared_bytes + dynamic_shared_bytes > kMaxSharedBytes) {
    throw Error(name + "too much shared memory");
  }
}

}  // namespace

Statistics launch(const Kernel& kernel, Dim3 grid, Dim3 block, std::size_t dynamic_shared_bytes,
                  const std::uint8_t* parameters, Memory& memory, std::uint64_t seed,
                  std::uint64_t instruction_limit) {
  check(kernel, grid, block, dynamic_shared_bytes);
  Random random(seed);
  std::vector<std::uint32_t> waiting(volume(grid));
  std::iota(waiting.rbegin(), waiting.rend(), 0u);  // the next block is the last entry
  if (seed) {
    for (std::size_t i = waiting.size() - 1; i > 0; --i) {
      std::swap(waiting[i], waiting[random.below(static_cast<std::uint32_t>(i + 1))]);
    }
  }
  const std::uint32_t resident =
      std::min(static_cast<std::uint32_t>(waiting.size()), 1 + random.below(kMaxResident));
  Launch state{kernel,
               grid,
               block,
               dynamic_shared_bytes,
               {parameters, parameters + kernel.info.parameter_bytes},
               memory,
               instruction_limit,
               resident,
               random,
               {}};
  std::vector<std::unique_ptr<Block>> blocks;
  for (std::uint32_t slot = 0; slot < resident; ++slot) {
    blocks.push_back(std::make_unique<Block>(state, slot));
    blocks.back()->start(waiting.back());
    waiting.pop_back();
  }
  while (!blocks.empty()) {
    const std::size_t chosen = state.random.below(static_cast<std::uint32_t>(blocks.size()));
    if (blocks[chosen]->step()) continue;
    if (waiting.empty()) {
      blocks.erase(blocks.begin() + static_cast<std::ptrdiff_t>(chosen));
    } else {
      blocks[chosen]->start(waiting.back());
      waiting.pop_back();
    }
  }
  return state.statistics;
}

}  // namespace ptx
