// The distributed point function of key format v1, for host and device code: the key layout, the
// node and leaf steps, and the walk from the root to one leaf. docs/protocol.md is the
// specification.
//
// Construction: Boyle, Gilboa, Ishai, "Function Secret Sharing: Improvements and Extensions", CCS
// 2016, with early termination at 512-bit leaves.
//
// Nothing here branches on seeds, control bits or the hidden index, or indexes by them. The
// direction of a walk towards a leaf that the caller names is public.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "chacha20.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "morphogen reads keys as little-endian words: this machine's byte order is not supported"
#endif

namespace morphogen {
namespace {

constexpr int kMaxLogPages = 40;
constexpr int kLeafLogBits = 9;
constexpr int kLeafBits = 1 << kLeafLogBits;
constexpr int kLeafBytes = kLeafBits / 8;
constexpr int kLeafWords = kChaChaWords;
constexpr int kSeedWords = 4;
constexpr int kSeedBytes = 16;
constexpr int kEntropyBytes = 3 * kSeedBytes;  // seed0 | seed1 | salt

// Byte offsets of the key's fields.
constexpr int kPartyOffset = 4;
constexpr int kLogPagesOffset = 5;
constexpr int kReservedOffset = 6;
constexpr int kControlLeftOffset = 8;
constexpr int kControlRightOffset = 12;
constexpr int kSaltOffset = 16;
constexpr int kRootSeedOffset = 32;
constexpr int kSeedCorrectionOffset = 48;

// "MGK1" and the nonce "morphogen/v1", as little-endian words.
constexpr std::uint32_t kMagicWord = 0x314b474du;
constexpr std::uint32_t kNonceWord0 = 0x70726f6du;
constexpr std::uint32_t kNonceWord1 = 0x65676f68u;
constexpr std::uint32_t kNonceWord2 = 0x31762f6eu;

constexpr std::uint32_t kCounterInner = 0;
constexpr std::uint32_t kCounterLeaf = 1;

// Returns n = ceil(log2(num_pages)) for num_pages in 1..2^40.
MORPHOGEN_FN int log_pages(std::uint64_t num_pages) {
  int n = 0;
  while ((std::uint64_t{1} << n) < num_pages) ++n;
  return n;
}

MORPHOGEN_FN int tree_depth(int log_num_pages) {
  return log_num_pages > kLeafLogBits ? log_num_pages - kLeafLogBits : 0;
}

MORPHOGEN_FN int key_bytes(int log_num_pages) {
  return kSeedCorrectionOffset + kSeedBytes * tree_depth(log_num_pages) + kLeafBytes;
}

MORPHOGEN_FN int leaf_correction_offset(int depth) {
  return kSeedCorrectionOffset + kSeedBytes * depth;
}

MORPHOGEN_FN std::uint32_t load_word(const std::uint8_t* bytes) {
#if defined(__CUDA_ARCH__)
  return *reinterpret_cast<const std::uint32_t*>(bytes);
#else
  std::uint32_t word;
  std::memcpy(&word, bytes, sizeof word);
  return word;
#endif
}

MORPHOGEN_FN void store_word(std::uint8_t* bytes, std::uint32_t word) {
  std::memcpy(bytes, &word, sizeof word);
}

// One tree node, or one node a lane if Word is a SIMD vector. `control` holds 0 or 1.
template <class Word>
struct Node {
  Word seed[kSeedWords];
  Word control;
};

template <class Word>
struct Children {
  Node<Word> left, right;
};

template <class Word>
struct State {
  Word word[kChaChaWords];
};

// Returns the state of ChaCha20 under the key seed | salt.
template <class Word>
MORPHOGEN_FN State<Word> make_state(const Word (&seed)[kSeedWords], const std::uint8_t* key,
                                    std::uint32_t counter) {
  const Word zero{};
  return {{
      zero + kChaChaConstant0,
      zero + kChaChaConstant1,
      zero + kChaChaConstant2,
      zero + kChaChaConstant3,
      seed[0],
      seed[1],
      seed[2],
      seed[3],
      zero + load_word(key + kSaltOffset),
      zero + load_word(key + kSaltOffset + 4),
      zero + load_word(key + kSaltOffset + 8),
      zero + load_word(key + kSaltOffset + 12),
      zero + counter,
      zero + kNonceWord0,
      zero + kNonceWord1,
      zero + kNonceWord2,
  }};
}

// The PRG: the ChaCha20 block of that state.
template <class Word>
MORPHOGEN_FN void expand_seed(const Word (&seed)[kSeedWords], const std::uint8_t* key,
                              std::uint32_t counter, Word (&block)[kChaChaWords]) {
  const State<Word> state = make_state(seed, key, counter);
  chacha20_block(state.word, block);
}

template <class Word>
MORPHOGEN_FN void correct_node(Node<Word>& child, Word parent_control, const std::uint8_t* key,
                               int level, int control_offset) {
  const Word mask = Word{} - parent_control;
  const std::uint8_t* correction = key + kSeedCorrectionOffset + kSeedBytes * level;
  for (int i = 0; i < kSeedWords; ++i) child.seed[i] ^= mask & load_word(correction + 4 * i);
  child.control ^= parent_control & ((load_word(key + control_offset) >> level) & 1u);
}

// Makes both children of a node at `level` from the block of its seed and from its control bit.
template <class Word>
MORPHOGEN_FN Children<Word> make_children(const Word (&block)[kChaChaWords], Word control,
                                          const std::uint8_t* key, int level) {
  Children<Word> children;
  for (int i = 0; i < kSeedWords; ++i) {
    children.left.seed[i] = block[i];
    children.right.seed[i] = block[kSeedWords + i];
  }
  children.left.control = block[8] & 1u;          // bit 0 of byte 32
  children.right.control = (block[8] >> 8) & 1u;  // bit 0 of byte 33
  correct_node(children.left, control, key, level, kControlLeftOffset);
  correct_node(children.right, control, key, level, kControlRightOffset);
  return children;
}

// Returns both children of a node at `level`, as the key's party sees them.
template <class Word>
MORPHOGEN_FN Children<Word> expand_node(const Node<Word>& node, const std::uint8_t* key,
                                        int level) {
  Word block[kChaChaWords];
  expand_seed(node.seed, key, kCounterInner, block);
  return make_children(block, node.control, key, level);
}

// Corrects the 512 selection bits below a node at full depth.
template <class Word>
MORPHOGEN_FN void correct_leaf(Word (&leaf)[kLeafWords], Word control, const std::uint8_t* key,
                               int depth) {
  const Word mask = Word{} - control;
  const std::uint8_t* correction = key + leaf_correction_offset(depth);
  for (int i = 0; i < kLeafWords; ++i) leaf[i] ^= mask & load_word(correction + 4 * i);
}

// Writes the 512 selection bits below a node at full depth.
template <class Word>
MORPHOGEN_FN void expand_leaf(const Node<Word>& node, const std::uint8_t* key, int depth,
                              Word (&leaf)[kLeafWords]) {
  expand_seed(node.seed, key, kCounterLeaf, leaf);
  correct_leaf(leaf, node.control, key, depth);
}

MORPHOGEN_FN Node<std::uint32_t> root_node(const std::uint8_t* key) {
  Node<std::uint32_t> root;
  for (int i = 0; i < kSeedWords; ++i) root.seed[i] = load_word(key + kRootSeedOffset + 4 * i);
  root.control = key[kPartyOffset];
  return root;
}

// Walks from `node` at `level` down to the node `target` of level `target_level`, numbered from the
// left.
MORPHOGEN_FN Node<std::uint32_t> descend(Node<std::uint32_t> node, const std::uint8_t* key,
                                         int level, int target_level, std::uint64_t target) {
  for (; level < target_level; ++level) {
    const Children<std::uint32_t> children = expand_node(node, key, level);
    node = ((target >> (target_level - 1 - level)) & 1u) ? children.right : children.left;
  }
  return node;
}

// Eval: returns the selection bit of one page. The page is not secret.
MORPHOGEN_FN std::uint32_t eval_at(const std::uint8_t* key, std::uint64_t index) {
  const int depth = tree_depth(key[kLogPagesOffset]);
  const Node<std::uint32_t> node =
      descend(root_node(key), key, 0, depth, index >> kLeafLogBits);
  std::uint32_t leaf[kLeafWords];
  expand_leaf(node, key, depth, leaf);
  const std::uint32_t position = static_cast<std::uint32_t>(index) & (kLeafBits - 1);
  return (leaf[position >> 5] >> (position & 31u)) & 1u;
}

// Returns all ones if a == b, else zero, for values below 2^31, without a comparison to branch on.
MORPHOGEN_FN std::uint32_t equal_mask(std::uint32_t a, std::uint32_t b) {
  return 0u - (((a ^ b) - 1u) >> 31);
}

// Returns whether both seeds of `entropy` are equal. It tells no more of them: every word is read.
inline bool seeds_are_equal(const std::uint8_t* entropy) {
  std::uint32_t difference = 0;
  for (int i = 0; i < kSeedWords; ++i)
    difference |= load_word(entropy + 4 * i) ^ load_word(entropy + kSeedBytes + 4 * i);
  return difference == 0;
}

// The faults of a key, in the order in which a strict parser looks for them.
enum class KeyFault { none, length, magic, party, log_pages, reserved, control_bits };

inline KeyFault find_key_fault(const std::uint8_t* key, std::size_t size) {
  if (size < static_cast<std::size_t>(key_bytes(0))) return KeyFault::length;
  if (load_word(key) != kMagicWord) return KeyFault::magic;
  if (key[kPartyOffset] > 1) return KeyFault::party;
  if (key[kLogPagesOffset] > kMaxLogPages) return KeyFault::log_pages;
  if (size != static_cast<std::size_t>(key_bytes(key[kLogPagesOffset]))) return KeyFault::length;
  if (key[kReservedOffset] != 0 || key[kReservedOffset + 1] != 0) return KeyFault::reserved;
  const std::uint32_t controls =
      load_word(key + kControlLeftOffset) | load_word(key + kControlRightOffset);
  // A tree of full depth has 31 levels, so the shift stays below 32.
  if ((controls >> tree_depth(key[kLogPagesOffset])) != 0) return KeyFault::control_bits;
  return KeyFault::none;
}

}  // namespace
}  // namespace morphogen
