// Shifts, permutations, fields and counts of bits.
#include "ptx_lanes.h"
#include "ptx_operations.h"

namespace ptx {
namespace {

template <class T>
constexpr u32 kBits = 8 * sizeof(T);

// Shifts by the width or more shift everything out.
struct ShiftLeft {
  template <class T>
  static T of(T a, u32 n) {
    return n < kBits<T> ? static_cast<T>(a << n) : T{0};
  }
};
struct ShiftRight {
  template <class T>
  static T of(T a, u32 n) {
    return static_cast<T>(a >> (n < kBits<T> ? n : kBits<T> - 1)) >> (n < kBits<T> ? 0 : 1);
  }
};

// The upper or lower word of hi:lo shifted by n, which wraps around at 32 or is clamped to 32.
template <bool kWrap>
struct FunnelLeft {
  static u32 of(u32 lo, u32 hi, u32 n) {
    n = kWrap ? n & 31 : n < 32 ? n : 32;
    return static_cast<u32>(((u64{hi} << 32 | lo) << n) >> 32);
  }
};
template <bool kWrap>
struct FunnelRight {
  static u32 of(u32 lo, u32 hi, u32 n) {
    n = kWrap ? n & 31 : n < 32 ? n : 32;
    return static_cast<u32>((u64{hi} << 32 | lo) >> n);
  }
};

// Picks the bytes of b:a that the selector's nibbles name. A nibble with its top bit set copies the
// byte's sign bit eight times.
void permute(Warp& warp, const Instruction& in, Mask active) {
  const u32 *a = warp.lanes<u32>(in.operand[1]), *b = warp.lanes<u32>(in.operand[2]);
  const u32* selectors = warp.lanes<u32>(in.operand[3]);
  u32 differences = 0;
  for (int i = 0; i < kLanes; ++i) differences |= selectors[i] ^ selectors[0];
  u32 results[kLanes] = {};
  for (u32 to = 0; to < 32; to += 8) {
    if (!differences) {  // usually the selector is an immediate
      const u32 pick = selectors[0] >> (to / 2), shift = 8 * (pick & 3);
      const u32* from = pick & 4 ? b : a;
      if (pick & 8) {
        for (int i = 0; i < kLanes; ++i)
          results[i] |= ((0 - (from[i] >> shift >> 7 & 1)) & 0xff) << to;
      } else {
        for (int i = 0; i < kLanes; ++i) results[i] |= (from[i] >> shift & 0xff) << to;
      }
      continue;
    }
    for (int i = 0; i < kLanes; ++i) {
      const u32 pick = selectors[i] >> (to / 2);
      const u32 byte = (pick & 4 ? b : a)[i] >> (8 * (pick & 3)) & 0xff;
      results[i] |= (pick & 8 ? (0 - (byte >> 7)) & 0xff : byte) << to;
    }
  }
  warp.write(in.operand[0], results, active);
  warp.define(
      in.operand[0], active,
      warp.defined(in.operand[1]) & warp.defined(in.operand[2]) & warp.defined(in.operand[3]));
}

struct ExtractField {
  template <class T>
  static T of(T a, u32 start, u32 length) {
    start &= 0xff, length &= 0xff;
    constexpr u32 msb = kBits<T> - 1;
    const u32 last = start + length > msb + 1 ? msb : start + length - 1;
    const bool sign = std::is_signed_v<T> && length != 0 && (a >> (last < msb ? last : msb) & 1);
    T result = 0;
    for (u32 i = 0; i <= msb; ++i) {
      const bool bit = i < length && start + i <= msb ? (a >> (start + i) & 1) : sign;
      result =
          static_cast<T>(result | static_cast<T>(static_cast<std::make_unsigned_t<T>>(bit) << i));
    }
    return result;
  }
};
struct InsertField {
  template <class T>
  static T of(T a, T b, u32 start, u32 length) {
    start &= 0xff, length &= 0xff;
    for (u32 i = 0; i < length && start + i < kBits<T>; ++i) {
      const T bit = T{1} << (start + i);
      b = (b & ~bit) | ((a >> i & 1) << (start + i));
    }
    return b;
  }
};

struct Reverse {
  template <class T>
  static T of(T a) {
    T result = 0;
    for (u32 i = 0; i < kBits<T>; ++i) result |= (a >> i & 1) << (kBits<T> - 1 - i);
    return result;
  }
};
struct CountOnes {
  template <class T>
  static u32 of(T a) {
    return static_cast<u32>(__builtin_popcountll(a));
  }
};
struct CountLeadingZeros {
  template <class T>
  static u32 of(T a) {
    return a == 0 ? kBits<T> : static_cast<u32>(__builtin_clzll(a)) - (64 - kBits<T>);
  }
};
// The place of the highest bit that is not a copy of the sign, or all ones if there is none.
template <bool kShiftAmount>
struct FindHighest {
  template <class T>
  static u32 of(T a) {
    using U = std::make_unsigned_t<T>;
    const U bits = static_cast<U>(std::is_signed_v<T> && a < 0 ? ~a : a);
    if (bits == 0) return ~u32{0};
    const u32 shift = CountLeadingZeros::of(bits);
    return kShiftAmount ? shift : kBits<T> - 1 - shift;
  }
};

}  // namespace

void add_bit_operations(Operations& operations) {
  for_types<u16, s16, u32, s32, u64, s64>([&](auto zero) {
    using T = decltype(zero);
    const std::string type = "." + type_name<T>(), bits = "." + type_name<T>('b');
    const std::string shift = {written<T>(), letter<T>(), 'w'};
    operations["shr" + type] = {map<ShiftRight, T, T, u32>, shift};
    if constexpr (!std::is_signed_v<T>) {
      operations["shr" + bits] = {map<ShiftRight, T, T, u32>, shift};
      operations["shl" + bits] = {map<ShiftLeft, T, T, u32>, shift};
    }
    if constexpr (sizeof(T) >= 4) {
      const std::string count = {'W', letter<T>()};
      operations["bfe" + type] = {map<ExtractField, T, T, u32, u32>, shift + "w"};
      operations["bfind" + type] = {map<FindHighest<false>, u32, T>, count};
      operations["bfind.shiftamt" + type] = {map<FindHighest<true>, u32, T>, count};
      if constexpr (!std::is_signed_v<T>) {
        const std::string insert = {written<T>(), letter<T>(), letter<T>(), 'w', 'w'};
        operations["bfi" + bits] = {map<InsertField, T, T, T, u32, u32>, insert};
        operations["brev" + bits] = {map<Reverse, T, T>, {written<T>(), letter<T>()}};
        operations["popc" + bits] = {map<CountOnes, u32, T>, count};
        operations["clz" + bits] = {map<CountLeadingZeros, u32, T>, count};
      }
    }
  });
  operations["shf.l.wrap.b32"] = {map<FunnelLeft<true>, u32, u32, u32, u32>, "Wwww"};
  operations["shf.l.clamp.b32"] = {map<FunnelLeft<false>, u32, u32, u32, u32>, "Wwww"};
  operations["shf.r.wrap.b32"] = {map<FunnelRight<true>, u32, u32, u32, u32>, "Wwww"};
  operations["shf.r.clamp.b32"] = {map<FunnelRight<false>, u32, u32, u32, u32>, "Wwww"};
  operations["prmt.b32"] = {permute, "Wwww"};
}

}  // namespace ptx
