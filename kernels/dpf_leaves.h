// EvalFull on the host: the leaves of one key from any to any, run by run.
//
// Few nodes leave most lanes of a vector empty, so that the levels near a root take as long as some
// that have many. A key's tree therefore holds a stretch of nodes a few levels above the leaves, from
// which the runs are expanded one after the other.
#pragma once

#include "dpf_expand.h"

namespace morphogen {
namespace {

// The levels from the nodes that are held to the leaves, and how many of these nodes there are: the
// fewer levels, the more nodes a run starts with.
constexpr int kHeldLevels = 3;
constexpr int kHeldNodes = 128;
static_assert(kHeldNodes % (kSubtreeLeaves >> kHeldLevels) == 0, "a run lies in one stretch");

// Writes leaves one after the other, from the rows of their blocks.
template <int Count>
MORPHOGEN_FN void store_few_leaves(const RowBlocks<WordVector, Count>& leaves, std::uint8_t* out) {
  std::uint32_t* const words = reinterpret_cast<std::uint32_t*>(out);
  for (int v = 0; v < Count; ++v) {
    for (int row = 0; row < kBlockRows; row += kRowLanes) {
      WordVector rows[kRowLanes];
      for (int i = 0; i < kRowLanes; ++i) rows[i] = leaves.row[row + i][v];
      transpose_rows(rows);
      for (int i = 0; i < kRowLanes; ++i)
        store_vector(words + (v * kRowLanes + i) * kLeafWords + row * kRowWords, rows[i]);
    }
  }
}

class KeyTree {
 public:
  explicit KeyTree(const std::uint8_t* key)
      : key_(key),
        path_(key),
        depth_(tree_depth(key[kLogPagesOffset])),
        below_(depth_ < kHeldLevels ? depth_ : kHeldLevels) {}

  // Writes the nodes of leaves [first, first + count), and returns where the first stands. A run
  // does not go across a multiple of kSubtreeLeaves. The caller expects to ask for all until `end`,
  // run by run.
  int expand(std::uint64_t first, int count, std::uint64_t end, NodeLevel& nodes) {
    const std::uint64_t top = first >> below_;
    const int needed = static_cast<int>(((first + count - 1) >> below_) - top) + 1;
    if (top < held_first_ || top + needed > held_end_) hold(top, ((end - 1) >> below_) + 1);
    nodes.copy(held_, static_cast<int>(top - held_first_) + held_at_, needed);
    const int skipped = static_cast<int>(first - (top << below_));
    expand_levels(nodes, skipped, skipped + count, depth_, below_);
    return skipped;
  }

  // Tells whether the key has no more leaves than few nodes.
  bool is_small() const { return kFewNodes >> depth_ > 0; }

  // Writes all leaves of a small tree, and up to kFewNodes in all.
  void expand_small(std::uint8_t* out) {
    FewNodes few = path_.walk(0, 0);
    for (int level = 0; level < depth_; ++level) expand_few_at(few, level, 1 << level);
    if (kRowLanes >> depth_ > 0)
      store_few_leaves(expand_few_leaves<1>(few, key_, depth_), out);
    else
      store_few_leaves(expand_few_leaves<2>(few, key_, depth_), out);
  }

  // Returns what the states of leaves begin with.
  MORPHOGEN_FN State<WordVector> leaf_start() const { return make_start(key_, kCounterLeaf); }

  // Writes the leaves below `Count` vectors of nodes, as the words of each vector. This is not
  // inlined, so that the rounds get the same registers whoever calls.
  template <int Count>
  __attribute__((noinline)) void finish(const NodeLevel& nodes, int at,
                                        const State<WordVector>& start,
                                        std::uint32_t* words) const {
    const std::uint8_t* const correction = key_ + leaf_correction_offset(depth_);
    WordVector mask;
    nodes.expand<Count>(at, start, [&](int i, int word, WordVector value) {
      if (word == 0) mask = WordVector{} - nodes.load_control(at + i * kWordLanes);
      store_vector(words + (i * kLeafWords + word) * kWordLanes,
                   value ^ (mask & load_word(correction + 4 * word)));
    });
  }

 private:
  // Holds nodes from `first` on, until `end` if there is place for them. A stretch does not go across
  // a multiple of kHeldNodes, nor does any run.
  void hold(std::uint64_t first, std::uint64_t end) {
    const std::uint64_t most = (first / kHeldNodes + 1) * kHeldNodes;
    if (end > most) end = most;
    // Start at the deepest node that is above all of them.
    const int level = depth_ - below_;
    int down = 0;
    while ((first >> down) != ((end - 1) >> down)) ++down;
    held_first_ = first;
    held_end_ = end;
    held_at_ = static_cast<int>(first - (first >> down << down));
    const int needed = held_at_ + static_cast<int>(end - first);

    FewNodes few = path_.walk(level - down, first >> down);
    for (; down > 0; --down) {
      const int parents = ((needed - 1) >> down) + 1;
      if (parents > kFewNodes) break;
      expand_few_at(few, level - down, parents);
    }
    store_by_words(few, held_);
    expand_levels(held_, held_at_, needed, level, down);
  }

