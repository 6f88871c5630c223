// BLAKE2b (RFC 7693), with a key, a salt and a personalisation. Host code.
//
// A `Blake2b` has taken in all that is the same for many messages, the key too, which costs a block
// of its own. A message of up to 128 bytes then costs one compression.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace morphogen {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "words are read as they lie in memory");

class Blake2b {
 public:
  static constexpr std::size_t kBlockBytes = 128;
  static constexpr std::size_t kMaxKeyBytes = 64;
  static constexpr std::size_t kSaltBytes = 16;

  Blake2b() = default;

  // The salt and the personalisation have kSaltBytes bytes each.
  Blake2b(std::size_t digest_bytes, const std::uint8_t* key, std::size_t key_bytes,
          const std::uint8_t* salt, const std::uint8_t* person)
      : digest_bytes_(digest_bytes), keyed_(key_bytes != 0) {
    std::uint64_t parameters[8] = {digest_bytes | key_bytes << 8 | 1 << 16 | 1 << 24};
    std::memcpy(parameters + 4, salt, kSaltBytes);
    std::memcpy(parameters + 6, person, kSaltBytes);
    for (int i = 0; i < 8; ++i) start_[i] = kInitial[i] ^ parameters[i];
    std::memcpy(after_key_, start_, sizeof start_);
    if (keyed_) {
      std::memcpy(key_block_, key, key_bytes);
      compress(after_key_, key_block_, kBlockBytes, false);
    }
  }

  // Writes the digest of a message to `digest`.
  void hash(const std::uint8_t* message, std::size_t bytes, std::uint8_t* digest) const {
    std::uint64_t state[8];
    if (keyed_ && bytes == 0) {  // then the key's block is the last
      std::memcpy(state, start_, sizeof state);
      compress(state, key_block_, kBlockBytes, true);
    } else {
      std::memcpy(state, after_key_, sizeof state);
      std::uint64_t taken = keyed_ ? kBlockBytes : 0;
      for (; bytes > kBlockBytes; bytes -= kBlockBytes, message += kBlockBytes) {
        taken += kBlockBytes;
        compress(state, message, taken, false);
      }
      std::uint8_t last[kBlockBytes] = {};
      if (bytes != 0) std::memcpy(last, message, bytes);
      compress(state, last, taken + bytes, true);
    }
    std::memcpy(digest, state, digest_bytes_);
  }

 private:
  static constexpr std::uint64_t kInitial[8] = {
      0x6a09e667f3bcc908u, 0xbb67ae8584caa73bu, 0x3c6ef372fe94f82bu, 0xa54ff53a5f1d36f1u,
      0x510e527fade682d1u, 0x9b05688c2b3e6c1fu, 0x1f83d9abfb41bd6bu, 0x5be0cd19137e2179u};
  static constexpr std::uint8_t kOrder[10][16] = {
      {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
      {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
      {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4},
      {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
      {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13},
      {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
      {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11},
      {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
      {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5},
      {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0}};

  static std::uint64_t rotate_right(std::uint64_t x, int bits) { return x >> bits | x << (64 - bits); }

  static void mix(std::uint64_t& a, std::uint64_t& b, std::uint64_t& c, std::uint64_t& d,
                  std::uint64_t x, std::uint64_t y) {
    a += b + x;
    d = rotate_right(d ^ a, 32);
    c += d;
    b = rotate_right(b ^ c, 24);
    a += b + y;
    d = rotate_right(d ^ a, 16);
    c += d;
    b = rotate_right(b ^ c, 63);
  }

  // A message has fewer than 2**64 bytes, so the counter's high word is zero.
  static void compress(std::uint64_t* state, const std::uint8_t* block, std::uint64_t taken,
                       bool last) {
    std::uint64_t m[16], v[16];
    std::memcpy(m, block, sizeof m);
    for (int i = 0; i < 8; ++i) v[i] = state[i], v[i + 8] = kInitial[i];
    v[12] ^= taken;
    if (last) v[14] = ~v[14];
#pragma GCC unroll 12
    for (int round = 0; round < 12; ++round) {
      const std::uint8_t* order = kOrder[round % 10];
      mix(v[0], v[4], v[8], v[12], m[order[0]], m[order[1]]);
      mix(v[1], v[5], v[9], v[13], m[order[2]], m[order[3]]);
      mix(v[2], v[6], v[10], v[14], m[order[4]], m[order[5]]);
      mix(v[3], v[7], v[11], v[15], m[order[6]], m[order[7]]);
      mix(v[0], v[5], v[10], v[15], m[order[8]], m[order[9]]);
      mix(v[1], v[6], v[11], v[12], m[order[10]], m[order[11]]);
      mix(v[2], v[7], v[8], v[13], m[order[12]], m[order[13]]);
      mix(v[3], v[4], v[9], v[14], m[order[14]], m[order[15]]);
    }
    for (int i = 0; i < 8; ++i) state[i] ^= v[i] ^ v[i + 8];
  }

  std::size_t digest_bytes_ = 0;
  bool keyed_ = false;
  std::uint64_t start_[8] = {};      // before the key's block
  std::uint64_t after_key_[8] = {};  // after it
  std::uint8_t key_block_[kBlockBytes] = {};
};

}  // namespace morphogen
