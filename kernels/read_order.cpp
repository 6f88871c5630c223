#include "read_order.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <new>
#include <vector>

#include "dpf.h"
#include "host_scanner.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <emmintrin.h>
#endif

namespace morphogen {
namespace {

constexpr std::size_t kTableBytes = 4 << 20, kLineBytes = 64;
constexpr std::size_t kMostKeys = 24;
constexpr int kRounds = 3;
// Jobs for which the orders differed most on the processors that were measured.
constexpr struct {
  std::size_t page_size, key_count;
} kShapes[] = {{1024, 6}, {1024, kMostKeys}, {4096, 6}, {4096, kMostKeys}};

// Drops lines from all caches, since most tables are larger than those.
void drop_lines(const std::vector<std::uint8_t>& bytes) {
  for (std::size_t at = 0; at < bytes.size(); at += kLineBytes) {
#if defined(__x86_64__)
    _mm_clflush(bytes.data() + at);
#elif defined(__aarch64__)
    asm volatile("dc civac, %0" : : "r"(bytes.data() + at) : "memory");
#endif
  }
#if defined(__x86_64__)
  _mm_mfence();
#elif defined(__aarch64__)
  asm volatile("dsb ish" : : : "memory");
#endif
}

// Writes keys for nobody's pages, one after the other.
std::vector<std::uint8_t> make_keys(const HostKernels& kernels, int log_num_pages) {
  const auto size = static_cast<std::size_t>(key_bytes(log_num_pages));
  std::vector<std::uint8_t> keys(kMostKeys * size);
  std::uint8_t entropy[48] = {};
  for (std::size_t key = 0; key < kMostKeys; key += 2) {
    entropy[0] = static_cast<std::uint8_t>(key + 1);  // the other seed is zero
    const KeyPair pair = {key, entropy, {&keys[key * size], &keys[(key + 1) * size]}};
    kernels.generate(&pair, 1, log_num_pages);
  }
  return keys;
}

double measure(HostScanner& scanner, const ScanJob& job, const std::vector<std::uint8_t>& table,
               std::vector<std::uint8_t>& out) {
  typedef std::chrono::steady_clock Clock;
  drop_lines(table);
  const Clock::time_point start = Clock::now();
  scanner.answer(job, out.data());
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

ReadOrder measure_read_order(const HostKernels& kernels) try {
  const std::vector<std::uint8_t> table(kTableBytes, 1);
  std::vector<std::uint8_t> out(kMostKeys * 4096);
  HostScanner scanner(kernels, 1);
  double seconds[2] = {};  // of memory and rows
  for (const auto& shape : kShapes) {
    ScanJob job = {};
    job.page_size = shape.page_size;
    job.page_count = kTableBytes / shape.page_size;
    job.body = table.data();
    const int log_num_pages = __builtin_ctzll(job.page_count);
    const std::vector<std::uint8_t> keys = make_keys(kernels, log_num_pages);
    job.keys = keys.data();
    job.key_bytes = static_cast<std::size_t>(key_bytes(log_num_pages));
    job.key_count = shape.key_count;
    double least[2] = {std::numeric_limits<double>::max(), std::numeric_limits<double>::max()};
    for (int round = 0; round < kRounds; ++round)
      for (const ReadOrder order : {ReadOrder::memory, ReadOrder::rows}) {
        job.read_order = order;
        double& best = least[order == ReadOrder::rows];
        best = std::min(best, measure(scanner, job, table, out));
      }
    for (int order = 0; order < 2; ++order) seconds[order] += least[order];
  }
  return seconds[1] < seconds[0] ? ReadOrder::rows : ReadOrder::memory;
} catch (const std::bad_alloc&) {
  return ReadOrder::memory;
}

ReadOrderChoice preferred_read_order(const HostKernels& kernels) {
#if defined(__x86_64__)
  // Measured on two Intel Xeons with AMX and on AMD's Zen 4, whose prefetchers do not follow rows.
  __builtin_cpu_init();
  if (__builtin_cpu_is("intel")) return {ReadOrder::rows, false};
  if (__builtin_cpu_is("amd")) return {ReadOrder::memory, false};
#endif
  static const ReadOrder measured = measure_read_order(kernels);
  return {measured, true};
}

bool takes_whole_vectors() {
#if defined(__x86_64__)
  static const bool whole = [] {
    constexpr unsigned kZen5Family = 0x1a, kLongFamily = 0xf;
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (!__get_cpuid(0, &a, &b, &c, &d) || b != signature_AMD_ebx) return false;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return false;
    return (a >> 8 & kLongFamily) + (a >> 20 & 0xff) >= kZen5Family;
  }();
  return whole;
#else
  return false;
#endif
}

}  // namespace morphogen
