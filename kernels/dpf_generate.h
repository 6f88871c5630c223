// Gen on the host: both parties' blocks of a level side by side (dpf_rows.h).
//
// Nothing here branches on the index or the entropy, or indexes by them.
#pragma once

#include "dpf_rows.h"

namespace morphogen {
namespace {

// Vectors that hold a row of each party. Party 1's row follows party 0's. If a vector holds more
// rows, it repeats both.
constexpr int kPairVectors = kRowLanes >= 2 ? 1 : 2;

// Exchanges each row with its neighbour.
struct ExchangedRows {
  static constexpr int at(int i) { return i ^ kRowWords; }
};

// Rows of a where their number is even, else rows of b.
struct AlternatingRows {
  static constexpr int at(int i) { return i + i / kRowWords % 2 * kWordLanes; }
};

// Returns in every row what both parties' rows add up to.
MORPHOGEN_FN WordVector sum_of_parties(const WordVector (&rows)[kPairVectors]) {
  if constexpr (kPairVectors == 2)
    return rows[0] ^ rows[1];
  else
    return rows[0] ^ shuffle_words<ExchangedRows>(rows[0]);
}

MORPHOGEN_FN void set_rows(WordVector (&rows)[kPairVectors], WordVector party0,
                           WordVector party1) {
  if constexpr (kPairVectors == 2) {
    rows[0] = party0;
    rows[1] = party1;
  } else {
    rows[0] = shuffle_words<AlternatingRows>(party0, party1);
  }
}

MORPHOGEN_FN WordVector choose(WordVector mask, WordVector chosen, WordVector other) {
  return other ^ (mask & (chosen ^ other));
}

MORPHOGEN_FN void store_row(std::uint8_t* to, WordVector rows) {
  const Row row = first_row(rows);
  std::memcpy(to, &row, sizeof row);
}

// Gen: writes both parties' keys for page `index`, key_bytes(log_num_pages) bytes each. `entropy`
// holds seed0 | seed1 | salt. The caller has checked that index < 2^log_num_pages and not
// seeds_are_equal(entropy).
inline void generate_keys(std::uint64_t index, int log_num_pages, const std::uint8_t* entropy,
                          std::uint8_t* key0, std::uint8_t* key1) {
  const int depth = tree_depth(log_num_pages);
  const std::uint64_t leaf_index = index >> kLeafLogBits;

  std::memset(key0, 0, kSaltOffset);
  store_word(key0, kMagicWord);
  key0[kLogPagesOffset] = static_cast<std::uint8_t>(log_num_pages);
  std::memcpy(key0 + kSaltOffset, entropy + 2 * kSeedBytes, kSeedBytes);
  std::memcpy(key0 + kRootSeedOffset, entropy, kSeedBytes);

  WordVector seeds[kPairVectors], controls[kPairVectors];
  set_rows(seeds, splat_row(entropy), splat_row(entropy + kSeedBytes));
  set_rows(controls, WordVector{}, WordVector{} + 1u);
  WordVector left_corrections{}, right_corrections{};
  for (int level = 0; level < depth; ++level) {
    const std::uint32_t direction =
        static_cast<std::uint32_t>(leaf_index >> (depth - 1 - level)) & 1u;
    const WordVector go_right = WordVector{} - direction;
    const RowBlocks<kPairVectors> blocks = expand_rows<kPairVectors>(seeds, key0, kCounterInner);
    const auto& [left_seeds, right_seeds, third_rows, fourth_rows] = blocks.row;
    static_cast<void>(fourth_rows);
    WordVector left[kPairVectors], right[kPairVectors];
    for (int v = 0; v < kPairVectors; ++v) {
      left[v] = left_controls(third_rows[v]);
      right[v] = right_controls(third_rows[v]);
    }

    const WordVector left_correction = sum_of_parties(left) ^ direction ^ 1u;
    const WordVector right_correction = sum_of_parties(right) ^ direction;
    left_corrections |= left_correction << level;
    right_corrections |= right_correction << level;
    const WordVector kept = choose(go_right, right_correction, left_correction);
    // The losing side is the left one when the path goes right.
    const WordVector correction =
        choose(go_right, sum_of_parties(left_seeds), sum_of_parties(right_seeds));
    store_row(key0 + kSeedCorrectionOffset + kSeedBytes * level, correction);
    for (int v = 0; v < kPairVectors; ++v) {
      const WordVector mask = WordVector{} - controls[v];
      seeds[v] = choose(go_right, right_seeds[v], left_seeds[v]) ^ (correction & mask);
      controls[v] = choose(go_right, right[v], left[v]) ^ (kept & controls[v]);
    }
  }
  store_word(key0 + kControlLeftOffset, first_row(left_corrections)[0]);
  store_word(key0 + kControlRightOffset, first_row(right_corrections)[0]);

  const RowBlocks<kPairVectors> leaves = expand_rows<kPairVectors>(seeds, key0, kCounterLeaf);
  const std::uint32_t position = static_cast<std::uint32_t>(index) & (kLeafBits - 1);
  std::uint8_t* correction = key0 + leaf_correction_offset(depth);
  for (int row = 0; row < kBlockRows; ++row)
    store_row(correction + 4 * kRowWords * row, sum_of_parties(leaves.row[row]));
  for (std::uint32_t i = 0; i < kLeafWords; ++i) {
    const std::uint32_t unit = equal_mask(position >> 5, i) & (1u << (position & 31u));
    store_word(correction + 4 * i, load_word(correction + 4 * i) ^ unit);
  }

  std::memcpy(key1, key0, static_cast<std::size_t>(key_bytes(log_num_pages)));
  key1[kPartyOffset] = 1;
  std::memcpy(key1 + kRootSeedOffset, entropy + kSeedBytes, kSeedBytes);
}

}  // namespace
}  // namespace morphogen
