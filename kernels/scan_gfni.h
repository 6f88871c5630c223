// Scan method for AVX-512 with GFNI: the scan as a product of bit matrices.
//
// For 8 pages and 8 keys the selection is an 8 x 8 bit matrix, and one GF2P8AFFINEQB multiplies 64
// bytes of page data with it: 8 pages x 8 keys x 8 byte positions in one instruction. What it wants
// is the pages' bits side by side: bytes that hold one bit of each of 8 pages. Three levels of byte
// unpacking and one GF2P8AFFINEQB with a constant bring 64 bytes of 8 pages into that form, once for
// all keys.
#pragma once

#include "page_scan.h"

#if defined(__AVX512BW__) && defined(__GFNI__)
#include <immintrin.h>

namespace morphogen {
namespace {

constexpr int kGfniVectors = 8;  // a 64-byte column of 8 pages, or of 8 keys' sums

// One level of a byte transpose: interleaves vectors `Distance` apart.
template <int Distance>
MORPHOGEN_FN void unpack_level(const __m512i (&in)[kGfniVectors], __m512i (&out)[kGfniVectors]) {
  for (int i = 0; i < kGfniVectors; ++i) {
    if (i & Distance) continue;
    out[i] = _mm512_unpacklo_epi8(in[i], in[i + Distance]);
    out[i + Distance] = _mm512_unpackhi_epi8(in[i], in[i + Distance]);
  }
}

MORPHOGEN_FN __m512i xor3(__m512i a, __m512i b, __m512i c) {
  constexpr int kXorOfThree = 0x96;  // the truth table of a ^ b ^ c
  return _mm512_ternarylogic_epi64(a, b, c, kXorOfThree);
}

// Octets is 1 or 2: the data of 2 octets still fits the registers.
template <std::size_t Octets>
class GfniMethod {
  static_assert(Octets == 1 || Octets == 2);

 public:
  static constexpr std::size_t kColumnBytes = 64;
  static constexpr std::size_t kOctets = Octets;

  explicit GfniMethod(std::size_t) {}

  MORPHOGEN_FN void select(const std::uint8_t* selection, std::size_t key_stride) {
    selection_ = selection;
    key_stride_ = key_stride;
  }

  MORPHOGEN_FN void add_column(const std::uint8_t* column, std::size_t page_size,
                               std::size_t count, Prefetcher& prefetcher, std::uint8_t* sums) {
    __m512i data[Octets][kGfniVectors];
    if (count >= Octets * kOctet) {
#pragma GCC unroll 2
      for (std::size_t octet = 0; octet < Octets; ++octet) {
        prefetcher.template advance<kOctet * kColumnBytes / kCacheLine>();
        transpose<true>(column + octet * kOctet * page_size, page_size, kOctet, data[octet]);
      }
      for (std::size_t group = 0; group < key_stride_; group += kOctet)
        add_group<Octets>(data, selection_ + group, sums + group * kColumnBytes);
    } else {
      for (std::size_t octet = 0; octet * kOctet < count; ++octet) {
        __m512i last[1][kGfniVectors];
        transpose<false>(column + octet * kOctet * page_size, page_size, count - octet * kOctet,
                         last[0]);
        for (std::size_t group = 0; group < key_stride_; group += kOctet)
          add_group<1>(last, selection_ + octet * key_stride_ + group, sums + group * kColumnBytes);
      }
    }
  }

 private:
  // Byte 8 * q + i of every result holds bit 7 - i of one byte of each of the 8 pages, that of page
  // p at bit p. Which byte, the unpacking decides: gather_column below undoes it.
  template <bool Whole>
  static MORPHOGEN_FN void transpose(const std::uint8_t* column, std::size_t page_size,
                                     std::size_t count, __m512i (&out)[kGfniVectors]) {
    __m512i v[kGfniVectors], w[kGfniVectors];
    for (std::size_t i = 0; i < kGfniVectors; ++i) {
      // The instruction numbers matrix rows from the last byte on: take the pages backwards.
      const std::size_t page = kGfniVectors - 1 - i;
      v[i] = Whole || page < count ? _mm512_loadu_si512(column + page * page_size)
                                   : _mm512_setzero_si512();
    }
    unpack_level<4>(v, w);
    unpack_level<2>(w, v);
    unpack_level<1>(v, w);
    // Row i of this matrix picks bit 7 - i.
    const __m512i reversed_identity = _mm512_set1_epi64(0x0102040810204080);
    for (int i = 0; i < kGfniVectors; ++i)
      out[i] = _mm512_gf2p8affine_epi64_epi8(reversed_identity, w[i], 0);
  }

  // Adds the pages of `Count` octets to the sums of 8 keys.
  template <std::size_t Count>
  MORPHOGEN_FN void add_group(const __m512i (&data)[Count][kGfniVectors],
                              const std::uint8_t* selection, std::uint8_t* sums) const {
    __m512i matrix[Count];
#pragma GCC unroll 2
    for (std::size_t octet = 0; octet < Count; ++octet) {
      long long row;
      std::memcpy(&row, selection + octet * key_stride_, sizeof row);
      matrix[octet] = _mm512_set1_epi64(row);
    }
    __m512i* out = reinterpret_cast<__m512i*>(sums);
#pragma GCC unroll 8
    for (int i = 0; i < kGfniVectors; ++i) {
      const __m512i first = _mm512_gf2p8affine_epi64_epi8(matrix[0], data[0][i], 0);
      if constexpr (Count == 1)
        out[i] = _mm512_xor_si512(out[i], first);
      else
        out[i] = xor3(out[i], first, _mm512_gf2p8affine_epi64_epi8(matrix[1], data[1][i], 0));
    }
  }

  const std::uint8_t* selection_ = nullptr;
  std::size_t key_stride_ = 0;
};

// Turns the sums of 8 keys (8 vectors as add_group left them) into one 64-byte column a key.
//
// One level of unpacking moves the top bit of a byte's number within its 16-byte lane into the
// vector's number, and a bit of the vector's number to the other end of the byte's. The scan's three
// levels so turned vector p2 p1 p0, byte b3 b2 b1 b0 (p the page) into vector b3 b2 b1, byte
// b0 p2 p1 p0, and the product put a key k in the place of the page. Four more levels end at vector
// k0 k2 k1, byte b3 b2 b1 b0.
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

}  // namespace
}  // namespace morphogen
#endif
