// The selection bits of a batch of leaves, laid out for the page scan: for every 8 pages a row with
// a byte for each key, or a byte for every page.
//
// Trees are expanded key by key, 64 bytes a leaf, and the scan needs the bits of all keys for a
// page side by side. Two small transpositions do that, one of bytes across keys and one of bits
// across pages, in registers of 16 bytes on every instruction set.
#pragma once

#include "dpf_leaves.h"

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

// Leaves of 8 keys that are expanded at a time: they stay in the first-level cache until their rows
// are written.
constexpr std::size_t kStagedLeaves = kNodeVectors * kWordLanes;
// From one key's leaves to those of the next. The line more keeps them out of each other's cache sets.
constexpr std::size_t kStagedBytes = (kStagedLeaves + 1) * kLeafBytes;
constexpr std::size_t kStagingBytes = kKeyAlign * kStagedBytes;

// Writes the rows of `leaves` leaves of 8 keys, `row_bytes` apart.
MORPHOGEN_FN void write_rows(const std::uint8_t* staging, std::size_t leaves, std::size_t row_bytes,
                             std::uint8_t* out) {
  for (std::size_t at = 0; at < leaves * kLeafBytes; at += sizeof(Bytes16)) {
    Bytes16 rows[8], words[8];
    for (std::size_t i = 0; i < 8; ++i)
      std::memcpy(&rows[i], staging + i * kStagedBytes + at, sizeof rows[i]);
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

#if defined(__AVX512BW__)
MORPHOGEN_FN bool stages_words(Layout layout) { return layout == Layout::groups; }

// Writes the rows of leaves [first, last) of 8 keys, side by side, from the words of `vectors` vectors
// of leaves. The words need not be turned into leaves for that: it would be undone here.
MORPHOGEN_FN void write_groups(const std::uint8_t* staging, int vectors, int first, int last,
                               std::uint8_t* out) {
  constexpr int kWordRows = 4 * kKeyAlign;  // the bytes of a word's rows
  for (int at = 0; at < vectors * kLeafWords; at += 2) {
    Bytes64 halves[2][8];
    for (int i = 0; i < 2; ++i) {
      Bytes64 keys[8];
      for (int key = 0; key < 8; ++key)
        std::memcpy(&keys[key], staging + key * kStagedBytes + (at + i) * kVectorBytes,
                    sizeof keys[key]);
      transpose_bytes(keys, halves[i]);
    }
    // Every 16 bytes of these have two rows of a leaf: bring its 8 rows of two words together.
    for (int lane = 0; lane < kRowWords; ++lane) {
      WordVector rows[kRowLanes];
      for (int i = 0; i < kRowLanes; ++i) rows[i] = (WordVector)halves[i / 2][2 * lane + i % 2];
      transpose_rows(rows);
      for (int i = 0; i < kRowLanes; ++i) {
        const int leaf = at / kLeafWords * kWordLanes + i * kRowWords + lane;
        if (leaf >= first && leaf < last)
          std::memcpy(out + ((leaf - first) * kLeafWords + at % kLeafWords) * kWordRows, &rows[i],
                      kVectorBytes);
      }
    }
  }
}
#else
MORPHOGEN_FN bool stages_words(Layout) { return false; }
MORPHOGEN_FN void write_groups(const std::uint8_t*, int, int, int, std::uint8_t*) {}
#endif

// Writes the rows of the leaves of up to 8 keys below nodes [first, end) of each.
inline void write_selection(const KeyTree* trees, const NodeLevel* nodes, std::size_t key_count,
                            int first, int end, Layout layout, std::size_t row_bytes,
                            std::uint8_t* staging, std::uint8_t* out) {
  State<WordVector> starts[kKeyAlign];
  for (std::size_t key = 0; key < key_count; ++key) starts[key] = trees[key].leaf_start();
  for_leaves(first, end, [&](auto vectors, int at, int from, int to) {
    for (std::size_t key = 0; key < key_count; ++key) {
      std::uint8_t* const own = staging + key * kStagedBytes;
      if (stages_words(layout)) {
        trees[key].finish<vectors.value>(nodes[key], at, starts[key],
                                         reinterpret_cast<std::uint32_t*>(own));
        continue;
      }
      constexpr int kBytes = kWordLanes * kLeafBytes;  // of a vector's leaves
      alignas(64) std::uint32_t words[vectors.value * kBytes / 4];
      trees[key].finish<vectors.value>(nodes[key], at, starts[key], words);
      for (int i = 0; i < vectors.value; ++i)
        store_leaves(words + i * kBytes / 4, own + i * kBytes);
      if (layout == Layout::streams)
        for (int leaf = from; leaf < to; ++leaf) order_by_streams(own + leaf * kLeafBytes);
    }
    const std::size_t leaves = static_cast<std::size_t>(to - from);
    if (stages_words(layout))
      write_groups(staging, vectors.value, from, to, out);
    else
      write_rows(staging + from * kLeafBytes, leaves, row_bytes, out);
    out += leaves * kLeafRows * row_bytes;
  });
}

// Writes the rows of leaves [first_leaf, first_leaf + leaves) for all keys. Rows with all keys lie
// `stride` bytes apart. The next calls are for leaves until `end`. There is a level of nodes for
// each of 8 keys.
inline void expand_selection(KeyTree* trees, std::size_t key_count, std::uint64_t first_leaf,
                             std::size_t leaves, std::uint64_t end, Layout layout,
                             std::size_t stride, NodeLevel* nodes, std::uint8_t* staging,
                             std::uint8_t* selection) {
  const std::size_t plane = plane_size(layout, leaves, stride);
  if (layout == Layout::keys) {
    for (std::size_t key = 0; key < key_count; ++key)
      expand_leaves(trees[key], first_leaf, leaves, end, *nodes, selection + key * plane);
    return;
  }
  const std::size_t row_bytes = octet_bytes(layout, stride);
  const std::uint64_t last = first_leaf + leaves;
  for (std::size_t group = 0; group < key_count; group += kKeyAlign) {
    const std::size_t keys = key_count - group < kKeyAlign ? key_count - group : kKeyAlign;
    std::uint8_t* out = selection + (layout == Layout::groups ? group / kKeyAlign * plane : group);
    if (keys < kKeyAlign) std::memset(staging, 0, kStagingBytes);
    if (trees->is_small()) {
      for (std::size_t key = 0; key < keys; ++key) {
        std::uint8_t* const own = staging + key * kStagedBytes;
        expand_leaves(trees[group + key], first_leaf, leaves, end, *nodes, own);
        if (layout == Layout::streams)
          for (std::size_t leaf = 0; leaf < leaves; ++leaf)
            order_by_streams(own + leaf * kLeafBytes);
      }
      write_rows(staging, leaves, row_bytes, out);
      continue;
    }
    for (std::uint64_t leaf = first_leaf; leaf < last;) {
      const std::uint64_t stop = end_of_run(leaf, last);
      const int run = static_cast<int>(stop - leaf);
      int first = 0;  // the same for each key
      for (std::size_t key = 0; key < keys; ++key)
        first = trees[group + key].expand(leaf, run, end, nodes[key]);
      write_selection(trees + group, nodes, keys, first, first + run, layout, row_bytes, staging,
                      out);
      out += static_cast<std::size_t>(run) * kLeafRows * row_bytes;
      leaf = stop;
    }
  }
  if (layout == Layout::patterns) transpose_all_bits(selection, leaves * kLeafRows * stride);
}

}  // namespace
}  // namespace morphogen
