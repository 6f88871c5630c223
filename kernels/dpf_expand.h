// EvalFull on the host: expands a run of leaves of one key, many nodes side by side in SIMD lanes.
//
// The run is cut into subtrees of at most 2^kSubtreeLevels leaves. The path to each subtree's root
// is walked alone, and the first levels below the root are expanded as few nodes (dpf_rows.h). Below
// them every level is expanded breadth first, in place, one node a lane.
#pragma once

#include "dpf_rows.h"
#include "simd.h"

namespace morphogen {
namespace {

// With 1,024 leaves the walk to a subtree costs under 3% of its expansion, and the nodes (20 KiB)
// stay in the first-level cache.
constexpr int kSubtreeLevels = 10;
constexpr int kSubtreeLeaves = 1 << kSubtreeLevels;

// Vectors of nodes that are expanded side by side. A step of ChaCha20 waits for the one before, for
// two clocks on Zen 5, in which it can start twice as many as one state has (docs/experiments.md).
// Two states fill 32 registers. The test of constant time sets two for valgrind, which knows no
// AVX-512.
#if defined(MORPHOGEN_NODE_VECTORS)
constexpr int kNodeVectors = MORPHOGEN_NODE_VECTORS;
#elif defined(__AVX512F__) || defined(__aarch64__)
constexpr int kNodeVectors = 2;
#else
constexpr int kNodeVectors = 1;
#endif

// One level of a subtree, word by word. It is padded because the last vector of a level may be part
// full.
struct NodeLevel {
  alignas(64) std::uint32_t seed[kSeedWords][kSubtreeLeaves + kWordLanes];
  alignas(64) std::uint32_t control[kSubtreeLeaves + kWordLanes];

  template <int Count>
  MORPHOGEN_FN Node<Vectors<Count>> load(int first) const {
    Node<Vectors<Count>> node;
    for (int i = 0; i < kSeedWords; ++i) node.seed[i] = load_vectors<Count>(seed[i] + first);
    node.control = load_vectors<Count>(control + first);
    return node;
  }
};

// Stores left and right words so that the children stand in tree order.
template <int Count>
MORPHOGEN_FN void store_interleaved(std::uint32_t* words, const Vectors<Count>& left,
                                    const Vectors<Count>& right) {
  for (int i = 0; i < Count; ++i) {
    const WordVector a = get_part(left, i), b = get_part(right, i);
    store_vector(words + 2 * i * kWordLanes, shuffle_words<Interleaved<0>>(a, b));
    store_vector(words + (2 * i + 1) * kWordLanes, shuffle_words<Interleaved<1>>(a, b));
  }
}

// Writes the children of vectors of nodes of a level.
template <int Count>
MORPHOGEN_FN void expand_nodes(NodeLevel& nodes, int first, const std::uint8_t* key, int level) {
  const Children<Vectors<Count>> children = expand_node(nodes.load<Count>(first), key, level);
  for (int i = 0; i < kSeedWords; ++i)
    store_interleaved<Count>(nodes.seed[i] + 2 * first, children.left.seed[i],
                             children.right.seed[i]);
  store_interleaved<Count>(nodes.control + 2 * first, children.left.control,
                           children.right.control);
}

// Replaces `parents` nodes of a level by their 2 * parents children. It goes from the last vector
// to the first, so that the children of a vector never overwrite parents that are still to be read.
inline void expand_level(NodeLevel& nodes, int parents, const std::uint8_t* key, int level) {
  constexpr int kStep = kNodeVectors * kWordLanes;
  int end = (parents + kWordLanes - 1) / kWordLanes * kWordLanes;
  if (kNodeVectors > 1)
    for (; end % kStep != 0; end -= kWordLanes)
      expand_nodes<1>(nodes, end - kWordLanes, key, level);
  for (; end > 0; end -= kStep) expand_nodes<kNodeVectors>(nodes, end - kStep, key, level);
}

// Stores few nodes word by word, so that they fill the first vector of a level.
MORPHOGEN_FN void store_by_words(const FewNodes& few, NodeLevel& nodes) {
  WordVector seed[kSeedWords], control[kRowWords];
  transpose_fours(few.seed, seed);
  transpose_fours(few.control, control);
  for (int i = 0; i < kSeedWords; ++i)
    store_vector(nodes.seed[i], shuffle_words<TreeOrder>(seed[i]));
  store_vector(nodes.control, shuffle_words<TreeOrder>(control[0]));
}

// The last path that was walked from a key's root, with the siblings of its nodes. Subtrees are
// expanded in order, so the next path shares most of its nodes with the last one, and often the next
// subtree's root is a sibling. Which nodes these are is no secret: it is the same for every key.
class Path {
 public:
  explicit Path(const std::uint8_t* key) : key_(key) {
    const Node<std::uint32_t> root = root_node(key);
    std::memcpy(&levels_[0].seed[0], root.seed, kSeedBytes);
    levels_[0].control[0] = Row{} + root.control;
    levels_[0].parent = 0;
  }

  // Returns, as the first of few nodes, the node `target` of a level, numbered from the left.
  FewNodes walk(int level, std::uint64_t target) {
    int at = level < known_ ? level : known_;
    while (levels_[at].parent != target >> (level - at) >> 1) --at;
    FewNodes node = get(at, target >> (level - at));
    for (; at < level; ++at) {
      expand_few<1>(node, key_, at);
      Level& below = levels_[at + 1];
      below.parent = target >> (level - at);
      std::memcpy(below.seed, node.seed, sizeof below.seed);
      std::memcpy(below.control, node.control, sizeof below.control);
      node = get(at + 1, target >> (level - at - 1));
    }
    known_ = level;
    return node;
  }

