// A few nodes of a tree on the host: their blocks side by side, each as the four rows of four words
// that RFC 8439 draws.
//
// A block a lane (dpf_expand.h) needs as many nodes as a vector has words. Fewer leave its lanes
// empty, and near a root there are few. Here a row of a block fills 16 bytes, so that a vector of
// 64 holds rows of four blocks. All of a round waits for the step before it, so that two vectors
// take little longer than one.
#pragma once

#include "dpf.h"
#include "simd.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace morphogen {
namespace {

constexpr int kRowWords = 4;
constexpr int kBlockRows = kChaChaWords / kRowWords;
constexpr int kRowLanes = kWordLanes / kRowWords;  // rows of a vector
// Nodes that two vectors hold.
constexpr int kFewNodes = 2 * kRowLanes;

// Element i of a row becomes its element i + Words, counted around.
template <int Words>
struct Turned {
  static constexpr int at(int i) { return i / kRowWords * kRowWords + (i + Words) % kRowWords; }
};

// The first element of each row, in all of the row.
struct FirstOfRow {
  static constexpr int at(int i) { return i / kRowWords * kRowWords; }
};

// Rows of a and b in turn, a's first: those of their lower or upper half.
template <int Half>
struct InterleavedRows {
  static constexpr int at(int i) {
    const int row = Half * kRowLanes + i / kRowWords;
    return row / 2 * kRowWords + row % 2 * kWordLanes + i % kRowWords;
  }
};

// Where transpose_fours() leaves node i of vectors that hold kRowLanes nodes each.
struct TreeOrder {
  static constexpr int at(int i) { return i % kRowLanes * kRowWords + i / kRowLanes; }
};

template <class Index, class Vector>
MORPHOGEN_FN Vector shuffle_words(Vector a) {
  return shuffle_words<Index>(a, a);
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

typedef std::uint32_t Row __attribute__((vector_size(4 * kRowWords)));

// Transposes the matrix of vectors' rows of four words: a row in each lane, as many as there are
// vectors.
MORPHOGEN_FN void transpose_rows(WordVector (&vectors)[kRowLanes]) {
  // Each pass brings the lanes of a vector twice as far apart.
  for (int pass = 1; pass < kRowLanes; pass *= 2) {
    WordVector out[kRowLanes];
    for (int i = 0; i < kRowLanes / 2; ++i) {
      out[2 * i] = shuffle_words<InterleavedRows<0>>(vectors[i], vectors[i + kRowLanes / 2]);
      out[2 * i + 1] = shuffle_words<InterleavedRows<1>>(vectors[i], vectors[i + kRowLanes / 2]);
    }
    for (int i = 0; i < kRowLanes; ++i) vectors[i] = out[i];
  }
}

template <class Vector, std::size_t... I>
MORPHOGEN_FN Vector splat_row(Row row, std::index_sequence<I...>) {
  return __builtin_shufflevector(row, row, (I % kRowWords)...);
}

// Returns a vector with the same row of four words everywhere.
template <class Vector = WordVector>
MORPHOGEN_FN Vector splat_row(const void* bytes) {
  Row row;
  std::memcpy(&row, bytes, sizeof row);
#if defined(__AVX512F__)
  // GCC 12 would pass the row through memory, and wait there until it is written.
  if constexpr (sizeof(Vector) == 64)
    return (Vector)_mm512_maskz_broadcast_i32x4(0xffff, (__m128i)row);
#endif
  return splat_row<Vector>(row, std::make_index_sequence<sizeof(Vector) / 4>());
}

// The first row of a vector.
template <class Vector>
MORPHOGEN_FN Row first_row(Vector rows) {
  return __builtin_shufflevector(rows, rows, 0, 1, 2, 3);
}

template <class Vector, int Count>
struct RowBlocks {
  Vector row[kBlockRows][Count];
};

// Expands a vector of seeds, or several, as expand_seed() does, each with its salt.
template <class Vector, int Count>
MORPHOGEN_FN RowBlocks<Vector, Count> expand_rows(const Vector* seeds, const Vector* salts,
                                                    std::uint32_t counter) {
  const std::uint32_t first[kRowWords] = {kChaChaConstant0, kChaChaConstant1, kChaChaConstant2,
                                          kChaChaConstant3};
  const std::uint32_t last[kRowWords] = {counter, kNonceWord0, kNonceWord1, kNonceWord2};
  const Vector in0 = splat_row<Vector>(first), in3 = splat_row<Vector>(last);
  RowBlocks<Vector, Count> blocks;
  auto& [a, b, c, d] = blocks.row;
  for (int v = 0; v < Count; ++v) {
    a[v] = in0;
    b[v] = seeds[v];
    c[v] = salts[v];
    d[v] = in3;
  }
  for (int round = 0; round < kChaChaDoubleRounds; ++round) {
    for (int v = 0; v < Count; ++v) chacha20_quarter_round(a[v], b[v], c[v], d[v]);
    // To bring diagonals into columns, turn the other rows, not b, which is done last: then no step
    // waits for a turn.
    for (int v = 0; v < Count; ++v) {
      a[v] = shuffle_words<Turned<3>>(a[v]);
      c[v] = shuffle_words<Turned<1>>(c[v]);
      d[v] = shuffle_words<Turned<2>>(d[v]);
    }
    for (int v = 0; v < Count; ++v) chacha20_quarter_round(a[v], b[v], c[v], d[v]);
    for (int v = 0; v < Count; ++v) {
      a[v] = shuffle_words<Turned<1>>(a[v]);
      c[v] = shuffle_words<Turned<3>>(c[v]);
      d[v] = shuffle_words<Turned<2>>(d[v]);
    }
  }
  for (int v = 0; v < Count; ++v) {
    a[v] += in0;
    b[v] += seeds[v];
    c[v] += salts[v];
    d[v] += in3;
  }
  return blocks;
}

// The control bits of an inner node's children, 0 or 1 in all words of a row, without corrections.
template <class Vector>
MORPHOGEN_FN Vector left_controls(Vector third_rows) {
  return shuffle_words<FirstOfRow>(third_rows) & 1u;
}
template <class Vector>
MORPHOGEN_FN Vector right_controls(Vector third_rows) {
  return (shuffle_words<FirstOfRow>(third_rows) >> 8) & 1u;
}

// Up to kWordLanes neighbours of one level, a node a row. All words of a row of `control` are equal.
struct FewNodes {
  WordVector seed[kRowWords] = {}, control[kRowWords] = {};
};

// Expands the nodes of the first vectors under the salt of a key.
template <int Count>
MORPHOGEN_FN RowBlocks<WordVector, Count> expand_rows(const FewNodes& nodes,
                                                        const std::uint8_t* key,
                                                        std::uint32_t counter) {
  WordVector salts[Count];
  for (WordVector& salt : salts) salt = splat_row(key + kSaltOffset);
  return expand_rows<WordVector, Count>(nodes.seed, salts, counter);
}

// Replaces the nodes of the first vectors by their children.
template <int Count>
MORPHOGEN_FN void expand_few(FewNodes& nodes, const std::uint8_t* key, int level) {
  const RowBlocks<WordVector, Count> blocks = expand_rows<Count>(nodes, key, kCounterInner);
  const WordVector seed_correction = splat_row(key + kSeedCorrectionOffset + kSeedBytes * level);
  const std::uint32_t left_correction = (load_word(key + kControlLeftOffset) >> level) & 1u;
  const std::uint32_t right_correction = (load_word(key + kControlRightOffset) >> level) & 1u;
  for (int v = Count - 1; v >= 0; --v) {  // children never overwrite nodes that are still read
    const WordVector control = nodes.control[v];
    const WordVector correction = (WordVector{} - control) & seed_correction;
    const WordVector left = blocks.row[0][v] ^ correction, right = blocks.row[1][v] ^ correction;
    const WordVector left_control = left_controls(blocks.row[2][v]) ^ (control & left_correction);
    const WordVector right_control =
        right_controls(blocks.row[2][v]) ^ (control & right_correction);
    nodes.seed[2 * v] = shuffle_words<InterleavedRows<0>>(left, right);
    nodes.seed[2 * v + 1] = shuffle_words<InterleavedRows<1>>(left, right);
    nodes.control[2 * v] = shuffle_words<InterleavedRows<0>>(left_control, right_control);
    nodes.control[2 * v + 1] = shuffle_words<InterleavedRows<1>>(left_control, right_control);
  }
}

// Returns the selection bits below the nodes of the first vectors at full depth.
template <int Count>
MORPHOGEN_FN RowBlocks<WordVector, Count> expand_few_leaves(const FewNodes& nodes,
                                                              const std::uint8_t* key, int depth) {
  RowBlocks<WordVector, Count> leaves = expand_rows<Count>(nodes, key, kCounterLeaf);
  for (int row = 0; row < kBlockRows; ++row) {
    const WordVector correction =
        splat_row(key + leaf_correction_offset(depth) + 4 * kRowWords * row);
    for (int v = 0; v < Count; ++v)
      leaves.row[row][v] ^= (WordVector{} - nodes.control[v]) & correction;
  }
  return leaves;
}

}  // namespace
}  // namespace morphogen
