// A scan method for AVX-512 with GFNI: the scan as a product of bit matrices.
//
// For 8 pages and 8 keys the selection is an 8 x 8 bit matrix, and one GF2P8AFFINEQB multiplies 64
// bytes of page data with it: 8 pages x 8 keys x 8 byte positions in one instruction. The
// instruction needs bytes that hold one bit of each of 8 pages. Three levels of byte unpacking and
// one GF2P8AFFINEQB with a constant bring 64 bytes of 8 pages into that form, once for all keys.
#pragma once

#include "avx512.h"
#include "page_scan.h"

#if defined(__AVX512BW__) && defined(__GFNI__)
#include <immintrin.h>

namespace morphogen {
namespace {

constexpr int kGfniVectors = 8;  // a 64-byte column of 8 pages, or of 8 keys' sums

// Makes one level of a byte transpose: interleaves vectors `Distance` apart.
template <int Distance>
MORPHOGEN_FN void unpack_level(const __m512i (&in)[kGfniVectors], __m512i (&out)[kGfniVectors]) {
  for (int i = 0; i < kGfniVectors; ++i) {
    if (i & Distance) continue;
    out[i] = _mm512_unpacklo_epi8(in[i], in[i + Distance]);
    out[i + Distance] = _mm512_unpackhi_epi8(in[i], in[i + Distance]);
  }
}

// Adds Octets x 8 lines of 64 bytes, a column of one page each, in each step.
template <std::size_t Octets>
class GfniMethod {
 public:
  static constexpr std::size_t kColumnBytes = 64;
  static constexpr std::size_t kOctets = Octets;

  explicit GfniMethod(std::size_t) {}

  // `selection` is the first octet's row. The next octet's row is `octet_step` bytes on.
  MORPHOGEN_FN void select(const std::uint8_t* selection, std::size_t key_stride,
                           std::size_t octet_step) {
    selection_ = selection;
    key_stride_ = key_stride;
    octet_step_ = octet_step;
  }

  MORPHOGEN_FN void select(const std::uint8_t* selection, std::size_t key_stride) {
    select(selection, key_stride, key_stride);
  }

  // Adds one column of `count` rows.
  template <class Prefetcher>
  MORPHOGEN_FN void add_column(const std::uint8_t* column, const Rows& rows, std::size_t count,
                               Prefetcher& prefetcher, std::uint8_t* sums) {
    if (count >= Octets * kOctet) {
      __m512i data[Octets][kGfniVectors];
#pragma GCC unroll 4
      for (std::size_t octet = 0; octet < Octets; ++octet) {
        prefetcher.template advance<kOctet * kColumnBytes / kCacheLine>();
        const std::uint8_t* first = column + octet * rows.octet_bytes;
        // Two bases and two distances leave the compiler registers.
        const std::uint8_t* second = first + 4 * rows.row_bytes;
        const std::size_t three = 3 * rows.row_bytes;
        transpose(
            [&](std::size_t row) {
              const std::uint8_t* base = row < 4 ? first : second;
              return _mm512_loadu_si512(base + (row % 4 == 3 ? three : row % 4 * rows.row_bytes));
            },
            data[octet]);
      }
      add_groups<Octets>(data, selection_, sums);
    } else {
      for (std::size_t octet = 0; octet * kOctet < count; ++octet) {
        const std::size_t left = count - octet * kOctet;
        const std::uint8_t* first = column + octet * rows.octet_bytes;
        __m512i data[1][kGfniVectors];
        prefetcher.template advance<kOctet * kColumnBytes / kCacheLine>();
        transpose(
            [&](std::size_t row) {
              return row < left ? _mm512_loadu_si512(first + row * rows.row_bytes)
                                : _mm512_setzero_si512();
            },
            data[0]);
        add_groups<1>(data, selection_ + octet * octet_step_, sums);
      }
    }
  }

  // Adds one octet's rows, which are streams. The run ends `bytes_left` bytes after `column`.
  MORPHOGEN_FN void add_last_column(const std::uint8_t* column, const Rows& rows,
                                    std::size_t bytes_left, std::uint8_t* sums) {
    __m512i data[1][kGfniVectors];
    transpose(
        [&](std::size_t row) {
          const std::size_t skipped = row * rows.row_bytes;
          const std::size_t left = skipped < bytes_left ? bytes_left - skipped : 0;
          // A row past the end reads nothing.
          const std::uint8_t* at = left == 0 ? column : column + skipped;
          const __mmask64 bytes = left < 64 ? (__mmask64{1} << left) - 1 : ~__mmask64{0};
          return _mm512_maskz_loadu_epi8(bytes, at);
        },
        data[0]);
    add_groups<1>(data, selection_, sums);
  }

