// Comparisons, selections, logic on bits and on predicates, copies and conversions.
#include "ptx_lanes.h"
#include "ptx_operations.h"

namespace ptx {
namespace {

Mask negatable(Warp& warp, const Instruction& in, Operand operand) {
  return in.negated ? ~warp.predicate(operand) : warp.predicate(operand);
}

// --- Comparisons.

struct Equal {
  template <class T>
  static bool of(T a, T b) {
    return a == b;
  }
};
struct NotEqual {
  template <class T>
  static bool of(T a, T b) {
    return a != b;
  }
};
struct Less {
  template <class T>
  static bool of(T a, T b) {
    return a < b;
  }
};
struct LessEqual {
  template <class T>
  static bool of(T a, T b) {
    return a <= b;
  }
};
struct Greater {
  template <class T>
  static bool of(T a, T b) {
    return a > b;
  }
};
struct GreaterEqual {
  template <class T>
  static bool of(T a, T b) {
    return a >= b;
  }
};

template <class Compare, class T>
Mask compare(Warp& warp, Operand a, Operand b) {
  const T *left = warp.lanes<T>(a), *right = warp.lanes<T>(b);
  std::uint8_t flags[kLanes];
  for (int i = 0; i < kLanes; ++i) flags[i] = Compare::of(left[i], right[i]);
  return to_mask(flags);
}

// The combination of a comparison with a predicate in setp and set: an Operation's immediate.
enum Combine : std::int64_t { kAlone, kAnd, kOr, kXor };

struct Outcome {
  Mask value, complement, defined;
};

// Compares operands `first` and `first` + 1, and combines the result with the predicate after them.
template <class Compare, class T>
Outcome compare_and_combine(Warp& warp, const Instruction& in, std::size_t first) {
  const Operand a = in.operand[first], b = in.operand[first + 1], c = in.operand[first + 2];
  const Mask result = compare<Compare, T>(warp, a, b);
  const Mask defined = warp.defined(a) & warp.defined(b);
  if (in.immediate == kAlone) return {result, ~result, defined};
  const Mask with = negatable(warp, in, c);
  if (in.immediate == kAnd) return {result & with, ~result & with, defined & warp.defined(c)};
  if (in.immediate == kOr) return {result | with, ~result | with, defined & warp.defined(c)};
  return {result ^ with, ~result ^ with, defined & warp.defined(c)};
}

template <class Compare, class T>
void set_predicate(Warp& warp, const Instruction& in, Mask active) {
  const Outcome outcome = compare_and_combine<Compare, T>(warp, in, 2);
  warp.write_predicate(in.operand[0], outcome.value, active);
  warp.define(in.operand[0], active, outcome.defined);
  warp.write_predicate(in.operand[1], outcome.complement, active);
  warp.define(in.operand[1], active, outcome.defined);
}

template <class Compare, class T>
void set_register(Warp& warp, const Instruction& in, Mask active) {
  const Outcome outcome = compare_and_combine<Compare, T>(warp, in, 1);
  u32 values[kLanes];
  for (int i = 0; i < kLanes; ++i) values[i] = outcome.value >> i & 1 ? ~u32{0} : 0;
  warp.write(in.operand[0], values, active);
  warp.define(in.operand[0], active, outcome.defined);
}

template <class Compare, class T>
void add_comparison(Operations& operations, const std::string& name, char kind) {
  const std::string type = "." + type_name<T>(kind);
  const auto add = [&](const std::string& combine, Combine immediate, const std::string& third) {
    const std::string sources = std::string(2, letter<T>()) + third;
    const std::string full = name + combine;
    operations["setp." + full + type] = {set_predicate<Compare, T>, "P_" + sources, immediate};
    operations["setp." + full + type + "|"] = {set_predicate<Compare, T>, "PP" + sources,
                                               immediate};
    for (const char* to : {".u32", ".s32"}) {
      operations["set." + full + to + type] = {set_register<Compare, T>, "W" + sources, immediate};
    }
  };
  add("", kAlone, "");
  add(".and", kAnd, "n");
  add(".or", kOr, "n");
  add(".xor", kXor, "n");
}

// --- Selections.

template <class T>
void select(Warp& warp, const Instruction& in, Mask active) {
  const T *a = warp.lanes<T>(in.operand[1]), *b = warp.lanes<T>(in.operand[2]);
  const Mask chosen = warp.predicate(in.operand[3]);
  T results[kLanes];
  for (int i = 0; i < kLanes; ++i) results[i] = chosen >> i & 1 ? a[i] : b[i];
  warp.write(in.operand[0], results, active);
  const Mask defined =
      (chosen & warp.defined(in.operand[1])) | (~chosen & warp.defined(in.operand[2]));
  warp.define(in.operand[0], active, defined & warp.defined(in.operand[3]));
}

struct SelectBySign {
  template <class T>
  static T of(T a, T b, s32 c) {
    return c >= 0 ? a : b;
  }
};

// --- Logic.

struct Not {
  template <class T>
  static T of(T a) {
    return ~a;
  }
};
struct LogicalNot {
  template <class T>
  static T of(T a) {
    return a == 0;
  }
};

// Computes any function of three bits, as a polynomial over GF(2).
void any_logic(Warp& warp, const Instruction& in, Mask active) {
  auto table = static_cast<u32>(in.immediate);  // bit 4a + 2b + c holds the value at a, b, c
  table ^= table << 1 & 0xaa;
  table ^= table << 2 & 0xcc;
  table ^= table << 4 & 0xf0;  // now bit 4a + 2b + c holds the coefficient of their product
  u32 k[8];
  for (int i = 0; i < 8; ++i) k[i] = 0 - (table >> i & 1);
  const u32 *a = warp.lanes<u32>(in.operand[1]), *b = warp.lanes<u32>(in.operand[2]);
  const u32* c = warp.lanes<u32>(in.operand[3]);
  u32 results[kLanes];
  for (int i = 0; i < kLanes; ++i) {
    const u32 without_a = k[0] ^ (k[1] & c[i]) ^ (b[i] & (k[2] ^ (k[3] & c[i])));
    const u32 with_a = k[4] ^ (k[5] & c[i]) ^ (b[i] & (k[6] ^ (k[7] & c[i])));
    results[i] = without_a ^ (a[i] & with_a);
  }
  warp.write(in.operand[0], results, active);
  warp.define(
      in.operand[0], active,
      warp.defined(in.operand[1]) & warp.defined(in.operand[2]) & warp.defined(in.operand[3]));
}

template <class F>
void predicate_logic(Warp& warp, const Instruction& in, Mask active) {
  const Mask result = F::of(warp.predicate(in.operand[1]), warp.predicate(in.operand[2]));
  warp.write_predicate(in.operand[0], result, active);
  warp.define(in.operand[0], active, warp.defined(in.operand[1]) & warp.defined(in.operand[2]));
}

template <bool kNot>
void predicate_copy(Warp& warp, const Instruction& in, Mask active) {
  const Mask value = warp.predicate(in.operand[1]);
  warp.write_predicate(in.operand[0], kNot ? ~value : value, active);
  warp.define(in.operand[0], active, warp.defined(in.operand[1]));
}

struct Copy {
  template <class T>
  static T of(T a) {
    return a;
  }
};

template <class Whole, class Part>
void pack_parts(Warp& warp, const Instruction& in, Mask active) {
  constexpr int kParts = sizeof(Whole) / sizeof(Part);
  Whole results[kLanes] = {};
  Mask defined = kAllLanes;
  for (int part = 0; part < kParts; ++part) {
    const Part* values = warp.lanes<Part>(in.operand[1 + part]);
    defined &= warp.defined(in.operand[1 + part]);
    for (int i = 0; i < kLanes; ++i) {
      results[i] |= static_cast<Whole>(Whole{values[i]} << (8 * sizeof(Part) * part));
    }
  }
  warp.write(in.operand[0], results, active);
  warp.define(in.operand[0], active, defined);
}

template <class Whole, class Part>
void unpack_parts(Warp& warp, const Instruction& in, Mask active) {
  constexpr int kParts = sizeof(Whole) / sizeof(Part);
  Whole values[kLanes];
  std::memcpy(values, warp.lanes<Whole>(in.operand[kParts]), sizeof values);
  const Mask defined = warp.defined(in.operand[kParts]);
  for (int part = 0; part < kParts; ++part) {
    Part results[kLanes];
    for (int i = 0; i < kLanes; ++i) {
      results[i] = static_cast<Part>(values[i] >> (8 * sizeof(Part) * part));
    }
    warp.write(in.operand[part], results, active);
    warp.define(in.operand[part], active, defined);
  }
}

// --- Conversions.

template <class Register, class T>
void widen_lanes(Warp& warp, Operand from, s64* values) {
  const Register* registers = warp.lanes<Register>(from);
  for (int i = 0; i < kLanes; ++i) values[i] = static_cast<s64>(static_cast<T>(registers[i]));
}

template <class Register, class T>
void narrow_lanes(Warp& warp, Operand to, const s64* values, Mask active) {
  Register results[kLanes];
  for (int i = 0; i < kLanes; ++i) results[i] = static_cast<Register>(static_cast<T>(values[i]));
  warp.write(to, results, active);
}

void convert_lanes(Warp& warp, const Instruction& in, Mask active) {
  s64 values[kLanes];
  in.widen(warp, in.operand[1], values);
  in.narrow(warp, in.operand[0], values, active);
  warp.define(in.operand[0], active, warp.defined(in.operand[1]));
}

}  // namespace

// Returns a handler by data type and register width.
template <template <class, class> class Stage, class Result>
Result by_types(DataType type, int register_bits) {
  Result result = nullptr;
  const auto try_register = [&](auto r) {
    using R = std::remove_reference_t<decltype(r)>;
    if (register_bits != 8 * static_cast<int>(sizeof(R))) return;
    for_types<std::uint8_t, std::int8_t, u16, s16, u32, s32, u64, s64>([&](auto t) {
      using T = decltype(t);
      if constexpr (sizeof(T) <= sizeof(R)) {
        const bool is_signed = type.kind == 's';
        if (type.bits == 8 * static_cast<int>(sizeof(T)) && is_signed == std::is_signed_v<T>) {
          result = Stage<R, T>::handler;
        }
      }
    });
  };
  for_types<u16, u32, u64>(try_register);
  return result;
}

template <class R, class T>
struct WidenStage {
  static constexpr Widen handler = widen_lanes<R, T>;
};
template <class R, class T>
struct NarrowStage {
  static constexpr Narrow handler = narrow_lanes<R, T>;
};

Widen widen(DataType type, int bits) { return by_types<WidenStage, Widen>(type, bits); }
Narrow narrow(DataType type, int bits) { return by_types<NarrowStage, Narrow>(type, bits); }
Handler convert() { return convert_lanes; }

Handler pack(int parts, int bits) {
  if (parts == 2 && bits == 16) return pack_parts<u32, u16>;
  if (parts == 2 && bits == 32) return pack_parts<u64, u32>;
  return parts == 4 && bits == 16 ? pack_parts<u64, u16> : nullptr;
}

Handler unpack(int parts, int bits) {
  if (parts == 2 && bits == 16) return unpack_parts<u32, u16>;
  if (parts == 2 && bits == 32) return unpack_parts<u64, u32>;
  return parts == 4 && bits == 16 ? unpack_parts<u64, u16> : nullptr;
}

void add_comparisons(Operations& operations) {
  for_types<u16, s16, u32, s32, u64, s64>([&](auto zero) {
    using T = decltype(zero);
    const char kind = std::is_signed_v<T> ? 's' : 'u';
    const auto equality = [&](char k) {
      using U = std::make_unsigned_t<T>;
      add_comparison<Equal, U>(operations, "eq", k);
      add_comparison<NotEqual, U>(operations, "ne", k);
    };
    equality(kind);
    add_comparison<Less, T>(operations, "lt", kind);
    add_comparison<LessEqual, T>(operations, "le", kind);
    add_comparison<Greater, T>(operations, "gt", kind);
    add_comparison<GreaterEqual, T>(operations, "ge", kind);
    const std::string selected = {written<T>(), letter<T>(), letter<T>(), 'p'};
    operations["selp." + type_name<T>()] = {select<std::make_unsigned_t<T>>, selected};
    operations["slct." + type_name<T>() + ".s32"] = {map<SelectBySign, T, T, T, s32>,
                                                     {written<T>(), letter<T>(), letter<T>(), 'w'}};
    operations["mov." + type_name<T>()] = {map<Copy, T, T>, {written<T>(), letter<T>()}};
    if constexpr (!std::is_signed_v<T>) {
      equality('b');
      add_comparison<Less, T>(operations, "lo", kind);
      add_comparison<LessEqual, T>(operations, "ls", kind);
      add_comparison<Greater, T>(operations, "hi", kind);
      add_comparison<GreaterEqual, T>(operations, "hs", kind);
      const std::string type = "." + type_name<T>('b');
      operations["selp" + type] = {select<T>, selected};
      operations["slct" + type + ".s32"] = {map<SelectBySign, T, T, T, s32>,
                                            {written<T>(), letter<T>(), letter<T>(), 'w'}};
      const std::string unary = {written<T>(), letter<T>()};
      operations["mov" + type] = {map<Copy, T, T>, unary};
      operations["not" + type] = {map<Not, T, T>, unary};
      operations["cnot" + type] = {map<LogicalNot, T, T>, unary};
      operations["and" + type] = {map<And, T, T, T>, unary + letter<T>()};
      operations["or" + type] = {map<Or, T, T, T>, unary + letter<T>()};
      operations["xor" + type] = {map<Xor, T, T, T>, unary + letter<T>()};
    }
  });
  operations["lop3.b32"] = {any_logic, "Wwwwi"};
  operations["and.pred"] = {predicate_logic<And>, "Ppp"};
  operations["or.pred"] = {predicate_logic<Or>, "Ppp"};
  operations["xor.pred"] = {predicate_logic<Xor>, "Ppp"};
  operations["not.pred"] = {predicate_copy<true>, "Pp"};
  operations["mov.pred"] = {predicate_copy<false>, "Pp"};
}

}  // namespace ptx
