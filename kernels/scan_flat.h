// A scan method for narrow pages of any size and few keys, for instruction sets that shuffle bytes.
// The pages are a stream of whole vectors, wherever pages begin and end in them. Each byte of a
// vector is masked with the selection bit of its own page: a shuffle brings it the byte that holds
// the bit, and a test picks the bit.
//
// Which page a byte belongs to repeats after a period: the fewest pages that fill whole octets and
// whole vectors. The vectors of a period have a sum each, and are folded to a page at the end.
#pragma once

#include "scan_narrow.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace morphogen {
namespace {

struct Period {
  std::size_t pages = kOctet, bytes;

  explicit Period(std::size_t page_size) {
    while (pages * page_size % kVectorBytes != 0) pages *= 2;
    bytes = pages * page_size;
  }
};

typedef std::uint8_t ByteVector __attribute__((vector_size(kVectorBytes)));

// Returns the bytes of `vector` that are selected, and zero for the others. 8 bytes at `selection`
// hold the bits; byte i has its own in their byte place[i], under the mask bit[i].
#if defined(__AVX512BW__)
constexpr bool kHasFlat = true;
MORPHOGEN_FN ByteVector select_bytes(ByteVector vector, const std::uint8_t* selection,
                                     ByteVector place, ByteVector bit) {
  long long word;
  std::memcpy(&word, selection, sizeof word);
  const __m512i spread =
      _mm512_shuffle_epi8(_mm512_set1_epi64(word), reinterpret_cast<__m512i>(place));
  const __mmask64 selected = _mm512_test_epi8_mask(spread, reinterpret_cast<__m512i>(bit));
  return reinterpret_cast<ByteVector>(
      _mm512_maskz_mov_epi8(selected, reinterpret_cast<__m512i>(vector)));
}
#elif defined(__AVX2__)
constexpr bool kHasFlat = true;
MORPHOGEN_FN ByteVector select_bytes(ByteVector vector, const std::uint8_t* selection,
                                     ByteVector place, ByteVector bit) {
  long long word;
  std::memcpy(&word, selection, sizeof word);
  const ByteVector spread = reinterpret_cast<ByteVector>(
      _mm256_shuffle_epi8(_mm256_set1_epi64x(word), reinterpret_cast<__m256i>(place)));
  return vector & reinterpret_cast<ByteVector>((spread & bit) == bit);
}
#else
constexpr bool kHasFlat = false;
#endif

}  // namespace
}  // namespace morphogen

#if defined(__AVX2__)
namespace morphogen {
namespace {

class FlatMethod {
 public:
  static constexpr std::size_t kOctetBytes = 1;

  explicit FlatMethod(const PageRun& run)
      : run_(run),
        period_(run.columns->page_size),
        ahead_(run.in_streams ? kStreamAheadBytes : kNarrowAheadBytes) {
    const std::size_t page_size = run.columns->page_size;
    for (std::size_t page = 0; page < period_.pages; ++page) {
      std::memset(places_ + page * page_size, static_cast<int>(page / kOctet), page_size);
      std::memset(bits_ + page * page_size, 1 << page % kOctet, page_size);
    }
  }

  std::size_t step_pages() const { return period_.pages; }

  // Adds a period of each stream.
  template <std::size_t Streams>
  MORPHOGEN_FN void add(const std::uint8_t* pages, std::size_t stream_bytes,
                        const std::uint8_t* selection, std::size_t stream_selection) const {
    for (std::size_t at = 0; at < period_.bytes; at += kVectorBytes)
      add_vectors<Streams>(pages + at, stream_bytes, selection, stream_selection, at);
  }

  void add_rest(const std::uint8_t* pages, const std::uint8_t* selection, std::size_t count) const {
    const std::size_t bytes = count * run_.columns->page_size;
    for (std::size_t at = 0; at < bytes; at += kVectorBytes) {
      std::uint8_t last[kVectorBytes] = {};
      const std::size_t left = bytes - at;
      std::memcpy(last, pages + at, left < sizeof last ? left : sizeof last);
      add_vectors<1>(last, 0, selection, 0, at);
    }
  }

 private:
  typedef Column<kVectorBytes> C;

  // Adds the vectors at offset `at` of a period.
  template <std::size_t Streams>
  MORPHOGEN_FN void add_vectors(const std::uint8_t* bytes, std::size_t stream_bytes,
                                const std::uint8_t* selection, std::size_t stream_selection,
                                std::size_t at) const {
    const ByteVector place = C::load(places_ + at).part[0], bit = C::load(bits_ + at).part[0];
    ByteVector vector[Streams];
#pragma GCC unroll 4
    for (std::size_t i = 0; i < Streams; ++i) {
      vector[i] = C::load(bytes + i * stream_bytes).part[0];
      if (Streams > 1) __builtin_prefetch(bytes + ahead<Streams>(i, stream_bytes, at));
    }
    std::uint8_t* sums = run_.sums + at * run_.key_count;
    for (std::size_t key = 0; key < run_.key_count; ++key, sums += kVectorBytes) {
      const std::uint8_t* own = selection + key * run_.plane_bytes;
      C sum = C::load(sums);
#pragma GCC unroll 4
      for (std::size_t i = 0; i < Streams; ++i)
        sum.part[0] ^= select_bytes(vector[i], own + i * stream_selection, place, bit);
      sum.store(sums);
    }
  }

  // Returns the bytes from a vector of the first period to what is asked for with that of stream i.
  // In memory order the periods follow each other, and their lines are asked for one after the other.
  template <std::size_t Streams>
  MORPHOGEN_FN std::size_t ahead(std::size_t i, std::size_t stream_bytes, std::size_t at) const {
    if (run_.in_streams) return ahead_ + i * stream_bytes;
    return ahead_ + (Streams - 1) * at + i * kVectorBytes;
  }

  // A period of odd pages has as many pages as a vector has bytes.
  static constexpr std::size_t kMostBytes = kNarrowBytes * kVectorBytes;

  const PageRun& run_;
  const Period period_;
  const std::size_t ahead_;  // bytes to the lines that are prefetched
  alignas(64) std::uint8_t places_[kMostBytes], bits_[kMostBytes];
};

}  // namespace
}  // namespace morphogen
#endif

namespace morphogen {
namespace {

// Writes, or adds, one page a key, from the sums of [vector of a period][key].
inline void fold_flat_sums(const std::uint8_t* sums, std::size_t page_size, std::size_t key_count,
                           bool add, std::uint8_t* out) {
  const Period period(page_size);
  if (!add) std::memset(out, 0, key_count * page_size);
  for (std::size_t at = 0; at < period.bytes; ++at) {
    const std::uint8_t* byte =
        sums + at / kVectorBytes * kVectorBytes * key_count + at % kVectorBytes;
    for (std::size_t key = 0; key < key_count; ++key)
      out[key * page_size + at % page_size] ^= byte[key * kVectorBytes];
  }
}

}  // namespace
}  // namespace morphogen