 private:
  // Byte 8 * q + i of every result holds bit 7 - i of one byte of each of the 8 pages, with the bit
  // of page p at bit p. The order of these bytes follows from the unpacking, and gather_keys below
  // undoes it.
  template <class Load>
  static MORPHOGEN_FN void transpose(Load&& load, __m512i (&out)[kGfniVectors]) {
    __m512i v[kGfniVectors], w[kGfniVectors];
    // The instruction numbers matrix rows from the last byte on, so take the pages backwards.
    for (std::size_t i = 0; i < kGfniVectors; ++i) {
      v[i] = load(kGfniVectors - 1 - i);
      // Keep the compiler from loading a row again for its second use.
      __asm__("" : "+v"(v[i]));
    }
    unpack_level<4>(v, w);
    unpack_level<2>(w, v);
    unpack_level<1>(v, w);
    // Row i of this matrix picks bit 7 - i.
    const __m512i reversed_identity = _mm512_set1_epi64(0x0102040810204080);
    for (int i = 0; i < kGfniVectors; ++i)
      out[i] = _mm512_gf2p8affine_epi64_epi8(reversed_identity, w[i], 0);
  }

  // Returns the selection of 8 keys.
  static MORPHOGEN_FN __m512i load_matrix(const std::uint8_t* selection) {
    return _mm512_set1_epi64(load_long(selection));
  }

  template <std::size_t Count>
  MORPHOGEN_FN void add_groups(const __m512i (&data)[Count][kGfniVectors],
                               const std::uint8_t* selection, std::uint8_t* sums) const {
    for (std::size_t group = 0; group < key_stride_; group += kOctet)
      add_group(data, selection + group, sums + group * kColumnBytes);
  }

  // Adds the pages of `Count` octets to the sums of 8 keys.
  template <std::size_t Count>
  MORPHOGEN_FN void add_group(const __m512i (&data)[Count][kGfniVectors],
                              const std::uint8_t* selection, std::uint8_t* sums) const {
    __m512i matrix[Count];
#pragma GCC unroll 4
    for (std::size_t octet = 0; octet < Count; ++octet)
      matrix[octet] = load_matrix(selection + octet * octet_step_);
    __m512i* out = reinterpret_cast<__m512i*>(sums);
#pragma GCC unroll 8
    for (int i = 0; i < kGfniVectors; ++i) {
      __m512i sum = out[i];
      if constexpr (Count == 1) {
        sum = _mm512_xor_si512(sum, _mm512_gf2p8affine_epi64_epi8(matrix[0], data[0][i], 0));
      } else {
#pragma GCC unroll 2
        for (std::size_t octet = 0; octet < Count; octet += 2)
          sum = xor3(sum, _mm512_gf2p8affine_epi64_epi8(matrix[octet], data[octet][i], 0),
                     _mm512_gf2p8affine_epi64_epi8(matrix[octet + 1], data[octet + 1][i], 0));
      }
      out[i] = sum;
    }
  }

