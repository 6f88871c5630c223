// Compiled once per instruction set, with that set's compiler flags and MORPHOGEN_ISA (an identifier)
// and MORPHOGEN_ISA_NAME (its public name). Only the table at the end has external linkage, and
// nothing of the standard library's templates is used: the linker must not find a function here that
// other code could call on a machine without the instruction set.
#include "host_kernels.h"

#include "dpf_expand.h"
#include "scan_gfni.h"
#include "scan_masks.h"
#include "scan_tables.h"

namespace morphogen {
namespace {

void expand(const std::uint8_t* key, std::uint64_t first_leaf, std::uint64_t count,
            std::uint8_t* out) {
  NodeLevel nodes;
  expand_leaves(key, first_leaf, count, nodes,
                [out](std::uint64_t leaf, const std::uint32_t* words) {
                  for (int i = 0; i < kLeafWords; ++i)
                    store_word(out + leaf * kLeafBytes + 4 * i, words[i * kWordLanes]);
                });
}

MORPHOGEN_FN std::size_t round_up(std::size_t value, std::size_t unit) {
  return (value + unit - 1) / unit * unit;
}

// Which method scans, and how far apart it keeps the sums of one column.
enum class Method { masks, gfni, tables };

struct Plan {
  Columns columns;
  Method method;
  std::size_t key_stride, sum_stride;

  Plan(const std::uint8_t* pages, std::size_t page_size, std::size_t key_count)
      : columns(pages, page_size),
        method(Method::tables),
        key_stride(round_up(key_count, kKeyAlign)),
        sum_stride(key_count) {
    // Masks are made anew for every tile of pages. A second query's pay for themselves where a page
    // has many columns and registers are wide; the first one's always, down to columns of 16 bytes.
    constexpr std::size_t kManyColumns = 16;
    const bool two_queries = kVectorBytes > 16 && columns.count >= kManyColumns;
    if (key_count <= (two_queries ? kTwoQueryKeys : kOneQueryKeys) && columns.bytes >= 16) {
      method = Method::masks;
      sum_stride = key_count <= kOneQueryKeys ? kOneQueryKeys : kTwoQueryKeys;
#if defined(__AVX512BW__) && defined(__GFNI__)
    } else if (columns.bytes == 64) {
      method = Method::gfni;
      sum_stride = key_stride;
#endif
    }
  }

  explicit Plan(const ScanJob& job) : Plan(job.body, job.page_size, job.key_count) {}

  std::size_t sum_bytes() const {
    return round_up(columns.count * columns.bytes * sum_stride, kCacheLine);
  }

  // Leaves whose selection is held at a time. It should not push pages out of the second-level
  // cache; but the fewer leaves there are, the more of the work is the walk to them, which small
  // pages feel.
  std::size_t batch_leaves() const {
    constexpr std::size_t kSelectionBytes = 256 << 10;
    constexpr std::size_t kBatchPageBytes = 4 << 20;
    std::size_t leaves = 64;
    while (leaves < kSubtreeLeaves && leaves * kLeafBits * columns.page_size < kBatchPageBytes)
      leaves *= 2;
    while (leaves > 1 && leaves * kLeafBytes * key_stride > kSelectionBytes) leaves /= 2;
    return leaves;
  }

