// Integer arithmetic. Signed types wrap: they are computed as unsigned types.
#include "ptx_lanes.h"
#include "ptx_operations.h"

namespace ptx {
namespace {

template <class T>
constexpr int kBits = 8 * sizeof(T);

// A type twice as wide with the same sign.
template <class T>
using Wide = std::conditional_t<
    std::is_signed_v<T>,
    std::conditional_t<sizeof(T) == 2, s32, std::conditional_t<sizeof(T) == 4, s64, __int128>>,
    std::conditional_t<sizeof(T) == 2, u32,
                       std::conditional_t<sizeof(T) == 4, u64, unsigned __int128>>>;

// An unsigned type that does not promote to int.
template <class T>
using Modular = std::conditional_t<sizeof(T) == 8, u64, u32>;

struct Subtract {
  template <class T>
  static T of(T a, T b) {
    return static_cast<T>(Modular<T>(a) - Modular<T>(b));
  }
};
struct MultiplyLow {
  template <class T>
  static T of(T a, T b) {
    return static_cast<T>(Modular<T>(a) * Modular<T>(b));
  }
};
struct MultiplyHigh {
  template <class T>
  static T of(T a, T b) {
    return static_cast<T>(Wide<T>(a) * Wide<T>(b) >> kBits<T>);
  }
};
struct MultiplyWide {
  template <class T>
  static Wide<T> of(T a, T b) {
    return Wide<T>(a) * Wide<T>(b);
  }
};
template <class Multiply>
struct MultiplyAdd {
  template <class T, class R>
  static R of(T a, T b, R c) {
    return Add::of<R>(static_cast<R>(Multiply::of(a, b)), c);
  }
};
struct Negate {
  template <class T>
  static T of(T a) {
    return static_cast<T>(0 - Modular<T>(a));
  }
};
struct Absolute {
  template <class T>
  static T of(T a) {
    return a < 0 ? Negate::of(a) : a;
  }
};
struct SumOfDifferences {
  template <class T>
  static T of(T a, T b, T c) {
    return Add::of<T>(c, a < b ? Subtract::of(b, a) : Subtract::of(a, b));
  }
};
// Division by zero gives 0 here. divide() below refuses it in active lanes.
struct Quotient {
  template <class T>
  static T of(T a, T b) {
    if (b == 0) return 0;
    return std::is_signed_v<T> && b == static_cast<T>(-1) ? Negate::of(a) : static_cast<T>(a / b);
  }
};
struct Remainder {
  template <class T>
  static T of(T a, T b) {
    if (b == 0) return 0;
    return std::is_signed_v<T> && b == static_cast<T>(-1) ? T{0} : static_cast<T>(a % b);
  }
};

template <class F, class T>
void divide(Warp& warp, const Instruction& in, Mask active) {
  const T* divisors = warp.lanes<T>(in.operand[2]);
  for (int i = 0; i < kLanes; ++i) {
    if ((active & warp.defined(in.operand[2])) >> i & 1 && divisors[i] == 0) {
      fault(Mask{1} << i, "division by zero");
    }
  }
  map<F, T, T, T>(warp, in, active);
}

// Adds or subtracts operands [1...] with carry or borrow. The carry flag is a predicate: the last
// operand, both read and written.
template <class T, bool kSubtract, bool kReads, bool kWrites>
void add_with_carry(Warp& warp, const Instruction& in, Mask active, const T* a, const T* b,
                    Mask defined, Operand carry) {
  using W = Wide<T>;
  const Mask flags = kReads ? warp.predicate(carry) : 0;
  if (kReads) defined &= warp.defined(carry);
  T results[kLanes];
  Mask carries = 0;
  for (int i = 0; i < kLanes; ++i) {
    const W in_flag = flags >> i & 1;
    const W sum = kSubtract ? W(a[i]) - W(b[i]) - in_flag : W(a[i]) + W(b[i]) + in_flag;
    results[i] = static_cast<T>(sum);
    carries |= static_cast<Mask>(sum >> kBits<T> & 1) << i;
  }
  warp.write(in.operand[0], results, active);
  warp.define(in.operand[0], active, defined);
  if (kWrites) {
    warp.write_predicate(carry, carries, active);
    warp.define(carry, active, defined);
  }
}

template <class T, bool kSubtract, bool kReads, bool kWrites>
void add_carry(Warp& warp, const Instruction& in, Mask active) {
  add_with_carry<T, kSubtract, kReads, kWrites>(
      warp, in, active, warp.lanes<T>(in.operand[1]), warp.lanes<T>(in.operand[2]),
      warp.defined(in.operand[1]) & warp.defined(in.operand[2]), in.operand[3]);
}

template <class T, class Multiply, class Signed, bool kReads, bool kWrites>
void multiply_add_carry(Warp& warp, const Instruction& in, Mask active) {
  const Signed* a = warp.lanes<Signed>(in.operand[1]);
  const Signed* b = warp.lanes<Signed>(in.operand[2]);
  T products[kLanes];
  for (int i = 0; i < kLanes; ++i) products[i] = static_cast<T>(Multiply::of(a[i], b[i]));
  add_with_carry<T, false, kReads, kWrites>(
      warp, in, active, products, warp.lanes<T>(in.operand[3]),
      warp.defined(in.operand[1]) & warp.defined(in.operand[2]) & warp.defined(in.operand[3]),
      in.operand[4]);
}

template <class A, class B>
struct Dp4a {
  static u32 of(u32 a, u32 b, u32 c) {
    for (int i = 0; i < 32; i += 8) {
      c += static_cast<u32>(static_cast<A>(a >> i) * static_cast<B>(b >> i));
    }
    return c;
  }
};

}  // namespace

void add_arithmetic(Operations& operations) {
  const auto add = [&operations](const std::string& name, Handler handler, std::string signature) {
    operations[name] = {handler, std::move(signature)};
  };
  for_types<u16, s16, u32, s32, u64, s64>([&](auto zero) {
    using T = decltype(zero);
    using U = std::make_unsigned_t<T>;
    const std::string type = "." + type_name<T>();
    const std::string unary = {written<T>(), letter<T>()};
    const std::string binary = unary + letter<T>(), ternary = binary + letter<T>();
    add("add" + type, map<Add, U, U, U>, binary);
    add("sub" + type, map<Subtract, U, U, U>, binary);
    add("mul.lo" + type, map<MultiplyLow, U, U, U>, binary);
    add("mul.hi" + type, map<MultiplyHigh, T, T, T>, binary);
    add("mad.lo" + type, map<MultiplyAdd<MultiplyLow>, U, U, U, U>, ternary);
    add("mad.hi" + type, map<MultiplyAdd<MultiplyHigh>, T, T, T, T>, ternary);
    add("div" + type, divide<Quotient, T>, binary);
    add("rem" + type, divide<Remainder, T>, binary);
    add("min" + type, map<Minimum, T, T, T>, binary);
    add("max" + type, map<Maximum, T, T, T>, binary);
    add("sad" + type, map<SumOfDifferences, T, T, T, T>, ternary);
    if constexpr (std::is_signed_v<T>) {
      add("neg" + type, map<Negate, T, T>, unary);
      add("abs" + type, map<Absolute, T, T>, unary);
    }
    if constexpr (sizeof(T) <= 4) {
      using W = Wide<T>;
      const std::string wide = {written<W>(), letter<T>(), letter<T>()};
      add("mul.wide" + type, map<MultiplyWide, W, T, T>, wide);
      add("mad.wide" + type, map<MultiplyAdd<MultiplyWide>, W, T, T, W>, wide + letter<W>());
    }
    if constexpr (sizeof(T) >= 4) {
      // 'c' is the carry flag.
      add("add.cc" + type, add_carry<U, false, false, true>, binary + "c");
      add("addc" + type, add_carry<U, false, true, false>, binary + "c");
      add("addc.cc" + type, add_carry<U, false, true, true>, binary + "c");
      add("sub.cc" + type, add_carry<U, true, false, true>, binary + "c");
      add("subc" + type, add_carry<U, true, true, false>, binary + "c");
      add("subc.cc" + type, add_carry<U, true, true, true>, binary + "c");
      add("mad.lo.cc" + type, multiply_add_carry<U, MultiplyLow, T, false, true>, ternary + "c");
      add("mad.hi.cc" + type, multiply_add_carry<U, MultiplyHigh, T, false, true>, ternary + "c");
      add("madc.lo" + type, multiply_add_carry<U, MultiplyLow, T, true, false>, ternary + "c");
      add("madc.hi" + type, multiply_add_carry<U, MultiplyHigh, T, true, false>, ternary + "c");
      add("madc.lo.cc" + type, multiply_add_carry<U, MultiplyLow, T, true, true>, ternary + "c");
      add("madc.hi.cc" + type, multiply_add_carry<U, MultiplyHigh, T, true, true>, ternary + "c");
    }
  });
  add("dp4a.u32.u32", map<Dp4a<std::uint8_t, std::uint8_t>, u32, u32, u32, u32>, "Wwww");
  add("dp4a.u32.s32", map<Dp4a<std::uint8_t, std::int8_t>, u32, u32, u32, u32>, "Wwww");
  add("dp4a.s32.u32", map<Dp4a<std::int8_t, std::uint8_t>, u32, u32, u32, u32>, "Wwww");
  add("dp4a.s32.s32", map<Dp4a<std::int8_t, std::int8_t>, u32, u32, u32, u32>, "Wwww");
}

}  // namespace ptx
