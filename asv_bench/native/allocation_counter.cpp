// Counts what Python's allocators are asked for between count_begin() and count_end().
//
// Python lets every one of its three allocators be replaced at run time. Those here count and pass
// the call on. The caller holds the interpreter's lock; other threads must not run Python meanwhile.
#include <Python.h>

#include <atomic>

namespace {

constexpr PyMemAllocatorDomain kDomains[] = {PYMEM_DOMAIN_RAW, PYMEM_DOMAIN_MEM, PYMEM_DOMAIN_OBJ};
constexpr int kDomainCount = 3;

PyMemAllocatorEx originals[kDomainCount];
std::atomic<long long> allocations;  // the raw allocator works without the lock

void* counting_malloc(void* context, size_t size) {
  ++allocations;
  auto* original = static_cast<PyMemAllocatorEx*>(context);
  return original->malloc(original->ctx, size);
}

void* counting_calloc(void* context, size_t count, size_t size) {
  ++allocations;
  auto* original = static_cast<PyMemAllocatorEx*>(context);
  return original->calloc(original->ctx, count, size);
}

void* counting_realloc(void* context, void* block, size_t size) {
  ++allocations;
  auto* original = static_cast<PyMemAllocatorEx*>(context);
  return original->realloc(original->ctx, block, size);
}

void passing_free(void* context, void* block) {
  auto* original = static_cast<PyMemAllocatorEx*>(context);
  original->free(original->ctx, block);
}

}  // namespace

extern "C" void count_begin() {
  for (int i = 0; i < kDomainCount; ++i) {
    PyMem_GetAllocator(kDomains[i], &originals[i]);
    PyMemAllocatorEx counting = {&originals[i], counting_malloc, counting_calloc, counting_realloc,
                                 passing_free};
    PyMem_SetAllocator(kDomains[i], &counting);
  }
  allocations = 0;
}

extern "C" long long count_end() {
  const long long counted = allocations;
  for (int i = 0; i < kDomainCount; ++i) PyMem_SetAllocator(kDomains[i], &originals[i]);
  return counted;
}
