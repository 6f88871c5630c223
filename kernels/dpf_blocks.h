// Blocks of vectors of nodes on the host, a node a lane, of two vectors side by side.
//
// A step of ChaCha20 waits for the one before, for two clocks on Zen 5, in which it can start twice
// as many as one state has (docs/experiments.md). Two states fill 32 registers.
#pragma once

#include <atomic>
#include <type_traits>

#include "dpf.h"
#include "simd.h"

namespace morphogen {
namespace {

// The test of constant time sets two for valgrind, which knows no AVX-512.
#if defined(MORPHOGEN_NODE_VECTORS)
constexpr int kNodeVectors = MORPHOGEN_NODE_VECTORS;
#elif defined(__AVX512F__) || defined(__aarch64__)
constexpr int kNodeVectors = 2;
#else
constexpr int kNodeVectors = 1;
#endif

// Calls expand(constant) for so many vectors in all, each time for that constant of them.
template <class Expand>
MORPHOGEN_FN void for_vectors(int vectors, Expand&& expand) {
  for (; vectors >= kNodeVectors; vectors -= kNodeVectors)
    expand(std::integral_constant<int, kNodeVectors>());
  if (kNodeVectors > 1 && vectors > 0) expand(std::integral_constant<int, 1>());
}

// A quarter of a quarter round in all columns, or in the diagonals, of all states: x += y, and z
// becomes z ^ x, turned, for the words of these rows.
template <int Turn, int Count>
MORPHOGEN_FN void step_rounds(WordVector (&states)[Count][kChaChaWords], int x, int y, int z,
                              int diagonal) {
#pragma GCC unroll 4
  for (int column = 0; column < 4; ++column) {
    const auto word = [=](int row) { return 4 * row + (column + row * diagonal) % 4; };
#pragma GCC unroll 2
    for (int i = 0; i < Count; ++i) {
      states[i][word(x)] += states[i][word(y)];
      states[i][word(z)] = rotate_left<Turn>(states[i][word(z)] ^ states[i][word(x)]);
    }
  }
}

// Calls put(i, word, value) for each word of the blocks of `Count` vectors of seeds, as expand_seed()
// makes them. Word w of the seeds is at seeds + w * step; `start` has the other words of a state.
template <int Count, class Put>
MORPHOGEN_FN void expand_seeds(const std::uint32_t* seeds, std::size_t step,
                               const State<WordVector>& start, Put&& put) {
  const auto first = [&](int state, int word) {
    return word / 4 == 1 ? load_vector(seeds + (word - 4) * step + state * kWordLanes)
                         : start.word[word];
  };
  WordVector states[Count][kChaChaWords];
#pragma GCC unroll 2
  for (int i = 0; i < Count; ++i) {
#pragma GCC unroll 16
    for (int word = 0; word < kChaChaWords; ++word) states[i][word] = first(i, word);
  }
  for (int round = 0; round < kChaChaDoubleRounds; ++round) {
#pragma GCC unroll 2
    for (int diagonal = 0; diagonal < 2; ++diagonal) {
      step_rounds<16>(states, 0, 1, 3, diagonal);
      step_rounds<12>(states, 2, 3, 1, diagonal);
      step_rounds<8>(states, 0, 1, 3, diagonal);
      step_rounds<7>(states, 2, 3, 1, diagonal);
    }
  }
  // Load the first words again: they would take registers from the rounds.
  std::atomic_signal_fence(std::memory_order_seq_cst);
#pragma GCC unroll 2
  for (int i = 0; i < Count; ++i) {
#pragma GCC unroll 16
    for (int word = 0; word < kChaChaWords; ++word) put(i, word, states[i][word] + first(i, word));
  }
}

}  // namespace
}  // namespace morphogen
