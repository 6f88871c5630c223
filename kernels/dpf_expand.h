// EvalFull on the host: expands a run of leaves of one key, many nodes side by side in SIMD lanes.
//
// The run is cut into subtrees of at most 2^kSubtreeLevels leaves. The path to each subtree's root
// is walked alone. Below the root every level is expanded breadth first, in place, one node a lane.
#pragma once

#include "dpf.h"
#include "simd.h"

namespace morphogen {
namespace {

// With 1,024 leaves the walk to a subtree costs under 3% of its expansion, and the nodes (20 KiB)
// stay in the first-level cache.
constexpr int kSubtreeLevels = 10;
constexpr int kSubtreeLeaves = 1 << kSubtreeLevels;

// One level of a subtree, word by word. It is padded because the last vector of a level may be part
// full.
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

// Stores a vector of left words and one of right words so that the children stand in tree order.
MORPHOGEN_FN void store_interleaved(std::uint32_t* words, WordVector left, WordVector right) {
  store_vector(words, shuffle_words<Interleaved<0>>(left, right));
  store_vector(words + kWordLanes, shuffle_words<Interleaved<1>>(left, right));
}

// Turns four words of a vector's leaves so that each leaf's four words lie side by side: the words
// of leaf 4 * i + j are elements 4 * i to 4 * i + 3 of vector j.
MORPHOGEN_FN void transpose_fours(const WordVector (&in)[4], WordVector (&out)[4]) {
  const WordVector low01 = shuffle_words<Unpacked<1, 0>>(in[0], in[1]);
  const WordVector high01 = shuffle_words<Unpacked<1, 1>>(in[0], in[1]);
  const WordVector low23 = shuffle_words<Unpacked<1, 0>>(in[2], in[3]);
  const WordVector high23 = shuffle_words<Unpacked<1, 1>>(in[2], in[3]);
  out[0] = shuffle_words<Unpacked<2, 0>>(low01, low23);
  out[1] = shuffle_words<Unpacked<2, 1>>(low01, low23);
  out[2] = shuffle_words<Unpacked<2, 0>>(high01, high23);
  out[3] = shuffle_words<Unpacked<2, 1>>(high01, high23);
}

// Replaces `parents` nodes of a level by their 2 * parents children. It goes from the last vector
// to the first, so that the children of a vector never overwrite parents that are still to be read.
inline void expand_level(NodeLevel& nodes, int parents, const std::uint8_t* key, int level) {
  for (int first = (parents - 1) / kWordLanes * kWordLanes; first >= 0; first -= kWordLanes) {
    const Children<WordVector> children = expand_node(nodes.load(first), key, level);
    for (int i = 0; i < kSeedWords; ++i)
      store_interleaved(nodes.seed[i] + 2 * first, children.left.seed[i], children.right.seed[i]);
    store_interleaved(nodes.control + 2 * first, children.left.control, children.right.control);
  }
}

// The last path that was walked from a key's root. Subtrees are expanded in order, so the next path
// shares most of its nodes with the last one. These nodes are no secret: they are the same for
// every key.
class Path {
 public:
  explicit Path(const std::uint8_t* key) : key_(key) {
    node_[0] = root_node(key);
    index_[0] = 0;
  }

  // Returns the node `target` of a level, numbered from the left.
  const Node<std::uint32_t>& walk(int level, std::uint64_t target) {
    int at = level < known_ ? level : known_;
    while (index_[at] != target >> (level - at)) --at;
    for (; at < level; ++at) {
      index_[at + 1] = target >> (level - at - 1);
      node_[at + 1] = descend(node_[at], key_, at, at + 1, index_[at + 1] & 1);
    }
    known_ = level;
    return node_[level];
  }

 private:
  const std::uint8_t* key_;
  int known_ = 0;  // the deepest level that path holds
  std::uint64_t index_[kMaxLogPages - kLeafLogBits + 1];
  Node<std::uint32_t> node_[kMaxLogPages - kLeafLogBits + 1];
};

constexpr int kWordsOfFour = 4 * kWordLanes;

// Stores the 64 selection bytes of a leaf from the words that a sink receives.
MORPHOGEN_FN void store_leaf(std::uint8_t* out, const std::uint32_t* words) {
  for (int four = 0; four < kLeafWords / 4; ++four)
    std::memcpy(out + 16 * four, words + four * kWordsOfFour, 16);
}

// Expands leaves [first_leaf, first_leaf + count) of a valid key; `path` is a path of the same key.
// For each leaf, in any order, it calls sink(leaf - first_leaf, words), and the sink calls
// store_leaf.
template <class Sink>
inline void expand_leaves(const std::uint8_t* key, std::uint64_t first_leaf, std::uint64_t count,
                          Path& path, NodeLevel& nodes, Sink&& sink) {
  const int depth = tree_depth(key[kLogPagesOffset]);
  const int levels = depth < kSubtreeLevels ? depth : kSubtreeLevels;
  const std::uint64_t end = first_leaf + count;
  for (std::uint64_t leaf = first_leaf; leaf < end;) {
    const std::uint64_t subtree = leaf >> levels;
    const std::uint64_t subtree_end = (subtree + 1) << levels;
    const std::uint64_t stop = end < subtree_end ? end : subtree_end;
    // A short run starts at the deepest level where one node still covers the run.
    int below = levels;
    while (below > 0 && (leaf >> (below - 1)) == ((stop - 1) >> (below - 1))) --below;
    const std::uint64_t top = leaf >> below;
    const Node<std::uint32_t>& root = path.walk(depth - below, top);
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
      for (int four = 0; four < kLeafWords / 4; ++four) {
        const WordVector in[4] = {leaf_words[4 * four], leaf_words[4 * four + 1],
                                  leaf_words[4 * four + 2], leaf_words[4 * four + 3]};
        WordVector out[4];
        transpose_fours(in, out);
        for (int i = 0; i < 4; ++i)
          store_vector(words + four * kWordsOfFour + i * kWordLanes, out[i]);
      }
      for (int lane = 0; lane < kWordLanes; ++lane) {
        if (first + lane < skipped || first + lane >= needed) continue;
        sink((top << below) + static_cast<std::uint64_t>(first + lane) - first_leaf,
             words + lane % 4 * kWordLanes + lane / 4 * 4);
      }
    }
    leaf = stop;
  }
}

}  // namespace
}  // namespace morphogen
