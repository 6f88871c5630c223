// Compiled once per instruction set, with that set's compiler flags and MORPHOGEN_ISA (an identifier)
// and MORPHOGEN_ISA_NAME (its public name). Only the table at the end has external linkage, and
// nothing of the standard library's templates is used: the linker must not find a function here that
// other code could call on a machine without the instruction set.
#include "host_kernels.h"

#include "dpf_expand.h"
#include "scan_gfni.h"
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

// The scratch of a scan: accumulators, then the selection of a batch of leaves, then tree nodes.
struct ScratchLayout {
  std::size_t key_stride, accumulator_bytes, batch_leaves, selection_offset, nodes_offset, bytes;

  ScratchLayout(std::size_t page_size, std::size_t key_count) {
    // A batch's selection should not push pages out of the second-level cache; but the fewer leaves
    // a batch has, the more of its work is the walk to it, which small pages feel.
    constexpr std::size_t kSelectionBytes = 256 << 10;
    constexpr std::size_t kBatchPageBytes = 4 << 20;
    constexpr std::size_t kMinLeaves = 64;
    key_stride = round_up(key_count, kKeyAlign);
    const std::size_t column = column_bytes(page_size);
    accumulator_bytes = round_up(column_count(page_size, column) * column * key_stride, kCacheLine);
    batch_leaves = kMinLeaves;
    while (batch_leaves < kSubtreeLeaves && batch_leaves * kLeafBits * page_size < kBatchPageBytes)
      batch_leaves *= 2;
    while (batch_leaves > 1 && batch_leaves * kLeafBytes * key_stride > kSelectionBytes)
      batch_leaves /= 2;
    selection_offset = accumulator_bytes;
    nodes_offset = selection_offset + round_up(batch_leaves * kLeafBytes * key_stride, kCacheLine);
    bytes = nodes_offset + round_up(sizeof(NodeLevel), kCacheLine);
  }
};

std::size_t scratch_bytes(std::size_t page_size, std::size_t key_count) {
  return ScratchLayout(page_size, key_count).bytes;
}

// Tiles of more pages save trips to the accumulators, which pays where there are many keys; tiles of
// fewer pages read closer to memory order, which pays where there are few.
constexpr std::size_t kFewKeys = 8;
constexpr std::size_t kManyKeys = 48;

template <template <std::size_t> class Method>
MORPHOGEN_FN void scan_with(const PageRun& run) {
  if (run.key_count <= kFewKeys)
    scan_run<Method<1>>(run);
  else if (run.key_count < kManyKeys)
    scan_run<Method<2>>(run);
  else
    scan_run<Method<4>>(run);
}

template <int Bytes>
struct Tables {
  template <std::size_t Octets>
  using Method = TableMethod<Bytes, Octets>;
};

void scan_pages(const PageRun& run) {
  switch (column_bytes(run.page_size)) {
    case 64:
#if defined(__AVX512BW__) && defined(__GFNI__)
      return scan_with<GfniMethod>(run);
#else
      return scan_with<Tables<64>::Method>(run);
#endif
    case 32:
      return scan_with<Tables<32>::Method>(run);
    case 16:
      return scan_with<Tables<16>::Method>(run);
    case 8:
      return scan_with<Tables<8>::Method>(run);
    case 4:
      return scan_with<Tables<4>::Method>(run);
    case 2:
      return scan_with<Tables<2>::Method>(run);
    default:
      return scan_with<Tables<1>::Method>(run);
  }
}

void scan(const ScanJob& job, std::uint64_t first, std::uint64_t last, std::uint8_t* scratch) {
  const ScratchLayout layout(job.page_size, job.key_count);
  std::uint8_t* selection = scratch + layout.selection_offset;
  NodeLevel& nodes = *reinterpret_cast<NodeLevel*>(scratch + layout.nodes_offset);
  std::memset(scratch, 0, layout.accumulator_bytes);
  std::memset(selection, 0, layout.batch_leaves * kLeafBytes * layout.key_stride);

  const std::uint64_t body_pages = job.page_count - (job.tail != nullptr);
  const std::uint64_t batch_pages = layout.batch_leaves * kLeafBits;
  for (std::uint64_t page = first; page < last;) {
    // Batches start at multiples of batch_leaves, so that each is one subtree.
    const std::uint64_t batch = page / batch_pages * batch_pages;
    const std::uint64_t stop = batch + batch_pages < last ? batch + batch_pages : last;
    const std::uint64_t first_leaf = page / kLeafBits;
    const std::uint64_t leaves = (stop - 1) / kLeafBits + 1 - first_leaf;
    for (std::size_t key = 0; key < job.key_count; ++key) {
      std::uint8_t* column = selection + key;
      const std::size_t stride = layout.key_stride;
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
    run.page_size = job.page_size;
    run.key_count = job.key_count;
    run.key_stride = layout.key_stride;
    run.accumulators = scratch;
    const std::uint64_t body_stop = stop < body_pages ? stop : body_pages;
    if (page < body_stop) {
      run.pages = job.body + page * job.page_size;
      run.page_count = body_stop - page;
      run.selection = selection + (page - first_leaf * kLeafBits) / kOctet * layout.key_stride;
      scan_pages(run);
    }
    if (stop > body_pages) {
      // The tail page need not stand at the start of an octet: move its bit to where one starts.
      const std::size_t offset = static_cast<std::size_t>(body_pages - first_leaf * kLeafBits);
      std::uint8_t* row = selection + offset / kOctet * layout.key_stride;
      for (std::size_t key = 0; key < job.key_count; ++key)
        row[key] = static_cast<std::uint8_t>(row[key] >> (offset % kOctet));
      run.pages = job.tail;
      run.page_count = 1;
      run.selection = row;
      scan_pages(run);
    }
    page = stop;
  }
}

void finish(const ScanJob& job, std::uint8_t* const* scratch, std::size_t scratch_count,
            std::uint8_t* out) {
  const ScratchLayout layout(job.page_size, job.key_count);
  std::uint8_t* total = scratch[0];
  typedef Column<64> Line;  // accumulators are whole, aligned lines
  for (std::size_t i = 1; i < scratch_count; ++i)
    for (std::size_t at = 0; at < layout.accumulator_bytes; at += Line::kBytes)
      (Line::load(total + at) ^ Line::load(scratch[i] + at)).store(total + at);

  const std::size_t bytes = column_bytes(job.page_size);
  const std::size_t columns = column_count(job.page_size, bytes);
  for (std::size_t column = 0; column < columns; ++column) {
    const std::uint8_t* from = total + column * layout.key_stride * bytes;
    std::uint8_t* to = out + column_offset(column, job.page_size, bytes);
#if defined(__AVX512BW__) && defined(__GFNI__)
    if (bytes == 64) {
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
  std::size_t at = 0;
  for (; at + kLines * Line::kBytes <= bytes; at += kLines * Line::kBytes)
    for (std::size_t i = 0; i < kLines; ++i)
      sums[i] = sums[i] ^ Line::load(data + at + i * Line::kBytes);
  const Line sum = sums[0] ^ sums[1] ^ sums[2] ^ sums[3];
  std::uint64_t words[Line::kBytes / 8];
  sum.store(reinterpret_cast<std::uint8_t*>(words));
  std::uint64_t total = 0;
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
