// The scan of a run of pages by the method of its plan, as that method's compiled cases.
#pragma once

#include <type_traits>

#include "scan_plan.h"

namespace morphogen {
namespace {

template <int Bytes, class Prefetcher>
void scan_with_masks(const PageRun& run) {
  if (run.key_count <= kOneQueryKeys)
    scan_run<MaskMethod<Bytes, kOneQueryKeys>, Prefetcher>(run);
  else
    scan_run<MaskMethod<Bytes, kTwoQueryKeys>, Prefetcher>(run);
}

template <int Bytes, class Prefetcher>
void scan_with_tables(const PageRun& run) {
  if (run.key_count <= kFewKeys)
    scan_run<TableMethod<Bytes, 1>, Prefetcher>(run);
  else
    scan_run<TableMethod<Bytes, 4>, Prefetcher>(run);
}

#if defined(__AVX512BW__) && defined(__GFNI__)
// For processors that take whole vectors, whose prefetcher tells them.
inline void scan_in_panels(const PageRun& run) {
  typedef FirstLevelPrefetcher Prefetcher;
  if (run.key_count > kManyKeys) return scan_run<GfniMethod<4>, Prefetcher>(run);
  const bool narrow = run.columns->page_size < kPanelColumns * kCacheLine;
  if (run.key_count > (narrow ? kNarrowPanelKeys : kPanelKeys))
    return scan_panels<GfniMethod<2>, Prefetcher>(run, kPanelPages, kPanelColumns / 2);
  scan_panels<GfniMethod<1>, Prefetcher>(run, kPanelPages, kPanelColumns);
}

inline void scan_in_blocks(const PageRun& run) {
  typedef SecondLevelPrefetcher Prefetcher;
  const std::size_t size = run.columns->page_size;
  const bool many = run.key_count > kManyKeys;
  if (takes_blocks(size, run.key_count)) {
    if (size % kCacheLine != 0) return scan_copies<GfniMethod<4>, Prefetcher>(run);
    if (many) return scan_run<GfniMethod<4>, Prefetcher>(run);
    if (size < kRowBytes) return scan_panels<GfniMethod<2>, Prefetcher>(run, kPanelPages, 1);
    if (size % kRowBytes == 0) return scan_panels<GfniMethod<4>, Prefetcher>(run, kPanelPages, 1);
    return scan_run<GfniMethod<4>, Prefetcher>(run);
  }
  if (many) return scan_run<GfniMethod<4>, Prefetcher>(run);
  if (run.key_count <= kFewKeys) return scan_run<GfniMethod<1>, Prefetcher>(run);
  scan_run<GfniMethod<2>, Prefetcher>(run);
}

template <class Prefetcher>
void scan_with_gfni(const PageRun& run) {
  if constexpr (std::is_same<Prefetcher, FirstLevelPrefetcher>::value) {
    scan_in_panels(run);
  } else if constexpr (std::is_same<Prefetcher, SecondLevelPrefetcher>::value) {
    scan_in_blocks(run);
  } else {
    if (run.layout == Layout::streams) return scan_streams<GfniMethod<2>>(run);
    if (run.key_count <= kFewKeys) return scan_run<GfniMethod<1>, Prefetcher>(run);
    // 32 rows of wide pages would share too few cache sets.
    if (run.key_count > kManyKeys && run.columns->page_size < kWidePageBytes)
      return scan_run<GfniMethod<4>, Prefetcher>(run);
    scan_run<GfniMethod<2>, Prefetcher>(run);
  }
}
#endif

template <int Bytes, class Prefetcher>
void scan_with(Method method, const PageRun& run) {
  switch (method) {
    case Method::held:
      return scan_with_held_sums(run);
    case Method::buckets:
      return;  // with_buckets
    case Method::masks:
      if constexpr (Bytes >= kMinMaskBytes) scan_with_masks<Bytes, Prefetcher>(run);
      return;
    case Method::gfni:
#if defined(__AVX512BW__) && defined(__GFNI__)
      scan_with_gfni<Prefetcher>(run);
#endif
      return;
    case Method::flat:
    case Method::octets:
      return;  // scan_narrow_pages
    case Method::tables:
      return scan_with_tables<Bytes, Prefetcher>(run);
  }
}

template <class Prefetcher>
void scan_pages(const Plan& plan, const PageRun& run) {
  switch (plan.columns.bytes) {
    case 64:
      return scan_with<64, Prefetcher>(plan.method, run);
    case 32:
      return scan_with<32, Prefetcher>(plan.method, run);
    case 16:
      return scan_with<16, Prefetcher>(plan.method, run);
    case 8:
      return scan_with<8, Prefetcher>(plan.method, run);
    case 4:
      return scan_with<4, Prefetcher>(plan.method, run);
    case 2:
      return scan_with<2, Prefetcher>(plan.method, run);
    default:
      return scan_with<1, Prefetcher>(plan.method, run);
  }
}

void scan_narrow_pages([[maybe_unused]] const Plan& plan, [[maybe_unused]] const PageRun& run) {
#if defined(__AVX2__)
  if (plan.method == Method::flat) return scan_narrow(run, FlatMethod(run));
#endif
#if defined(__AVX512VBMI__) && defined(__GFNI__)
  const Blocks blocks(run.columns->page_size);
  if (blocks.octets > 1) return scan_narrow(run, OctetMethod<false>(run));
  if (blocks.count == 1) return scan_narrow(run, OctetMethod<true>(run));
  scan_spans<2>(run, blocks.of_span);
#endif
}

}  // namespace
}  // namespace morphogen
