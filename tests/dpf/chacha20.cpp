// Computes ChaCha20 blocks with kernels/chacha20.h for tests/dpf/test_chacha20.py.
//
// Standard input holds states of 64 bytes: key (32), counter (4), nonce (12), 16 unused. Standard
// output gets the blocks of all states twice: first computed one by one, then with as many side by
// side as a vector has lanes. The number of states is a multiple of 16, the most lanes of any
// vector.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

#include "chacha20.h"
#include "simd.h"

using namespace morphogen;

namespace {

constexpr std::size_t kStateBytes = 64;

void make_state(const std::uint8_t* input, std::uint32_t (&state)[kChaChaWords]) {
  state[0] = kChaChaConstant0;
  state[1] = kChaChaConstant1;
  state[2] = kChaChaConstant2;
  state[3] = kChaChaConstant3;
  std::memcpy(state + 4, input, 48);
}

}  // namespace

int main() {
  std::vector<std::uint8_t> input;
  std::uint8_t state_bytes[kStateBytes];
  while (std::fread(state_bytes, 1, kStateBytes, stdin) == kStateBytes)
    input.insert(input.end(), state_bytes, state_bytes + kStateBytes);
  const std::size_t count = input.size() / kStateBytes;
  if (count == 0 || count % 16 != 0) {
    std::fprintf(stderr, "%zu states: not a multiple of 16\n", count);
    return 1;
  }

  for (std::size_t i = 0; i < count; ++i) {
    std::uint32_t state[kChaChaWords], block[kChaChaWords];
    make_state(input.data() + i * kStateBytes, state);
    chacha20_block(state, block);
    std::fwrite(block, sizeof block, 1, stdout);
  }

  for (std::size_t first = 0; first < count; first += kWordLanes) {
    WordVector state[kChaChaWords], block[kChaChaWords];
    for (int lane = 0; lane < kWordLanes; ++lane) {
      std::uint32_t words[kChaChaWords];
      make_state(input.data() + (first + lane) * kStateBytes, words);
      for (int i = 0; i < kChaChaWords; ++i) state[i][lane] = words[i];
    }
    chacha20_block(state, block);
    for (int lane = 0; lane < kWordLanes; ++lane) {
      std::uint32_t words[kChaChaWords];
      for (int i = 0; i < kChaChaWords; ++i) words[i] = block[i][lane];
      std::fwrite(words, sizeof words, 1, stdout);
    }
  }
  return 0;
}