  // Replaces few nodes, of which the first `parents` count, by their children.
  MORPHOGEN_FN void expand_few_at(FewNodes& few, int level, int parents) const {
    if (parents <= kRowLanes)
      expand_few<1>(few, key_, level);
    else
      expand_few<2>(few, key_, level);
  }

  // Replaces the nodes that are `below` levels above those of a level by these, [first, end).
  template <class Level>
  void expand_levels(Level& nodes, int first, int end, int level, int below) const {
    for (; below > 0; --below)
      expand_level(nodes, first >> below, ((end - 1) >> below) + 1, key_, level - below);
  }

  const std::uint8_t* const key_;
  Path path_;
  const int depth_, below_;
  std::uint64_t held_first_ = 0, held_end_ = 0;
  int held_at_ = 0;  // where the first stands
  Nodes<kHeldNodes> held_;
};

// Writes leaves one after the other, from the words of a vector of them.
MORPHOGEN_FN void store_leaves(const std::uint32_t* words, std::uint8_t* out) {
  std::uint32_t* const leaves = reinterpret_cast<std::uint32_t*>(out);
  for (int row = 0; row < kBlockRows; row += kRowLanes) {
    WordVector rows[4][kRowLanes];
    for (int i = 0; i < kRowLanes; ++i) {
      WordVector in[4], turned[4];
      for (int j = 0; j < 4; ++j) in[j] = load_vector(words + (4 * (row + i) + j) * kWordLanes);
      transpose_fours(in, turned);
      for (int j = 0; j < 4; ++j) rows[j][i] = turned[j];
    }
    for (int j = 0; j < 4; ++j) {
      transpose_rows(rows[j]);
      for (int i = 0; i < kRowLanes; ++i)
        store_vector(leaves + (4 * i + j) * kLeafWords + row * kRowWords, rows[j][i]);
    }
  }
}

// Calls write(constant, at, first, last) for the vectors of nodes [first, last) of a level, so many
// from `at` on at a time: those from at + first to at + last are among them.
template <class Write>
MORPHOGEN_FN void for_leaves(int first, int end, Write&& write) {
  int at = first / kWordLanes * kWordLanes;
  for_vectors((end - at + kWordLanes - 1) / kWordLanes, [&](auto count) {
    const int size = count.value * kWordLanes;
    write(count, at, first > at ? first - at : 0, end - at < size ? end - at : size);
    at += size;
  });
}

// Returns the end of a run of leaves that begins with `first`.
MORPHOGEN_FN std::uint64_t end_of_run(std::uint64_t first, std::uint64_t end) {
  const std::uint64_t subtree_end = (first / kSubtreeLeaves + 1) * kSubtreeLeaves;
  return subtree_end < end ? subtree_end : end;
}

// Writes kLeafBytes of selection bits for each of the leaves [first, first + count) of a valid key.
// The caller expects to ask for those until `end` next.
inline void expand_leaves(KeyTree& tree, std::uint64_t first, std::uint64_t count,
                          std::uint64_t end, NodeLevel& nodes, std::uint8_t* out) {
  if (tree.is_small()) {
    alignas(64) std::uint8_t all[kFewNodes * kLeafBytes];
    tree.expand_small(all);
    std::memcpy(out, all + first * kLeafBytes, count * kLeafBytes);
    return;
  }
  const State<WordVector> start = tree.leaf_start();
  for (const std::uint64_t last = first + count; first < last;) {
    const std::uint64_t stop = end_of_run(first, last);
    const int run = static_cast<int>(stop - first), skipped = tree.expand(first, run, end, nodes);
    for_leaves(skipped, skipped + run, [&](auto vectors, int at, int from, int to) {
      constexpr int kBytes = kWordLanes * kLeafBytes;  // of a vector's leaves
      alignas(64) std::uint32_t words[vectors.value * kBytes / 4];
      alignas(64) std::uint8_t part[vectors.value * kBytes];
      tree.finish<vectors.value>(nodes, at, start, words);
      const bool whole = to - from == vectors.value * kWordLanes;
      for (int i = 0; i < vectors.value; ++i)
        store_leaves(words + i * kBytes / 4, (whole ? out : part) + i * kBytes);
      const std::size_t bytes = static_cast<std::size_t>(to - from) * kLeafBytes;
      if (!whole) std::memcpy(out, part + from * kLeafBytes, bytes);
      out += bytes;
    });
    first = stop;
  }
}

}  // namespace
}  // namespace morphogen
