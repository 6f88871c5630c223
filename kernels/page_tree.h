// The tree over a table's pages (section 13 of docs/protocol.md): leaves, nodes, and the path from a
// page to the cap. Host code.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "sha256.h"

namespace morphogen {
namespace {

constexpr char kLeafName[] = "morphogen/leaf/1", kNodeName[] = "morphogen/node/1";
constexpr std::size_t kNameBytes = 16;

// The messages of a group: the kernel takes as many at once.
struct NodeGroup {
  std::uint8_t heads[kMaxShaLanes][kShaBytes];
  std::uint8_t pairs[kMaxShaLanes][2 * kShaBytes];
  std::uint8_t digests[kMaxShaLanes][kShaBytes];
  const std::uint8_t* bodies[kMaxShaLanes];

  void leaves(const ShaKernel& kernel, int count, std::size_t content_bytes) {
    sha256_together(kernel, count, kShaBytes, heads, bodies, content_bytes, digests);
  }
  void nodes(const ShaKernel& kernel, int count) {
    sha256_together(kernel, count, kShaBytes, heads, bodies, 2 * kShaBytes, digests);
  }
  void head_leaf(int lane, std::uint64_t index, std::uint64_t content_bytes) {
    std::memcpy(heads[lane], kLeafName, kNameBytes);
    std::memcpy(heads[lane] + kNameBytes, &index, sizeof index);
    std::memcpy(heads[lane] + kNameBytes + sizeof index, &content_bytes, sizeof content_bytes);
  }
  void head_node(int lane) {
    std::memset(heads[lane], 0, kShaBytes);
    std::memcpy(heads[lane], kNodeName, kNameBytes);
  }
};

// Writes the leaves of pages from the index `first` on, whose contents begin `stride` bytes apart.
inline void hash_leaves(const ShaKernel& kernel, std::uint64_t first, const std::uint8_t* contents,
                        std::ptrdiff_t stride, std::size_t pages, std::size_t content_bytes,
                        std::uint8_t* leaves) {
  NodeGroup group;
  for (std::size_t at = 0; at < pages;) {
    const int count = static_cast<int>(std::min<std::size_t>(kernel.lanes, pages - at));
    for (int lane = 0; lane < count; ++lane) {
      const std::size_t page = at + lane;
      group.head_leaf(lane, first + page, content_bytes);
      group.bodies[lane] = contents + static_cast<std::ptrdiff_t>(page) * stride;
    }
    group.leaves(kernel, count, content_bytes);
    std::memcpy(leaves + at * kShaBytes, group.digests, count * kShaBytes);
    at += count;
  }
}

// Writes the parents of pairs of nodes, which may take the place of those.
inline void hash_pairs(const ShaKernel& kernel, const std::uint8_t* nodes, std::size_t pairs,
                       std::uint8_t* parents) {
  NodeGroup group;
  for (int lane = 0; lane < kernel.lanes; ++lane) group.head_node(lane);
  for (std::size_t at = 0; at < pairs;) {
    const int count = static_cast<int>(std::min<std::size_t>(kernel.lanes, pairs - at));
    for (int lane = 0; lane < count; ++lane)
      group.bodies[lane] = nodes + (at + lane) * 2 * kShaBytes;
    group.nodes(kernel, count);
    std::memcpy(parents + at * kShaBytes, group.digests, count * kShaBytes);
    at += count;
  }
}

// Leaves in `nodes`, which has room for one more, the nodes so many levels above. One that covers no
// page is zero. Returns their number.
inline std::size_t climb(const ShaKernel& kernel, std::uint8_t* nodes, std::size_t count,
                         unsigned int levels) {
  for (; levels != 0; --levels) {
    if (count % 2 != 0) std::memset(nodes + kShaBytes * count++, 0, kShaBytes);
    count /= 2;
    hash_pairs(kernel, nodes, count, nodes);
  }
  return count;
}

// Leaves in `group.digests` the nodes that up to the kernel's lanes of pages lead to, by their
// contents and by the siblings behind those.
inline void climb_paths(const ShaKernel& kernel, NodeGroup& group, int count,
                        const std::uint8_t* pages, std::size_t page_bytes,
                        std::size_t content_bytes, const std::uint64_t* indices) {
  for (int lane = 0; lane < count; ++lane) {
    group.head_leaf(lane, indices[lane], content_bytes);
    group.bodies[lane] = pages + lane * page_bytes;
  }
  group.leaves(kernel, count, content_bytes);
  for (int lane = 0; lane < count; ++lane) {
    group.head_node(lane);
    group.bodies[lane] = group.pairs[lane];
  }
  const std::size_t levels = (page_bytes - content_bytes) / kShaBytes;
  for (std::size_t level = 0; level < levels; ++level) {
    for (int lane = 0; lane < count; ++lane) {
      const std::size_t is_right = indices[lane] >> level & 1;
      std::memcpy(group.pairs[lane] + kShaBytes * is_right, group.digests[lane], kShaBytes);
      std::memcpy(group.pairs[lane] + kShaBytes * (1 - is_right),
                  pages + lane * page_bytes + content_bytes + level * kShaBytes, kShaBytes);
    }
    group.nodes(kernel, count);
  }
}

// Writes the node that a page leads to.
inline void hash_path(const ShaKernel& kernel, const std::uint8_t* page, std::size_t page_bytes,
                      std::size_t content_bytes, std::uint64_t index, std::uint8_t* node) {
  NodeGroup group;
  climb_paths(kernel, group, 1, page, page_bytes, content_bytes, &index);
  std::memcpy(node, group.digests[0], kShaBytes);
}

// Tells whether all pages lead to their nodes of the cap. All are hashed, whatever they are.
inline bool lead_to_cap(const ShaKernel& kernel, const std::uint8_t* pages, std::size_t page_bytes,
                        std::size_t content_bytes, const std::uint64_t* indices, std::size_t count,
                        const std::uint8_t* cap) {
  NodeGroup group;
  const std::size_t levels = (page_bytes - content_bytes) / kShaBytes;
  std::uint8_t wrong = 0;
  for (std::size_t at = 0; at < count;) {
    const int some = static_cast<int>(std::min<std::size_t>(kernel.lanes, count - at));
    climb_paths(kernel, group, some, pages + at * page_bytes, page_bytes, content_bytes,
                indices + at);
    for (int lane = 0; lane < some; ++lane) {
      const std::uint8_t* const node = cap + (indices[at + lane] >> levels) * kShaBytes;
      for (std::size_t i = 0; i < kShaBytes; ++i) wrong |= group.digests[lane][i] ^ node[i];
    }
    at += some;
  }
  return wrong == 0;
}

}  // namespace
}  // namespace morphogen
