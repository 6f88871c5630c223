// Gen on the host: both parties' blocks of a level side by side, a row in 16 bytes (dpf_rows.h).
//
// A step of ChaCha20 waits for the step before it, and the blocks of one pair keep a processor busy
// for a part of that time only. So a few pairs are made at once.
//
// Nothing here branches on the indices or the entropy, or indexes by them.
#pragma once

#include "dpf_rows.h"
#include "host_kernels.h"

namespace morphogen {
namespace {

// Vectors of a pair: a row of party 0, then one of party 1. AVX-512 would have room for two pairs in
// a vector, but some processors take half a wide one at a time.
#if defined(__AVX2__)
constexpr int kPairVectors = 1;
#else
constexpr int kPairVectors = 2;
#endif
constexpr int kPairRows = 2;
typedef std::uint32_t PairVector
    __attribute__((vector_size(kPairRows * 4 * kRowWords / kPairVectors)));

// Exchanges each row with its neighbour.
struct ExchangedRows {
  static constexpr int at(int i) { return i ^ kRowWords; }
};

// Returns in every row what both parties' rows add up to.
MORPHOGEN_FN PairVector sum_of_parties(const PairVector* rows) {
  if constexpr (kPairVectors == 2)
    return rows[0] ^ rows[1];
  else
    return rows[0] ^ shuffle_words<ExchangedRows>(rows[0]);
}

MORPHOGEN_FN void load_parties(PairVector* rows, const void* bytes) {
  std::memcpy(rows, bytes, kPairVectors * sizeof *rows);
}

MORPHOGEN_FN PairVector choose(PairVector mask, PairVector chosen, PairVector other) {
  return other ^ (mask & (chosen ^ other));
}

MORPHOGEN_FN void store_row(std::uint8_t* to, Row row) { std::memcpy(to, &row, sizeof row); }

// The unit vector of a page in its leaf, four words of it.
MORPHOGEN_FN Row unit_row(std::uint64_t index, int row) {
  const std::uint32_t position = static_cast<std::uint32_t>(index) & (kLeafBits - 1);
  const std::uint32_t bit = 1u << (position & 31u);
  Row unit;
  for (int i = 0; i < kRowWords; ++i)
    unit[i] = bit & equal_mask(position >> 5, static_cast<std::uint32_t>(kRowWords * row + i));
  return unit;
}

template <int Pairs>
MORPHOGEN_FN void generate_group(const KeyPair (&pairs)[Pairs], int log_num_pages) {
  constexpr int kVectors = Pairs * kPairVectors;
  const int depth = tree_depth(log_num_pages);
  static const std::uint32_t kParties[kPairRows * kRowWords] = {0, 0, 0, 0, 1, 1, 1, 1};

  PairVector seeds[kVectors], controls[kVectors], salts[kVectors];
  PairVector left_corrections[Pairs] = {}, right_corrections[Pairs] = {};
  for (int p = 0; p < Pairs; ++p) {
    load_parties(seeds + p * kPairVectors, pairs[p].entropy);
    load_parties(controls + p * kPairVectors, kParties);
    for (int v = 0; v < kPairVectors; ++v)
      salts[p * kPairVectors + v] = splat_row<PairVector>(pairs[p].entropy + 2 * kSeedBytes);
  }

  for (int level = 0; level < depth; ++level) {
    const RowBlocks<PairVector, kVectors> blocks =
        expand_rows<PairVector, kVectors>(seeds, salts, kCounterInner);
    const auto& [left_seeds, right_seeds, third_rows, fourth_rows] = blocks.row;
    static_cast<void>(fourth_rows);
    for (int p = 0; p < Pairs; ++p) {
      const int first = p * kPairVectors;
      const std::uint32_t direction = static_cast<std::uint32_t>(
          pairs[p].index >> kLeafLogBits >> (depth - 1 - level)) & 1u;
      const PairVector go_right = PairVector{} - direction;
      PairVector left[kPairVectors], right[kPairVectors];
      for (int v = 0; v < kPairVectors; ++v) {
        left[v] = left_controls(third_rows[first + v]);
        right[v] = right_controls(third_rows[first + v]);
      }
      const PairVector left_correction = sum_of_parties(left) ^ direction ^ 1u;
      const PairVector right_correction = sum_of_parties(right) ^ direction;
      left_corrections[p] |= left_correction << level;
      right_corrections[p] |= right_correction << level;
      const PairVector kept = choose(go_right, right_correction, left_correction);
      // The losing side is the left one when the path goes right.
      const PairVector correction = choose(go_right, sum_of_parties(left_seeds + first),
                                           sum_of_parties(right_seeds + first));
      store_row(pairs[p].keys[0] + kSeedCorrectionOffset + kSeedBytes * level,
                first_row(correction));
      for (int v = 0; v < kPairVectors; ++v) {
        PairVector& control = controls[first + v];
        seeds[first + v] = choose(go_right, right_seeds[first + v], left_seeds[first + v]) ^
                           (correction & (PairVector{} - control));
        control = choose(go_right, right[v], left[v]) ^ (kept & control);
      }
    }
  }

  const RowBlocks<PairVector, kVectors> leaves =
      expand_rows<PairVector, kVectors>(seeds, salts, kCounterLeaf);
  for (int p = 0; p < Pairs; ++p) {
    const KeyPair& pair = pairs[p];
    std::uint8_t* const key = pair.keys[0];
    std::memset(key, 0, kSaltOffset);
    store_word(key, kMagicWord);
    key[kLogPagesOffset] = static_cast<std::uint8_t>(log_num_pages);
    store_word(key + kControlLeftOffset, first_row(left_corrections[p])[0]);
    store_word(key + kControlRightOffset, first_row(right_corrections[p])[0]);
    std::memcpy(key + kSaltOffset, pair.entropy + 2 * kSeedBytes, kSeedBytes);
    std::memcpy(key + kRootSeedOffset, pair.entropy, kSeedBytes);
    for (int row = 0; row < kBlockRows; ++row) {
      const PairVector sum = sum_of_parties(leaves.row[row] + p * kPairVectors);
      store_row(key + leaf_correction_offset(depth) + 4 * kRowWords * row,
                first_row(sum) ^ unit_row(pair.index, row));
    }
    // To write both keys above would make GCC 12 run all levels twice, once for each.
    std::memcpy(pair.keys[1], key, static_cast<std::size_t>(key_bytes(log_num_pages)));
    pair.keys[1][kPartyOffset] = 1;
    std::memcpy(pair.keys[1] + kRootSeedOffset, pair.entropy + kSeedBytes, kSeedBytes);
  }
}

// Gen: writes the keys of 1 to kGenPairs pairs, key_bytes(log_num_pages) bytes each. The caller has
// checked that each index < 2^log_num_pages and not seeds_are_equal(entropy).
inline void generate_keys(const KeyPair* pairs, int count, int log_num_pages) {
  if (count == 1) {
    const KeyPair one[] = {pairs[0]};
    return generate_group(one, log_num_pages);
  }
  KeyPair group[kGenPairs];
  // A pair that is made twice gets the same bytes twice.
  for (int i = 0; i < kGenPairs; ++i) group[i] = pairs[i < count ? i : count - 1];
  generate_group(group, log_num_pages);
}

}  // namespace
}  // namespace morphogen
