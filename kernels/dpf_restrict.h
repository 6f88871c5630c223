// Cuts a key down to the pages below a node of its tree. Host code.
#pragma once

#include "dpf.h"

namespace morphogen {
namespace {

// Writes the key of a table of up to 2^log_count pages, key_bytes(log_count) bytes, whose page i is
// page first + i of the table of a valid key. `first` is a multiple of a leaf's pages and of
// 2^log_count. Which node this is is no secret; nothing branches on the node itself.
inline void restrict_key(const std::uint8_t* key, std::uint64_t first, int log_count,
                         std::uint8_t* out) {
  const int depth = tree_depth(key[kLogPagesOffset]), below = tree_depth(log_count);
  const int walked = depth - below;
  const Node<std::uint32_t> node =
      descend(root_node(key), key, 0, walked, first >> kLeafLogBits >> below);
  store_word(out, kMagicWord);
  out[kPartyOffset] = static_cast<std::uint8_t>(node.control);
  out[kLogPagesOffset] = static_cast<std::uint8_t>(log_count);
  out[kReservedOffset] = out[kReservedOffset + 1] = 0;
  for (const int controls : {kControlLeftOffset, kControlRightOffset})
    store_word(out + controls, load_word(key + controls) >> walked);
  std::memcpy(out + kSaltOffset, key + kSaltOffset, kSeedBytes);
  for (int i = 0; i < kSeedWords; ++i) store_word(out + kRootSeedOffset + 4 * i, node.seed[i]);
  // The seed corrections of the levels below, and the leaf correction after them.
  std::memcpy(out + kSeedCorrectionOffset, key + kSeedCorrectionOffset + kSeedBytes * walked,
              static_cast<std::size_t>(kSeedBytes * below + kLeafBytes));
}

}  // namespace
}  // namespace morphogen
