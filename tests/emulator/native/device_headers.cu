// Kernels that use all of chacha20.h and dpf.h that a device needs, to prove that nvcc takes them.
#include "chacha20.h"
#include "dpf.h"

namespace morphogen {

__global__ void block(const std::uint32_t* in, std::uint32_t* out) {
  std::uint32_t state[kChaChaWords], words[kChaChaWords];
  for (int i = 0; i < kChaChaWords; ++i) state[i] = in[i];
  chacha20_block(state, words);
  for (int i = 0; i < kChaChaWords; ++i) out[i] = words[i];
}

__global__ void eval(const std::uint8_t* key, std::uint64_t index, std::uint32_t* bit) {
  *bit = eval_at(key, index);
}

}  // namespace morphogen