  // The scratch of a scan: sums, then the selection of a batch of leaves, then tree nodes.
  std::size_t selection_offset() const { return sum_bytes(); }
  std::size_t nodes_offset() const {
    return selection_offset() + round_up(batch_leaves() * kLeafBytes * key_stride, kCacheLine);
  }
  std::size_t scratch_bytes() const {
    return nodes_offset() + round_up(sizeof(NodeLevel), kCacheLine);
  }
};

std::size_t scratch_bytes(const ScanJob& job) { return Plan(job).scratch_bytes(); }

template <int Bytes>
void scan_with_masks(const PageRun& run) {
  if (run.key_count <= kOneQueryKeys)
    scan_run<MaskMethod<Bytes, kOneQueryKeys>>(run);
  else
    scan_run<MaskMethod<Bytes, kTwoQueryKeys>>(run);
}

// Tiles of more pages save trips to the sums, which pays where there are many keys; tiles of fewer
// pages read closer to memory order, which pays where there are few.
constexpr std::size_t kFewKeys = 8;

template <int Bytes>
void scan_with_tables(const PageRun& run) {
  if (run.key_count <= kFewKeys)
    scan_run<TableMethod<Bytes, 1>>(run);
  else
    scan_run<TableMethod<Bytes, 4>>(run);
}

template <int Bytes>
void scan_with(Method method, const PageRun& run) {
  if constexpr (Bytes >= 16) {
    if (method == Method::masks) return scan_with_masks<Bytes>(run);
  }
#if defined(__AVX512BW__) && defined(__GFNI__)
  if constexpr (Bytes == 64) {
    if (run.key_count <= kFewKeys) return scan_run<GfniMethod<1>>(run);
    return scan_run<GfniMethod<2>>(run);
  }
#endif
  scan_with_tables<Bytes>(run);
}

void scan_pages(const Plan& plan, const PageRun& run) {
  switch (plan.columns.bytes) {
    case 64:
      return scan_with<64>(plan.method, run);
    case 32:
      return scan_with<32>(plan.method, run);
    case 16:
      return scan_with<16>(plan.method, run);
    case 8:
      return scan_with<8>(plan.method, run);
    case 4:
      return scan_with<4>(plan.method, run);
    case 2:
      return scan_with<2>(plan.method, run);
    default:
      return scan_with<1>(plan.method, run);
  }
}

void scan(const ScanJob& job, std::uint64_t first, std::uint64_t last, std::uint8_t* scratch) {
  const Plan plan(job);
  const std::size_t stride = plan.key_stride;
  std::uint8_t* selection = scratch + plan.selection_offset();
  NodeLevel& nodes = *reinterpret_cast<NodeLevel*>(scratch + plan.nodes_offset());
  const std::size_t batch_leaves = plan.batch_leaves();
  std::memset(scratch, 0, plan.sum_bytes());
  // Spare places of a row select nothing.
  if (stride != job.key_count) {
    const std::uint64_t leaves = last == first ? 0 : (last - 1) / kLeafBits - first / kLeafBits + 1;
    std::memset(selection, 0, (leaves < batch_leaves ? leaves : batch_leaves) * kLeafBytes * stride);
  }

  const std::uint64_t body_pages = job.page_count - (job.tail != nullptr);
  const std::uint64_t batch_pages = batch_leaves * kLeafBits;
  for (std::uint64_t page = first; page < last;) {
    // Batches start at multiples of batch_leaves, so that each is one subtree.
    const std::uint64_t batch = page / batch_pages * batch_pages;
    const std::uint64_t stop = batch + batch_pages < last ? batch + batch_pages : last;
    const std::uint64_t first_leaf = page / kLeafBits;
    const std::uint64_t leaves = (stop - 1) / kLeafBits + 1 - first_leaf;
    for (std::size_t key = 0; key < job.key_count; ++key) {
      std::uint8_t* column = selection + key;
      expand_leaves(job.keys + key * job.key_bytes, first_leaf, leaves, nodes,
                    [column, stride](std::uint64_t leaf, const std::uint32_t* words) {
                      std::uint8_t* out = column + leaf * kLeafBytes * stride;
                      for (int i = 0; i < kLeafWords; ++i) {
                        std::uint32_t word = words[i * kWordLanes];
                        for (int byte = 0; byte < 4; ++byte, word >>= 8, out += stride)
                          *out = static_cast<std::uint8_t>(word);
                      }
                    });
    }
    PageRun run;
    run.key_count = job.key_count;
    run.key_stride = stride;
    run.columns = &plan.columns;
    run.sums = scratch;
    run.sum_stride = plan.sum_stride;
    const std::uint64_t body_stop = stop < body_pages ? stop : body_pages;
    if (page < body_stop) {
      run.pages = job.body + page * job.page_size;
      run.page_count = body_stop - page;
      run.selection = selection + (page - first_leaf * kLeafBits) / kOctet * stride;
      scan_pages(plan, run);
    }
    if (stop > body_pages) {
      // The tail page need not stand at the start of an octet: move its bit to where one starts.
      const std::size_t offset = static_cast<std::size_t>(body_pages - first_leaf * kLeafBits);
      std::uint8_t* row = selection + offset / kOctet * stride;
      for (std::size_t key = 0; key < job.key_count; ++key)
        row[key] = static_cast<std::uint8_t>(row[key] >> (offset % kOctet));
      run.pages = job.tail;
      run.page_count = 1;
      run.selection = row;
      scan_pages(plan, run);
    }
    page = stop;
  }
}

void finish(const ScanJob& job, std::uint8_t* const* scratch, std::size_t scratch_count,
            std::uint8_t* out) {
  const Plan plan(job);
  const std::size_t sum_bytes = plan.sum_bytes(), bytes = plan.columns.bytes;
  std::uint8_t* total = scratch[0];
  typedef Column<64> Line;  // sums fill whole, aligned lines
  for (std::size_t i = 1; i < scratch_count; ++i)
    for (std::size_t at = 0; at < sum_bytes; at += Line::kBytes)
      (Line::load(total + at) ^ Line::load(scratch[i] + at)).store(total + at);

  for (std::size_t column = 0; column < plan.columns.count; ++column) {
    const std::uint8_t* from = total + column * plan.sum_stride * bytes;
    std::uint8_t* to = out + plan.columns.offset(column);
#if defined(__AVX512BW__) && defined(__GFNI__)
    if (plan.method == Method::gfni) {
      for (std::size_t group = 0; group < job.key_count; group += kOctet) {
        __m512i gathered[kGfniVectors];
        gather_keys(from + group * bytes, gathered);
        for (std::size_t i = 0; i < kOctet && group + i < job.key_count; ++i)
          _mm512_storeu_si512(to + (group + i) * job.page_size, gathered[i]);
      }
      continue;
    }
#endif
    for (std::size_t key = 0; key < job.key_count; ++key)
      std::memcpy(to + key * job.page_size, from + key * bytes, bytes);
  }
}

std::uint64_t read(const std::uint8_t* data, std::size_t bytes) {
  constexpr std::size_t kLines = 4;  // independent sums, so that additions do not wait on each other
  typedef Column<64> Line;
  Line sums[kLines] = {};
  std::uint64_t total = 0;
  std::size_t at = 0;
  // Whole words up to a cache line, so that no load straddles two.
  for (; at + sizeof total <= bytes && reinterpret_cast<std::uintptr_t>(data + at) % kCacheLine != 0;
       at += sizeof total) {
    std::uint64_t word;
    std::memcpy(&word, data + at, sizeof word);
    total ^= word;
  }
  for (; at + kLines * Line::kBytes <= bytes; at += kLines * Line::kBytes)
    for (std::size_t i = 0; i < kLines; ++i)
      sums[i] = sums[i] ^ Line::load(data + at + i * Line::kBytes);
  const Line sum = sums[0] ^ sums[1] ^ sums[2] ^ sums[3];
  std::uint64_t words[Line::kBytes / 8];
  sum.store(reinterpret_cast<std::uint8_t*>(words));
  for (std::uint64_t word : words) total ^= word;
  for (; at < bytes; at += sizeof total) {
    std::uint64_t word = 0;
    const std::size_t left = bytes - at;
    std::memcpy(&word, data + at, left < sizeof word ? left : sizeof word);
    total ^= word;
  }
  return total;
}

}  // namespace

extern const HostKernels MORPHOGEN_ISA;
const HostKernels MORPHOGEN_ISA = {MORPHOGEN_ISA_NAME, expand, scratch_bytes, scan, finish, read};

}  // namespace morphogen