 private:
  // The two children of one node.
  struct Level {
    std::uint64_t parent;
    Row seed[2], control[2];
  };

  FewNodes get(int level, std::uint64_t index) const {
    FewNodes node;
    node.seed[0] = splat_row(&levels_[level].seed[index & 1]);
    node.control[0] = splat_row(&levels_[level].control[index & 1]);
    return node;
  }

  const std::uint8_t* key_;
  int known_ = 0;  // the deepest level that path holds
  Level levels_[kMaxLogPages - kLeafLogBits + 1];
};

// Stores some words of leaves, one leaf every `step` words, from their rows in the lanes of vectors.
MORPHOGEN_FN void store_leaf_rows(WordVector (&rows)[kRowLanes], std::uint32_t* words, int step) {
  transpose_rows(rows);
  for (int i = 0; i < kRowLanes; ++i) store_vector(words + i * step, rows[i]);
}

template <int Count>
MORPHOGEN_FN void store_few_leaves(const RowBlocks<WordVector, Count>& leaves,
                                   std::uint32_t* words) {
  for (int v = 0; v < Count; ++v) {
    for (int row = 0; row < kBlockRows; row += kRowLanes) {
      WordVector rows[kRowLanes];
      for (int i = 0; i < kRowLanes; ++i) rows[i] = leaves.row[row + i][v];
      store_leaf_rows(rows, words + v * kRowLanes * kLeafWords + row * kRowWords, kLeafWords);
    }
  }
}

// Calls finish(lane, words) for each leaf below vectors of nodes at full depth; `lane` counts them
// from the level's first.
template <int Count, class Finish>
MORPHOGEN_FN void finish_leaves(const NodeLevel& nodes, int first, const std::uint8_t* key,
                                int depth, Finish&& finish) {
  Vectors<Count> leaf_words[kLeafWords];
  expand_leaf(nodes.load<Count>(first), key, depth, leaf_words);
  for (int part = 0; part < Count; ++part) {
    alignas(64) std::uint32_t words[kLeafWords * kWordLanes];
    for (int row = 0; row < kBlockRows; row += kRowLanes) {
      WordVector rows[4][kRowLanes];
      for (int i = 0; i < kRowLanes; ++i) {
        WordVector in[4], out[4];
        for (int j = 0; j < 4; ++j) in[j] = get_part(leaf_words[4 * (row + i) + j], part);
        transpose_fours(in, out);
        for (int j = 0; j < 4; ++j) rows[j][i] = out[j];
      }
      for (int j = 0; j < 4; ++j)
        store_leaf_rows(rows[j], words + j * kLeafWords + row * kRowWords, 4 * kLeafWords);
    }
    for (int lane = 0; lane < kWordLanes; ++lane)
      finish(first + part * kWordLanes + lane, words + lane * kLeafWords);
  }
}

// Expands leaves [first_leaf, first_leaf + count) of a valid key; `path` is a path of the same key.
// For each leaf, in any order, it calls sink(leaf - first_leaf, words) with the kLeafWords words of
// its selection bits.
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
    const int skipped = static_cast<int>(leaf - (top << below));
    const int needed = static_cast<int>(stop - (top << below));
    const std::uint64_t base = (top << below) - first_leaf;  // may wrap around, and back again
    alignas(64) std::uint32_t words[kLeafWords * kWordLanes];

    FewNodes few = path.walk(depth - below, top);
    int remaining = below;
    for (; remaining > 0; --remaining) {
      const int parents = ((needed - 1) >> remaining) + 1;
      if (parents > kFewNodes) break;
      if (parents <= kRowLanes)
        expand_few<1>(few, key, depth - remaining);
      else
        expand_few<2>(few, key, depth - remaining);
    }
    if (remaining == 0 && needed <= kFewNodes) {
      if (needed <= kRowLanes)
        store_few_leaves(expand_few_leaves<1>(few, key, depth), words);
      else
        store_few_leaves(expand_few_leaves<2>(few, key, depth), words);
      for (int at = skipped; at < needed; ++at)
        sink(base + static_cast<std::uint64_t>(at), words + at * kLeafWords);
      leaf = stop;
      continue;
    }

    store_by_words(few, nodes);
    for (; remaining > 0; --remaining)
      expand_level(nodes, ((needed - 1) >> remaining) + 1, key, depth - remaining);
    const auto finish = [&](int lane, const std::uint32_t* of_lane) {
      if (lane >= skipped && lane < needed) sink(base + static_cast<std::uint64_t>(lane), of_lane);
    };
    int first = skipped / kWordLanes * kWordLanes;
    for (; needed - first > (kNodeVectors - 1) * kWordLanes; first += kNodeVectors * kWordLanes)
      finish_leaves<kNodeVectors>(nodes, first, key, depth, finish);
    if (kNodeVectors > 1)
      for (; first < needed; first += kWordLanes)
        finish_leaves<1>(nodes, first, key, depth, finish);
    leaf = stop;
  }
}

}  // namespace
}  // namespace morphogen
