// Loads, stores and atomics. Each lane's address is checked and becomes a host pointer.
#include <type_traits>

#include "ptx_lanes.h"
#include "ptx_operations.h"
#include "ptx_text.h"

namespace ptx {
namespace {

using Bytes = std::uint8_t;

enum class Use { load, store, update };  // an atomic makes an update

// The host memory of the lanes' accesses.
struct Pointers {
  Bytes* lane[kLanes];
  // True if all lanes' bytes lie side by side. Then only lane 0's pointer is set.
  bool contiguous = false;
  Mask defined = kAllLanes;  // only local memory may give undefined values without an error
};

struct Addresses {
  u64 lane[kLanes];
  Mask active;
};

Addresses addresses_of(Warp& warp, const Instruction& in, Mask active) {
  const Operand operand = in.operand[0];
  warp.require(operand, active, "an address");
  Addresses addresses;
  addresses.active = active;
  const auto offset = static_cast<u64>(in.immediate);
  if (in.wide_address) {
    const u64* base = warp.lanes<u64>(operand);
    for (int i = 0; i < kLanes; ++i) addresses.lane[i] = base[i] + offset;
  } else {
    const u32* base = warp.lanes<u32>(operand);
    for (int i = 0; i < kLanes; ++i) addresses.lane[i] = u64{base[i]} + offset;
  }
  return addresses;
}

template <class F>
void for_lanes(Mask lanes, F f) {
  for (; lanes; lanes &= lanes - 1) f(__builtin_ctz(lanes));
}

// Adds the lane's number to an error of f.
template <class F>
auto in_lane(int lane, F f) {
  try {
    return f();
  } catch (const Error& error) {
    throw Fault{lane, error.what()};
  }
}

Space space_at(u64 address) {
  switch (address / kWindowBytes * kWindowBytes) {
    case kSharedWindow: return Space::shared;
    case kLocalWindow: return Space::local;
    case kParamWindow: return Space::param;
    case kConstWindow: return Space::constant;
    default: return Space::global;
  }
}

// Returns `bytes` bytes of an array of `size` at `base`. Throws if they do not lie inside.
Bytes* within(u64 base, Bytes* array, std::size_t size, u64 address, std::size_t bytes,
              const char* space) {
  if (address < base || address - base > size || size - (address - base) < bytes) {
    throw Error(std::string(space) + " memory access out of bounds: address " + to_hex(address) +
                ", " + std::to_string(size) + " bytes from " + to_hex(base));
  }
  return array + (address - base);
}

// Returns the bytes of an access to a module's variable.
Bytes* in_variables(Warp& warp, u64 address, std::size_t bytes, bool write) {
  for (Variable& variable : *warp.block.launch.kernel.variables) {
    if (address - variable.address < variable.bytes.size()) {
      if (write && variable.space == Space::constant) throw Error("store to constant memory");
      return within(variable.address, variable.bytes.data(), variable.bytes.size(), address, bytes,
                    "module");
    }
  }
  throw Error("no variable has address " + to_hex(address));
}

void find_global(Warp& warp, const Addresses& at, std::size_t bytes, bool write, Pointers& to) {
  Memory& memory = warp.block.launch.memory;
  u64 low = ~u64{0}, high = 0;
  for_lanes(at.active, [&](int i) {
    low = at.lane[i] < low ? at.lane[i] : low;
    high = at.lane[i] > high ? at.lane[i] : high;
  });
  const bool variables = low >= kGlobalVariableWindow || high >= kGlobalVariableWindow;
  if (!variables) {
    // Usually all lanes access one allocation, and one look-up serves all of them.
    try {
      auto* start = static_cast<Bytes*>(memory.access(low, high - low + bytes, write));
      for_lanes(at.active, [&](int i) { to.lane[i] = start + (at.lane[i] - low); });
      return;
    } catch (const Error&) {
    }
  }
  for_lanes(at.active, [&](int i) {
    to.lane[i] = in_lane(i, [&] {
      return at.lane[i] >= kGlobalVariableWindow
                 ? in_variables(warp, at.lane[i], bytes, write)
                 : static_cast<Bytes*>(memory.access(at.lane[i], bytes, write));
    });
  });
}

void find_shared(Warp& warp, const Instruction& in, const Addresses& at, Use use, Pointers& to) {
  Block& block = warp.block;
  const Access access = use == Use::update ? Access::update
                        : use == Use::store
                            ? (in.strong ? Access::strong_write : Access::weak_write)
                        : in.strong ? Access::strong_read
                                    : Access::weak_read;
  u64 previous = ~u64{0};
  Bytes* pointer = nullptr;
  for_lanes(at.active, [&](int i) {
    if (at.lane[i] != previous) {
      previous = at.lane[i];
      pointer = in_lane(i, [&] {
        return block.shared.access(previous, in.bytes, access, warp.number, warp.clocks,
                                   block.time);
      });
    }
    to.lane[i] = pointer;
  });
}

void find_local(Warp& warp, const Instruction& in, const Addresses& at, bool write, Pointers& to) {
  const std::size_t size = warp.block.launch.kernel.local_bytes;
  for_lanes(at.active, [&](int i) {
    Bytes* start = warp.local.data() + static_cast<std::size_t>(i) * size;
    to.lane[i] = in_lane(
        i, [&] { return within(kLocalWindow, start, size, at.lane[i], in.bytes, "local"); });
    Bytes* flags = warp.local_defined.data() + (to.lane[i] - warp.local.data());
    if (write) {
      std::memset(flags, 1, in.bytes);
    } else if (std::memchr(flags, 0, in.bytes)) {
      to.defined &= ~(Mask{1} << i);
    }
  });
}

void find(Warp& warp, const Instruction& in, Space space, const Addresses& at, Use use,
          Pointers& to) {
  Launch& launch = warp.block.launch;
  const bool write = use != Use::load;
  switch (space) {
    case Space::global:
      find_global(warp, at, in.bytes, write, to);
      if (!write) {
        launch.statistics.global_load_bytes +=
            static_cast<u64>(__builtin_popcount(at.active)) * in.bytes;
      }
      break;
    case Space::shared: find_shared(warp, in, at, use, to); break;
    case Space::local:
      if (use == Use::update) fault(at.active, "atomic on local memory");
      find_local(warp, in, at, write, to);
      break;
    case Space::param:
      if (write) fault(at.active, "store to a kernel's parameters");
      for_lanes(at.active, [&](int i) {
        to.lane[i] = in_lane(i, [&] {
          return within(kParamWindow, launch.parameters.data(), launch.parameters.size(),
                        at.lane[i], in.bytes, "parameter");
        });
      });
      break;
    case Space::constant:
      for_lanes(at.active, [&](int i) {
        to.lane[i] = in_lane(i, [&] { return in_variables(warp, at.lane[i], in.bytes, write); });
      });
      break;
    case Space::generic:
      for (Mask rest = at.active; rest;) {
        const Space first = space_at(at.lane[__builtin_ctz(rest)]);
        Addresses part = at;
        part.active = 0;
        for_lanes(rest, [&](int i) {
          if (space_at(at.lane[i]) != first) return;
          part.active |= Mask{1} << i;
          if (first == Space::shared) part.lane[i] -= kSharedWindow;
        });
        rest &= ~part.active;
        find(warp, in, first, part, use, to);
      }
      break;
  }
}

Pointers resolve(Warp& warp, const Instruction& in, Mask active, Use use) {
  const Addresses at = addresses_of(warp, in, active);
  u64 misaligned = 0;
  for_lanes(active, [&](int i) { misaligned |= at.lane[i]; });
  if (misaligned & (in.bytes - 1)) {
    for_lanes(active, [&](int i) {
      if (at.lane[i] & (in.bytes - 1)) {
        fault(Mask{1} << i, "address " + to_hex(at.lane[i]) + " is not aligned to " +
                                std::to_string(in.bytes) + " bytes");
      }
    });
  }
  Pointers to;
  Space space = in.space;
  if (space == Space::param) {
    // The parameters of a called function lie in local memory.
    for_lanes(active, [&](int i) {
      const Space found = space_at(at.lane[i]);
      if (found != Space::param && found != Space::local) {
        fault(Mask{1} << i, "address " + to_hex(at.lane[i]) + " is not a parameter's");
      }
    });
    space = Space::generic;
  }
  if (space == Space::global && active == kAllLanes) {
    u64 differences = 0;
    for (int i = 0; i < kLanes; ++i) {
      differences |= at.lane[i] ^ (at.lane[0] + static_cast<u64>(i) * in.bytes);
    }
    if (!differences && at.lane[0] < kGlobalVariableWindow) {
      const std::size_t total = std::size_t{in.bytes} * kLanes;
      try {
        to.lane[0] = static_cast<Bytes*>(
            warp.block.launch.memory.access(at.lane[0], total, use != Use::load));
        to.contiguous = true;
        if (use == Use::load) warp.block.launch.statistics.global_load_bytes += total;
        return to;
      } catch (const Error&) {
        // find() tells which lane is at fault.
      }
    }
  }
  find(warp, in, space, at, use, to);
  return to;
}

// T is the type in memory, R the register's. The operands are the address, then kCount values.
template <class T, class R, int kCount>
void load_lanes(Warp& warp, const Instruction& in, Mask active) {
  const Pointers from = resolve(warp, in, active, Use::load);
  R results[kCount][kLanes];
  if (from.contiguous) {
    T values[kLanes][kCount];
    std::memcpy(values, from.lane[0], sizeof values);
    for (int k = 0; k < kCount; ++k) {
      for (int i = 0; i < kLanes; ++i) results[k][i] = static_cast<R>(values[i][k]);
    }
  } else {
    for_lanes(active, [&](int i) {
      T values[kCount];
      std::memcpy(values, from.lane[i], sizeof values);
      for (int k = 0; k < kCount; ++k) results[k][i] = static_cast<R>(values[k]);
    });
  }
  for (int k = 0; k < kCount; ++k) {
    warp.write(in.operand[1 + k], results[k], active);
    warp.define(in.operand[1 + k], active, from.defined);
  }
}

template <class T, class R, int kCount>
void store_lanes(Warp& warp, const Instruction& in, Mask active) {
  const R* registers[kCount];
  Mask defined = kAllLanes;
  for (int k = 0; k < kCount; ++k) {
    registers[k] = warp.lanes<R>(in.operand[1 + k]);
    defined &= warp.defined(in.operand[1 + k]);
  }
  const Pointers to = resolve(warp, in, active, Use::store);
  T values[kLanes][kCount];
  for (int k = 0; k < kCount; ++k) {
    for (int i = 0; i < kLanes; ++i) values[i][k] = static_cast<T>(registers[k][i]);
  }
  if (const Mask bad = active & ~defined) {
    const Addresses at = addresses_of(warp, in, active);
    for_lanes(bad, [&](int i) {
      if (space_at(at.lane[i]) != Space::local) {
        fault(Mask{1} << i, "store of an undefined value");
      }
      std::memset(warp.local_defined.data() + (to.lane[i] - warp.local.data()), 0, in.bytes);
    });
  }
  if (to.contiguous) {
    std::memcpy(to.lane[0], values, sizeof values);
    return;
  }
  for_lanes(active, [&](int i) { std::memcpy(to.lane[i], values[i], sizeof values[i]); });
  // If several lanes store to one place, PTX does not define which value stays.
  for_lanes(active, [&](int i) {
    if (std::memcmp(to.lane[i], values[i], sizeof values[i]) != 0) {
      fault(Mask{1} << i, "lanes store different values to the same place");
    }
  });
}

// --- Atomics.

struct Exchange {
  template <class T>
  static T of(T, T b) {
    return b;
  }
};
struct Increment {
  template <class T>
  static T of(T a, T b) {
    return a >= b ? 0 : a + 1;
  }
};
struct Decrement {
  template <class T>
  static T of(T a, T b) {
    return a == 0 || a > b ? b : a - 1;
  }
};
struct CompareAndSwap {
  template <class T>
  static T of(T a, T b, T c) {
    return a == b ? c : a;
  }
};

// Operands: address, destination, value, and a second value for compare-and-swap. Lanes follow each
// other in an order that differs each time. Other launches may use the memory at the same time.
template <class F, class T, bool kSwap>
void atomic_lanes(Warp& warp, const Instruction& in, Mask active) {
  using U = std::make_unsigned_t<T>;
  warp.require(in.operand[2], active, "an atomic's operand");
  if (kSwap) warp.require(in.operand[3], active, "an atomic's operand");
  const Pointers to = resolve(warp, in, active, Use::update);
  const T *b = warp.lanes<T>(in.operand[2]), *c = warp.lanes<T>(in.operand[3]);
  const int first = static_cast<int>(warp.block.launch.random.below(kLanes));
  U results[kLanes] = {};
  for (int k = 0; k < kLanes; ++k) {
    const int i = (first + k) % kLanes;
    if (!(active >> i & 1)) continue;
    U* place =
        reinterpret_cast<U*>(to.contiguous ? to.lane[0] + std::size_t(i) * sizeof(U) : to.lane[i]);
    U old = __atomic_load_n(place, __ATOMIC_SEQ_CST);
    U wanted;
    do {
      if constexpr (kSwap) {
        wanted = static_cast<U>(F::of(static_cast<T>(old), b[i], c[i]));
      } else {
        wanted = static_cast<U>(F::of(static_cast<T>(old), b[i]));
      }
    } while (!__atomic_compare_exchange_n(place, &old, wanted, false, __ATOMIC_SEQ_CST,
                                          __ATOMIC_SEQ_CST));
    results[i] = old;
  }
  warp.write(in.operand[1], results, active);
  warp.define(in.operand[1], active, kAllLanes);
}

// Prefetches do nothing, and take any address, as on a GPU.
void prefetch_lanes(Warp& warp, const Instruction& in, Mask active) {
  warp.require(in.operand[0], active, "an address");
}

// --- Address spaces. Only shared addresses differ from generic ones.

void make_generic(Warp& warp, const Instruction& in, Mask active) {
  const u64* from = warp.lanes<u64>(in.operand[1]);
  u64 results[kLanes];
  const u64 base = in.space == Space::shared ? kSharedWindow : 0;
  for (int i = 0; i < kLanes; ++i) results[i] = from[i] + base;
  warp.write(in.operand[0], results, active);
  warp.define(in.operand[0], active, warp.defined(in.operand[1]));
}

void make_specific(Warp& warp, const Instruction& in, Mask active) {
  const u64* from = warp.lanes<u64>(in.operand[1]);
  u64 results[kLanes];
  const u64 base = in.space == Space::shared ? kSharedWindow : 0;
  const Mask defined = warp.defined(in.operand[1]);
  for (int i = 0; i < kLanes; ++i) results[i] = from[i] - base;
  for_lanes(active & defined, [&](int i) {
    if (space_at(from[i]) != in.space) {
      fault(Mask{1} << i, "address " + to_hex(from[i]) + " is not in that state space");
    }
  });
  warp.write(in.operand[0], results, active);
  warp.define(in.operand[0], active, defined);
}

void test_space(Warp& warp, const Instruction& in, Mask active) {
  const u64* from = warp.lanes<u64>(in.operand[1]);
  Mask result = 0;
  for (int i = 0; i < kLanes; ++i) result |= Mask{space_at(from[i]) == in.space} << i;
  warp.write_predicate(in.operand[0], result, active);
  warp.define(in.operand[0], active, warp.defined(in.operand[1]));
}

template <class T, class R>
Handler load_of(int count) {
  if (count == 1) return load_lanes<T, R, 1>;
  if (count == 2) return load_lanes<T, R, 2>;
  return count == 4 && sizeof(T) <= 4 ? load_lanes<T, R, 4> : nullptr;
}

template <class T, class R>
Handler store_of(int count) {
  if (count == 1) return store_lanes<T, R, 1>;
  if (count == 2) return store_lanes<T, R, 2>;
  return count == 4 && sizeof(T) <= 4 ? store_lanes<T, R, 4> : nullptr;
}

// Calls f(T, R) for the types of that name. The register may be wider than the type in memory.
template <class F>
void by_types(DataType type, int register_bits, F f) {
  for_types<std::uint8_t, std::int8_t, u16, s16, u32, s32, u64, s64>([&](auto t) {
    using T = std::remove_reference_t<decltype(t)>;
    const bool is_signed = type.kind == 's';
    if (type.bits != 8 * static_cast<int>(sizeof(T)) || is_signed != std::is_signed_v<T>) return;
    if constexpr (sizeof(T) <= 2) {
      if (register_bits == 16) f(T{}, u16{});
    }
    if constexpr (sizeof(T) <= 4) {
      if (register_bits == 32) f(T{}, u32{});
    }
    if (register_bits == 64) f(T{}, u64{});
  });
}

template <class T>
Handler atomic_of(const std::string& operation, bool bits_only) {
  constexpr bool kSigned = std::is_signed_v<T>;
  if constexpr (!kSigned) {
    if (bits_only) {
      if (operation == "and") return atomic_lanes<And, T, false>;
      if (operation == "or") return atomic_lanes<Or, T, false>;
      if (operation == "xor") return atomic_lanes<Xor, T, false>;
      if (operation == "exch") return atomic_lanes<Exchange, T, false>;
      if (operation == "cas") return atomic_lanes<CompareAndSwap, T, true>;
      return nullptr;
    }
    if (operation == "add") return atomic_lanes<Add, T, false>;
    if (operation == "inc" && sizeof(T) == 4) return atomic_lanes<Increment, T, false>;
    if (operation == "dec" && sizeof(T) == 4) return atomic_lanes<Decrement, T, false>;
  }
  if (operation == "add" && sizeof(T) == 4) return atomic_of<u32>("add", false);
  if (operation == "min") return atomic_lanes<Minimum, T, false>;
  if (operation == "max") return atomic_lanes<Maximum, T, false>;
  return nullptr;
}

}  // namespace

Handler load(DataType type, int register_bits, int count) {
  Handler handler = nullptr;
  by_types(type, register_bits,
           [&](auto t, auto r) { handler = load_of<decltype(t), decltype(r)>(count); });
  return handler;
}

Handler store(DataType type, int register_bits, int count) {
  Handler handler = nullptr;
  by_types(type, register_bits, [&](auto t, auto r) {
    handler = store_of<std::make_unsigned_t<decltype(t)>, decltype(r)>(count);
  });
  return handler;
}

Handler atomic(const std::string& operation, DataType type) {
  const bool bits_only = type.kind == 'b';
  if (type.kind == 's' && type.bits == 32) return atomic_of<s32>(operation, bits_only);
  if (type.kind == 's' && type.bits == 64) return atomic_of<s64>(operation, bits_only);
  if (type.bits == 32) return atomic_of<u32>(operation, bits_only);
  return type.bits == 64 ? atomic_of<u64>(operation, bits_only) : nullptr;
}

Handler prefetch() { return prefetch_lanes; }
Handler to_generic() { return make_generic; }
Handler from_generic() { return make_specific; }
Handler is_space() { return test_space; }

}  // namespace ptx
