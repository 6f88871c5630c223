// Helpers for operations that treat all lanes equally.
#pragma once

#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>

#include "ptx_warp.h"

namespace ptx {

using u16 = std::uint16_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;
using s16 = std::int16_t;
using s32 = std::int32_t;
using s64 = std::int64_t;

// Returns the name of a type, such as "u32".
template <class T>
std::string type_name(char kind = std::is_signed_v<T> ? 's' : 'u') {
  return kind + std::to_string(8 * sizeof(T));
}

// Returns the letter of a type in an operation's signature.
template <class T>
constexpr char letter() {
  return sizeof(T) == 2 ? 'h' : sizeof(T) == 4 ? 'w' : 'q';
}

template <class T>
constexpr char written() {
  return sizeof(T) == 2 ? 'H' : sizeof(T) == 4 ? 'W' : 'Q';
}

// --- Functions of one lane that several instructions share.

struct Add {
  // Computes in an unsigned type that does not promote to int, so overflow wraps.
  template <class T>
  static T of(T a, T b) {
    using U = std::conditional_t<sizeof(T) == 8, u64, u32>;
    return static_cast<T>(static_cast<U>(a) + static_cast<U>(b));
  }
};
struct Minimum {
  template <class T>
  static T of(T a, T b) {
    return a < b ? a : b;
  }
};
struct Maximum {
  template <class T>
  static T of(T a, T b) {
    return a < b ? b : a;
  }
};
struct And {
  template <class T>
  static T of(T a, T b) {
    return a & b;
  }
};
struct Or {
  template <class T>
  static T of(T a, T b) {
    return a | b;
  }
};
struct Xor {
  template <class T>
  static T of(T a, T b) {
    return a ^ b;
  }
};

// --- Functions of all lanes.

// Calls f with a zero of each type.
template <class... T, class F>
void for_types(F f) {
  (f(T{}), ...);
}

// Applies F::of to each lane of the operands 1, 2... (of the types A) and writes operand 0. It also
// computes lanes that are not active, so F must be defined for all values.
template <class F, class R, class... A, std::size_t... I>
inline void map_operands(Warp& warp, const Instruction& in, Mask active,
                         std::index_sequence<I...>) {
  R results[kLanes];
  const auto apply = [&results](const A*... a) {
    for (int i = 0; i < kLanes; ++i) results[i] = static_cast<R>(F::of(a[i]...));
  };
  apply(warp.lanes<A>(in.operand[I + 1])...);
  warp.write(in.operand[0], results, active);
  warp.define(in.operand[0], active, (warp.defined(in.operand[I + 1]) & ...));
}

template <class F, class R, class... A>
void map(Warp& warp, const Instruction& in, Mask active) {
  map_operands<F, R, A...>(warp, in, active, std::index_sequence_for<A...>{});
}

// Packs a flag byte a lane (0 or 1) into a mask with one bit a lane.
inline Mask to_mask(const std::uint8_t (&flags)[kLanes]) {
  Mask mask = 0;
  for (int i = 0; i < kLanes; i += 8) {
    std::uint64_t eight;
    std::memcpy(&eight, flags + i, 8);
    mask |= static_cast<Mask>(eight * 0x0102040810204080u >> 56) << i;
  }
  return mask;
}

}  // namespace ptx