  const std::uint8_t* selection_ = nullptr;
  std::size_t key_stride_ = 0, octet_step_ = 0;
};

// Scans pages narrower than a row of memory in 8 streams a leaf, each a run of 64 pages
// (Layout::streams). The reads of a step then lie far apart, and each stream goes on in memory
// order.
template <class Method>
inline void scan_streams(const PageRun& run) {
  constexpr std::size_t kTilePages = Method::kOctets * kLeafBits;
  const Columns& columns = *run.columns;
  const std::size_t page_size = columns.page_size;
  const Rows rows{kStreamPages * page_size, kLeafBits * page_size};
  const std::size_t octet_step = kLeafRows * run.key_stride;
  Method method(run.key_count);
  std::size_t page = 0;
  for (; page + kTilePages <= run.page_count; page += kTilePages) {
    const std::uint8_t* line = run.pages + page * page_size;
    const std::uint8_t* selection = run.selection + page / kOctet * run.key_stride;
    StreamPrefetcher prefetcher(rows);
    for (std::size_t j = 0; j < kStreamPages; ++j, line += page_size) {
      method.select(selection + j * run.key_stride, run.key_stride, octet_step);
      for (std::size_t column = 0; column < columns.count; ++column) {
        const std::uint8_t* at = line + columns.offset(column);
        prefetcher.take_column(at + StreamPrefetcher::kDistance * kCacheLine);
        method.add_column(at, rows, Method::kOctets * kOctet, prefetcher,
                          run.sums + column * run.sum_stride * Method::kColumnBytes);
      }
    }
  }
  // Add the pages that fill no tile, leaf by leaf. The last leaf may be part full.
  for (; page < run.page_count; page += kLeafBits) {
    const std::uint8_t* leaf = run.pages + page * page_size;
    const std::uint8_t* selection = run.selection + page / kOctet * run.key_stride;
    const std::size_t leaf_bytes = (run.page_count - page) * page_size;
    for (std::size_t j = 0; j < kStreamPages && j * page_size < leaf_bytes; ++j) {
      method.select(selection + j * run.key_stride, run.key_stride, octet_step);
      for (std::size_t column = 0; column < columns.count; ++column) {
        const std::size_t at = j * page_size + columns.offset(column);
        method.add_last_column(leaf + at, rows, leaf_bytes - at,
                               run.sums + column * run.sum_stride * Method::kColumnBytes);
      }
    }
  }
}

// Scans one strip like scan_run(), but copies some columns of a tile before it adds them. So it
// reads a line for its second column while the first-level cache still has it, though the rows lie
// in one cache set.
template <class Method, class Prefetcher>
inline void scan_copies(const PageRun& run) {
  constexpr std::size_t kTilePages = Method::kOctets * kOctet, kBytes = Method::kColumnBytes;
  constexpr std::size_t kWidth = 4;  // by measurement
  alignas(64) std::uint8_t copies[kWidth][kTilePages][kBytes];
  const Rows rows{kBytes, kOctet * kBytes};
  const Columns& columns = *run.columns;
  Method method(run.key_count);
  for (std::size_t tile = 0; tile < run.page_count; tile += kTilePages) {
    const std::uint8_t* pages = run.pages + tile * columns.page_size;
    const std::size_t left = run.page_count - tile;
    const std::size_t count = left < kTilePages ? left : kTilePages;
    method.select(run.selection + tile / kOctet * run.key_stride, run.key_stride);
    Prefetcher prefetcher(run, tile, kTilePages);
    std::uint8_t* sums = run.sums;
    for (std::size_t column = run.first_column; column < run.end_column;) {
      std::size_t offset[kWidth], width = 0;
      for (; width < kWidth && column < run.end_column; ++width)
        offset[width] = columns.offset(column++);
      for (std::size_t row = 0; row < count; ++row)
        for (std::size_t i = 0; i < width; ++i)
          Column<kBytes>::load(pages + row * columns.page_size + offset[i]).store(copies[i][row]);
      for (std::size_t i = 0; i < width; ++i, sums += run.sum_stride * kBytes)
        method.add_column(copies[i][0], rows, count, prefetcher, sums);
    }
  }
}

// Turns the sums of 8 keys (8 vectors as add_group left them) into one 64-byte column a key.
//
// One level of unpacking moves the top bit of a byte's number within its 16-byte lane into the
// vector's number, and a bit of the vector's number to the other end of the byte's number. The
// scan's three levels turned vector p2 p1 p0, byte b3 b2 b1 b0 (p is the page) into vector b3 b2
// b1, byte b0 p2 p1 p0, and the product put a key k in the place of the page. Four more levels end
// at vector k0 k2 k1, byte b3 b2 b1 b0.
MORPHOGEN_FN void gather_keys(const std::uint8_t* sums, __m512i (&out)[kGfniVectors]) {
  __m512i v[kGfniVectors], w[kGfniVectors];
  for (int i = 0; i < kGfniVectors; ++i)
    v[i] = _mm512_load_si512(sums + i * sizeof(__m512i));
  unpack_level<4>(v, w);
  unpack_level<2>(w, v);
  unpack_level<1>(v, w);
  unpack_level<4>(w, v);
  for (int key = 0; key < kGfniVectors; ++key) out[key] = v[((key & 1) << 2) | (key >> 1)];
}

// Hands `put(key, column, line)` the sum of each key and column [first, end), from sums of
// [column][key_stride] lines.
template <class Put>
MORPHOGEN_FN void gather_sums(const std::uint8_t* sums, std::size_t first, std::size_t end,
                              std::size_t key_count, std::size_t key_stride, Put&& put) {
  constexpr std::size_t kLine = sizeof(__m512i);
  for (std::size_t group = 0; group < key_count; group += kOctet) {
    for (std::size_t column = first; column < end; ++column) {
      __m512i lines[kGfniVectors];
      gather_keys(sums + ((column - first) * key_stride + group) * kLine, lines);
      for (std::size_t i = 0; i < kOctet && group + i < key_count; ++i)
        put(group + i, column, Column<kLine>{{(typename Column<kLine>::Part)lines[i]}});
    }
  }
}

}  // namespace
}  // namespace morphogen
#endif
