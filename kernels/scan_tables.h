// A scan method for any instruction set. For one column of every 4 pages it tabulates the 16
// possible XORs in the first-level cache, and each key adds one table entry for every 4 of its
// selection bits (Arlazarov, Dinic, Kronrod, Faradzhev 1970, the Method of Four Russians).
#pragma once

#include "page_scan.h"

namespace morphogen {
namespace {

template <int Bytes, std::size_t Octets>
class TableMethod {
 public:
  typedef Column<Bytes> C;
  static constexpr std::size_t kColumnBytes = Bytes;
  static constexpr std::size_t kOctets = Octets;

  explicit TableMethod(std::size_t key_count) : key_count_(key_count) {
    for (auto& octet : tables_)
      for (auto& table : octet) table[0] = C{};
  }

  MORPHOGEN_FN void select(const std::uint8_t* selection, std::size_t key_stride) {
    selection_ = selection;
    key_stride_ = key_stride;
  }

  template <class Prefetcher>
  MORPHOGEN_FN void add_column(const std::uint8_t* column, const Rows& rows, std::size_t count,
                               Prefetcher& prefetcher, std::uint8_t* sums) {
    C* out = reinterpret_cast<C*>(sums);
    if (count >= Octets * kOctet) {
      for (std::size_t octet = 0; octet < Octets; ++octet) {
        // Prefetch as many lines as an octet of columns has. Columns under 8 bytes leave
        // prefetching to the hardware.
        prefetcher.template advance<kOctet * Bytes / kCacheLine>();
        tabulate<true>(tables_[octet], column + octet * rows.octet_bytes, rows.row_bytes, kOctet);
      }
      add_entries<Octets>(selection_, out);
    } else {
      for (std::size_t octet = 0; octet * kOctet < count; ++octet) {
        tabulate<false>(tables_[0], column + octet * rows.octet_bytes, rows.row_bytes,
                        count - octet * kOctet);
        add_entries<1>(selection_ + octet * key_stride_, out);
      }
    }
  }

 private:
  static constexpr std::size_t kGroupPages = 4;
  static constexpr std::size_t kEntries = 1 << kGroupPages;
  static constexpr std::size_t kGroups = kOctet / kGroupPages;
  typedef C Tables[kGroups][kEntries];

  // Tabulates one column of up to 8 pages. Pages past `count` count as zero.
  template <bool Whole>
  static MORPHOGEN_FN void tabulate(Tables& tables, const std::uint8_t* column,
                                    std::size_t row_bytes, std::size_t count) {
    for (std::size_t group = 0; group < kGroups; ++group) {
      C page[kGroupPages];
      for (std::size_t i = 0; i < kGroupPages; ++i) {
        const std::size_t index = group * kGroupPages + i;
        page[i] = Whole || index < count ? C::load(column + index * row_bytes) : C{};
      }
      C* entry = tables[group];
      const C ab = page[0] ^ page[1], cd = page[2] ^ page[3];
      entry[1] = page[0];
      entry[2] = page[1];
      entry[3] = ab;
      entry[4] = page[2];
      entry[5] = page[0] ^ page[2];
      entry[6] = page[1] ^ page[2];
      entry[7] = ab ^ page[2];
      entry[8] = page[3];
      entry[9] = page[0] ^ page[3];
      entry[10] = page[1] ^ page[3];
      entry[11] = ab ^ page[3];
      entry[12] = cd;
      entry[13] = page[0] ^ cd;
      entry[14] = page[1] ^ cd;
      entry[15] = ab ^ cd;
    }
  }

  template <std::size_t Count>
  MORPHOGEN_FN void add_entries(const std::uint8_t* selection, C* sums) const {
    for (std::size_t key = 0; key < key_count_; ++key) {
      C sum = sums[key];
      for (std::size_t octet = 0; octet < Count; ++octet) {
        const unsigned bits = selection[octet * key_stride_ + key];
        sum = sum ^ tables_[octet][0][bits & 15] ^ tables_[octet][1][bits >> 4];
      }
      sums[key] = sum;
    }
  }

  std::size_t key_count_, key_stride_ = 0;
  const std::uint8_t* selection_ = nullptr;
  alignas(64) Tables tables_[Octets];
};

}  // namespace
}  // namespace morphogen
