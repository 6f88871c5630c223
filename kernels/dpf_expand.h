// EvalFull on the host: expands a run of leaves of one key, many nodes side by side in SIMD lanes.
//
// The run is cut into subtrees of at most 2^kSubtreeLevels leaves. The path to each subtree's root
// is walked alone, and the first levels below the root are expanded as few nodes (dpf_rows.h). Below
// them every level is expanded breadth first, in place, one node a lane.
#pragma once

#include "dpf_blocks.h"
#include "dpf_rows.h"
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

  MORPHOGEN_FN WordVector load_control(int first) const { return load_vector(control + first); }

  // Writes the blocks of `Count` vectors of nodes; `start` has the words of a state but the seed.
  template <int Count>
  MORPHOGEN_FN void expand(int first, const State<WordVector>& start,
                           WordVector (&blocks)[Count][kChaChaWords]) const {
    expand_seeds(seed[0] + first, sizeof seed[0] / 4, start, blocks);
  }
};

// Stores left and right words so that the children stand in tree order.
MORPHOGEN_FN void store_interleaved(std::uint32_t* words, WordVector left, WordVector right) {
  store_vector(words, shuffle_words<Interleaved<0>>(left, right));
  store_vector(words + kWordLanes, shuffle_words<Interleaved<1>>(left, right));
}

// Writes the children of `Count` vectors of nodes of a level.
template <int Count>
MORPHOGEN_FN void expand_nodes(NodeLevel& nodes, int first, const State<WordVector>& start,
                               const std::uint8_t* key, int level) {
  WordVector blocks[Count][kChaChaWords];
  nodes.expand(first, start, blocks);
#pragma GCC unroll 2
  for (int i = Count - 1; i >= 0; --i) {  // children never overwrite nodes that are still read
    const int at = first + i * kWordLanes;
    const Children<WordVector> children =
        make_children(blocks[i], nodes.load_control(at), key, level);
    for (int word = 0; word < kSeedWords; ++word)
      store_interleaved(nodes.seed[word] + 2 * at, children.left.seed[word],
                        children.right.seed[word]);
    store_interleaved(nodes.control + 2 * at, children.left.control, children.right.control);
  }
}

MORPHOGEN_FN State<WordVector> make_start(const std::uint8_t* key, std::uint32_t counter) {
  const WordVector no_seed[kSeedWords] = {};
  return make_state(no_seed, key, counter);
}

// Replaces `parents` nodes of a level by their 2 * parents children. It goes from the last vector
// to the first, so that the children of a vector never overwrite parents that are still to be read.
inline void expand_level(NodeLevel& nodes, int parents, const std::uint8_t* key, int level) {
  const State<WordVector> start = make_start(key, kCounterInner);
  int end = (parents + kWordLanes - 1) / kWordLanes * kWordLanes;
  for_vectors(end / kWordLanes, [&](auto count) {
    end -= count.value * kWordLanes;
    expand_nodes<count.value>(nodes, end, start, key, level);
  });
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

// Calls finish(lane, words) for each leaf below `Count` vectors of nodes at full depth; `lane` counts
// them from the level's first.
template <int Count, class Finish>
MORPHOGEN_FN void finish_leaves(const NodeLevel& nodes, int first,
                                const State<WordVector>& start, const std::uint8_t* key, int depth,
                                Finish&& finish) {
  WordVector leaves[Count][kLeafWords];
  nodes.expand(first, start, leaves);
#pragma GCC unroll 2
  for (int part = 0; part < Count; ++part) {
    const int at = first + part * kWordLanes;
    correct_leaf(leaves[part], nodes.load_control(at), key, depth);
    alignas(64) std::uint32_t words[kLeafWords * kWordLanes];
    for (int row = 0; row < kBlockRows; row += kRowLanes) {
      WordVector rows[4][kRowLanes];
      for (int i = 0; i < kRowLanes; ++i) {
        WordVector in[4], out[4];
        for (int j = 0; j < 4; ++j) in[j] = leaves[part][4 * (row + i) + j];
        transpose_fours(in, out);
        for (int j = 0; j < 4; ++j) rows[j][i] = out[j];
      }
      for (int j = 0; j < 4; ++j)
        store_leaf_rows(rows[j], words + j * kLeafWords + row * kRowWords, 4 * kLeafWords);
    }
    for (int lane = 0; lane < kWordLanes; ++lane) finish(at + lane, words + lane * kLeafWords);
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
    const State<WordVector> start = make_start(key, kCounterLeaf);
    int first = skipped / kWordLanes * kWordLanes;
    for_vectors((needed - first + kWordLanes - 1) / kWordLanes, [&](auto count) {
      finish_leaves<count.value>(nodes, first, start, key, depth, finish);
      first += count.value * kWordLanes;
    });
    leaf = stop;
  }
}

}  // namespace
}  // namespace morphogen
