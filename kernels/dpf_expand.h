// EvalFull on the host: a run of leaves of one key, many nodes side by side in SIMD lanes.
//
// The run is cut into subtrees of at most 2^kSubtreeLevels leaves. The path to each subtree's root
// is walked alone; below it every level is expanded breadth first, in place, one node a lane.
#pragma once

#include "dpf.h"
#include "simd.h"

namespace morphogen {
namespace {

// 1,024 leaves: the walk to a subtree then costs under 3% of expanding it, and the nodes (20 KiB)
// stay in the first-level cache.
constexpr int kSubtreeLevels = 10;
constexpr int kSubtreeLeaves = 1 << kSubtreeLevels;

// One level of a subtree, word by word. Padded, since the last vector of a level may be part full.
struct NodeLevel {
  alignas(64) std::uint32_t seed[kSeedWords][kSubtreeLeaves + kWordLanes];
  alignas(64) std::uint32_t control[kSubtreeLeaves + kWordLanes];

  Node<WordVector> load(int first) const {
    Node<WordVector> node;
    for (int i = 0; i < kSeedWords; ++i) node.seed[i] = load_vector(seed[i] + first);
    node.control = load_vector(control + first);
    return node;
  }
};

// Writes a vector of left and one of right words so that children stand in tree order.
MORPHOGEN_FN void store_interleaved(std::uint32_t* words, WordVector left, WordVector right) {
  alignas(64) std::uint32_t pairs[2 * kWordLanes];
  for (int lane = 0; lane < kWordLanes; ++lane) {
    pairs[2 * lane] = left[lane];
    pairs[2 * lane + 1] = right[lane];
  }
  std::memcpy(words, pairs, sizeof pairs);
}

// Replaces `parents` nodes of a level by their 2 * parents children. Works from the last vector to
// the first: the children of a vector never overlap parents that are still to be read.
inline void expand_level(NodeLevel& nodes, int parents, const std::uint8_t* key, int level) {
  for (int first = (parents - 1) / kWordLanes * kWordLanes; first >= 0; first -= kWordLanes) {
    const Children<WordVector> children = expand_node(nodes.load(first), key, level);
    for (int i = 0; i < kSeedWords; ++i)
      store_interleaved(nodes.seed[i] + 2 * first, children.left.seed[i], children.right.seed[i]);
    store_interleaved(nodes.control + 2 * first, children.left.control, children.right.control);
  }
}

// Expands leaves [first_leaf, first_leaf + count) of a valid key. For each of them, in any order,
// calls sink(leaf - first_leaf, words) with the kLeafWords selection words as an array-like of
// strided words: words[i * kWordLanes] is word i.
template <class Sink>
inline void expand_leaves(const std::uint8_t* key, std::uint64_t first_leaf, std::uint64_t count,
                          NodeLevel& nodes, Sink&& sink) {
  const int depth = tree_depth(key[kLogPagesOffset]);
  const int levels = depth < kSubtreeLevels ? depth : kSubtreeLevels;
  const std::uint64_t end = first_leaf + count;
  for (std::uint64_t leaf = first_leaf; leaf < end;) {
    const std::uint64_t subtree = leaf >> levels;
    const std::uint64_t subtree_end = (subtree + 1) << levels;
    const std::uint64_t stop = end < subtree_end ? end : subtree_end;
    // A short run starts as deep as one node still covers it.
    int below = levels;
    while (below > 0 && (leaf >> (below - 1)) == ((stop - 1) >> (below - 1))) --below;
    const std::uint64_t top = leaf >> below;
    const Node<std::uint32_t> root = descend(root_node(key), key, 0, depth - below, top);
    for (int i = 0; i < kSeedWords; ++i) nodes.seed[i][0] = root.seed[i];
    nodes.control[0] = root.control;

    const int skipped = static_cast<int>(leaf - (top << below));
    const int needed = static_cast<int>(stop - (top << below));
    for (int remaining = below; remaining > 0; --remaining) {
      const int parents = ((needed - 1) >> remaining) + 1;
      expand_level(nodes, parents, key, depth - remaining);
    }
    for (int first = skipped / kWordLanes * kWordLanes; first < needed; first += kWordLanes) {
      WordVector leaf_words[kLeafWords];
      expand_leaf(nodes.load(first), key, depth, leaf_words);
      alignas(64) std::uint32_t words[kLeafWords * kWordLanes];
      for (int i = 0; i < kLeafWords; ++i) store_vector(words + i * kWordLanes, leaf_words[i]);
      for (int lane = 0; lane < kWordLanes; ++lane) {
        if (first + lane < skipped || first + lane >= needed) continue;
        sink((top << below) + static_cast<std::uint64_t>(first + lane) - first_leaf, words + lane);
      }
    }
    leaf = stop;
  }
}

}  // namespace
}  // namespace morphogen
