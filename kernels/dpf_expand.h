// Levels of a key's tree on the host, many nodes side by side in SIMD lanes.
//
// The path to a subtree's root is walked alone, and the first levels below the root are expanded as
// few nodes (dpf_rows.h). Below them every level is expanded breadth first, in place, one node a
// lane.
#pragma once

#include "dpf_blocks.h"
#include "dpf_rows.h"
#include "simd.h"

namespace morphogen {
namespace {

// The nodes of so many leaves (20 KiB) stay in the first-level cache.
constexpr int kSubtreeLevels = 10;
constexpr int kSubtreeLeaves = 1 << kSubtreeLevels;

// Nodes of one level, at most so many, word by word. It is padded because the last vector of a level
// may be part full.
template <int Most>
struct Nodes {
  alignas(64) std::uint32_t seed[kSeedWords][Most + kWordLanes];
  alignas(64) std::uint32_t control[Most + kWordLanes];

  // Takes `count` nodes of another level as the first of this.
  template <class Other>
  void copy(const Other& other, int first, int count) {
    const std::size_t bytes = sizeof control[0] * static_cast<std::size_t>(count);
    for (int i = 0; i < kSeedWords; ++i) std::memcpy(seed[i], other.seed[i] + first, bytes);
    std::memcpy(control, other.control + first, bytes);
  }

  MORPHOGEN_FN WordVector load_control(int first) const { return load_vector(control + first); }

  // Calls put(i, word, value) for the blocks of `Count` vectors of nodes; `start` has the words of a
  // state but the seed.
  template <int Count, class Put>
  MORPHOGEN_FN void expand(int first, const State<WordVector>& start, Put&& put) const {
    expand_seeds<Count>(seed[0] + first, sizeof seed[0] / 4, start, put);
  }
};

// The nodes of a subtree's leaves.
typedef Nodes<kSubtreeLeaves> NodeLevel;

// Stores left and right words so that the children stand in tree order.
MORPHOGEN_FN void store_interleaved(std::uint32_t* words, WordVector left, WordVector right) {
  store_vector(words, shuffle_words<Interleaved<0>>(left, right));
  store_vector(words + kWordLanes, shuffle_words<Interleaved<1>>(left, right));
}

// Writes the children of `Count` vectors of nodes of a level.
template <int Count, class Level>
MORPHOGEN_FN void expand_nodes(Level& nodes, int first, const State<WordVector>& start,
                               const std::uint8_t* key, int level) {
  WordVector blocks[Count][kChaChaWords];
  nodes.template expand<Count>(
      first, start, [&](int i, int word, WordVector value) { blocks[i][word] = value; });
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

// Returns a state without its seed.
MORPHOGEN_FN State<WordVector> make_start(const std::uint8_t* key, std::uint32_t counter) {
  const WordVector no_seed[kSeedWords] = {};
  return make_state(no_seed, key, counter);
}

// Replaces the nodes [first, end) of a level by their children, from node 2 * first on. It goes from
// the last vector to the first, so that the children of a vector never overwrite parents that are
// still to be read.
template <class Level>
void expand_level(Level& nodes, int first, int end, const std::uint8_t* key, int level) {
  const State<WordVector> start = make_start(key, kCounterInner);
  first = first / kWordLanes * kWordLanes;
  const int vectors = (end - first + kWordLanes - 1) / kWordLanes;
  int at = first + vectors * kWordLanes;
  for_vectors(vectors, [&](auto count) {
    at -= count.value * kWordLanes;
    expand_nodes<count.value>(nodes, at, start, key, level);
  });
}

// Stores few nodes word by word, so that they fill the first vector of a level.
template <class Level>
MORPHOGEN_FN void store_by_words(const FewNodes& few, Level& nodes) {
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

}  // namespace
}  // namespace morphogen
