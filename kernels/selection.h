// The selection bits of a batch of leaves, laid out for the page scan: for every 8 pages a row with
// a byte for each key, or a byte for every page.
//
// Trees are expanded key by key, 64 bytes a leaf, and the scan needs the bits of all keys for a
// page side by side. Two small transpositions do that, one of bytes across keys and one of bits
// across pages, in registers of 16 bytes on every instruction set.
#pragma once

#include "dpf_expand.h"

namespace morphogen {
namespace {

constexpr std::size_t kOctet = 8;  // pages of one selection byte
// Rows are padded to whole 8-byte words; the spare bytes are zero.
constexpr std::size_t kKeyAlign = 8;
constexpr std::size_t kLeafRows = kLeafBits / kOctet;  // of one leaf, if a row is 8 pages
constexpr std::size_t kStreams = kOctet;               // of one leaf, in Layout::streams
constexpr std::size_t kStreamPages = kLeafBits / kStreams;

enum class Layout {
  // Row o of a leaf holds its pages from 8 * o on: bit i of byte k tells whether key k selects page
  // 8 * o + i.
  octets,
  // The 8 pages of a row are 64 apart, so that 8 runs of pages are read side by side: bit i of byte
  // k of row j tells whether key k selects page 64 * i + j of the leaf.
  streams,
  // Rows hold the same pages as octets, but byte i of a row belongs to page 8 * o + i, and bit k of
  // it to key k.
  patterns,
  // Bytes as in octets, but a row has those of 8 keys, and all rows of these keys come before those
  // of the next 8.
  groups,
  // Bytes as in octets, but a row has that of one key: the leaves of a key as its tree gives them,
  // then those of the next key.
  keys,
};

// Returns the bytes of one row; `stride` is that of rows with all keys.
MORPHOGEN_FN std::size_t octet_bytes(Layout layout, std::size_t stride) {
  return layout == Layout::keys ? 1 : layout == Layout::groups ? kKeyAlign : stride;
}

// Returns the bytes from one key to the next, or from 8 keys to the next 8, where a layout keeps
// them apart. The line more keeps them out of each other's cache sets.
MORPHOGEN_FN std::size_t plane_size(Layout layout, std::size_t leaves, std::size_t stride) {
  return leaves * kLeafRows * octet_bytes(layout, stride) + kLeafBytes;
}

#if defined(__BYTE_ORDER__)
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "words hold their lowest byte first");
#endif

typedef std::uint8_t Bytes16 __attribute__((vector_size(16)));
typedef std::uint8_t Bytes64 __attribute__((vector_size(64)));
typedef std::uint64_t Words16 __attribute__((vector_size(16)));

// Bytes of a and b in turn, from the lower or the upper half of every 16.
template <int Half, class Bytes, std::size_t... I>
MORPHOGEN_FN Bytes unpack_bytes(Bytes a, Bytes b, std::index_sequence<I...>) {
  return __builtin_shufflevector(
      a, b, (I / 16 * 16 + Half * 8 + I % 16 / 2 + I % 2 * sizeof(Bytes))...);
}

template <int Half, class Bytes>
MORPHOGEN_FN Bytes unpack_bytes(Bytes a, Bytes b) {
  return unpack_bytes<Half>(a, b, std::make_index_sequence<sizeof(Bytes)>());
}

// Moves byte c of every 16 of each of 8 rows into word c, with row r's byte at byte r. Two words
// have the place of the 16 bytes.
template <class Bytes>
MORPHOGEN_FN void transpose_bytes(const Bytes (&rows)[8], Bytes (&words)[8]) {
  for (int half = 0; half < 2; ++half) {
    Bytes pair[4], quad[4];
    for (int i = 0; i < 4; ++i)
      pair[i] = half == 0 ? unpack_bytes<0>(rows[i], rows[i + 4])
                          : unpack_bytes<1>(rows[i], rows[i + 4]);
    for (int i = 0; i < 2; ++i) {
      quad[i] = unpack_bytes<0>(pair[i], pair[i + 2]);
      quad[i + 2] = unpack_bytes<1>(pair[i], pair[i + 2]);
    }
    for (int i = 0; i < 2; ++i) {
      words[4 * half + 2 * i] = unpack_bytes<0>(quad[2 * i], quad[2 * i + 1]);
      words[4 * half + 2 * i + 1] = unpack_bytes<1>(quad[2 * i], quad[2 * i + 1]);
    }
  }
}

// Transposes each word as an 8 x 8 bit matrix with a byte for each row: bit j of byte i becomes bit
// i of byte j (Warren, Hacker's Delight, 7-3).
template <class Words>
MORPHOGEN_FN Words transpose_bits(Words x) {
  Words t = (x ^ (x >> 7)) & 0x00aa00aa00aa00aa;
  x ^= t ^ (t << 7);
  t = (x ^ (x >> 14)) & 0x0000cccc0000cccc;
  x ^= t ^ (t << 14);
  t = (x ^ (x >> 28)) & 0x00000000f0f0f0f0;
  return x ^ t ^ (t << 28);
}

// Transposes the bits of every 8 bytes. `size` is a multiple of a vector's size.
MORPHOGEN_FN void transpose_all_bits(std::uint8_t* bytes, std::size_t size) {
  typedef std::uint64_t Words __attribute__((vector_size(kVectorBytes)));
  for (std::size_t at = 0; at < size; at += sizeof(Words)) {
    Words words;
    std::memcpy(&words, bytes + at, sizeof words);
    words = transpose_bits(words);
    std::memcpy(bytes + at, &words, sizeof words);
  }
}

// Brings the bytes of one key's leaf into the order of Layout::streams.
MORPHOGEN_FN void order_by_streams(std::uint8_t* leaf) {
  Bytes16 rows[8], words[8];
  for (int i = 0; i < 8; ++i) {
    Words16 row = {};
    std::memcpy(&row, leaf + i * kStreamPages / 8, 8);
    std::memcpy(&rows[i], &row, sizeof row);
  }
  transpose_bytes(rows, words);
  std::memcpy(leaf, words, kLeafBytes);
  transpose_all_bits(leaf, kLeafBytes);
}

// Writes rows of 8 keys, `row_bytes` apart, from the leaves of the keys, which lie `step` bytes
// apart.
MORPHOGEN_FN void write_rows(const std::uint8_t* leaves, std::size_t step, std::size_t bytes,
                             std::size_t row_bytes, std::uint8_t* out) {
#if defined(__AVX512BW__)
  if (row_bytes == kKeyAlign) {
    for (std::size_t at = 0; at < bytes; at += kLeafBytes) {
      Bytes64 rows[8], words[8];
      for (std::size_t i = 0; i < 8; ++i)
        std::memcpy(&rows[i], leaves + i * step + at, sizeof rows[i]);
      transpose_bytes(rows, words);
      // Each has two words of every 16 bytes of a leaf: bring these together, 8 words of 4 registers.
      for (std::size_t four = 0; four < 8; four += 4) {
        WordVector quarters[kRowLanes];
        for (std::size_t i = 0; i < kRowLanes; ++i) quarters[i] = (WordVector)words[four + i];
        transpose_rows(quarters);
        for (std::size_t i = 0; i < kRowLanes; ++i)
          std::memcpy(out + (at + i * 16 + four * 2) * kKeyAlign, &quarters[i], kVectorBytes);
      }
    }
    return;
  }
#endif
  for (std::size_t at = 0; at < bytes; at += sizeof(Bytes16)) {
    Bytes16 rows[8], words[8];
    for (std::size_t i = 0; i < 8; ++i) std::memcpy(&rows[i], leaves + i * step + at, sizeof rows[i]);
    transpose_bytes(rows, words);
    for (const Bytes16& two : words) {
      std::uint64_t word[2];
      std::memcpy(word, &two, sizeof word);
      for (std::uint64_t one : word) {
        std::memcpy(out, &one, sizeof one);
        out += row_bytes;
      }
    }
  }
}

// Returns the bytes of the staging memory of expand_selection(): 8 keys' leaves.
MORPHOGEN_FN std::size_t staging_size(std::size_t leaves) {
  return plane_size(Layout::keys, leaves, 1) * kKeyAlign;
}

// Writes the rows of leaves [first_leaf, first_leaf + leaves) for all keys. Rows with all keys lie
// `stride` bytes apart.
inline void expand_selection(const std::uint8_t* keys, std::size_t key_bytes, std::size_t key_count,
                             std::uint64_t first_leaf, std::size_t leaves, Layout layout,
                             std::size_t stride, Path* paths, NodeLevel& nodes, std::uint8_t* staging,
                             std::uint8_t* selection) {
  const std::size_t plane = plane_size(layout, leaves, stride);
  if (layout == Layout::keys) {
    for (std::size_t key = 0; key < key_count; ++key) {
      std::uint8_t* own = selection + key * plane;
      expand_leaves(keys + key * key_bytes, first_leaf, leaves, paths[key], nodes,
                    [own](std::uint64_t leaf, const std::uint32_t* words) {
                      std::memcpy(own + leaf * kLeafBytes, words, kLeafBytes);
                    });
    }
    return;
  }
  const std::size_t step = plane_size(Layout::keys, leaves, stride);
  for (std::size_t group = 0; group < key_count; group += kKeyAlign) {
    for (std::size_t i = 0; i < kKeyAlign; ++i) {
      std::uint8_t* own = staging + i * step;
      if (group + i >= key_count) {
        std::memset(own, 0, leaves * kLeafBytes);
        continue;
      }
      expand_leaves(keys + (group + i) * key_bytes, first_leaf, leaves,
                    paths[group + i], nodes,
                    [own, layout](std::uint64_t leaf, const std::uint32_t* words) {
                      std::uint8_t* out = own + leaf * kLeafBytes;
                      std::memcpy(out, words, kLeafBytes);
                      if (layout == Layout::streams) order_by_streams(out);
                    });
    }
    write_rows(staging, step, leaves * kLeafBytes, octet_bytes(layout, stride),
               selection + (layout == Layout::groups ? group / kKeyAlign * plane : group));
  }
  if (layout == Layout::patterns) transpose_all_bits(selection, leaves * kLeafRows * stride);
}

}  // namespace
}  // namespace morphogen
