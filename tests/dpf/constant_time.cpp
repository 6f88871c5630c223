// Runs Gen and the tree and leaf steps of Eval with their secrets marked undefined, so that
// valgrind's memcheck reports every branch on them and every address made from them.
//
// LEAK_BRANCH and LEAK_INDEX each add such a mistake, to show that the check can fail.
#include <valgrind/memcheck.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "dpf.h"
#include "dpf_generate.h"
#include "dpf_leaves.h"
#include "dpf_restrict.h"

using namespace morphogen;

namespace {

typedef std::vector<std::uint8_t> Bytes;

template <class T>
void make_secret(T& value) {
  VALGRIND_MAKE_MEM_UNDEFINED(&value, sizeof value);
}

void make_secret(Bytes& bytes, std::size_t from, std::size_t to) {
  VALGRIND_MAKE_MEM_UNDEFINED(bytes.data() + from, to - from);
}

void make_public(Bytes& bytes) { VALGRIND_MAKE_MEM_DEFINED(bytes.data(), bytes.size()); }

// xorshift64*, which gives the same bytes in every run.
std::uint64_t random_state = 0x9e3779b97f4a7c15u;

std::uint64_t random_word() {
  random_state ^= random_state >> 12;
  random_state ^= random_state << 25;
  random_state ^= random_state >> 27;
  return random_state * 0x2545f4914f6cdd1du;
}

Bytes random_bytes(std::size_t size) {
  Bytes bytes(size);
  for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>(random_word() >> 56);
  return bytes;
}

void check(bool good, const char* what, int n) {
  if (good) return;
  std::fprintf(stderr, "n = %d: %s\n", n, what);
  std::exit(1);
}

#if defined(LEAK_BRANCH)
__attribute__((noinline)) void leak(const Bytes& secret) {
  if (secret.back() & 1) std::fprintf(stderr, "a secret bit is set\n");
}
#elif defined(LEAK_INDEX)
__attribute__((noinline)) void leak(const Bytes& secret) {
  static const volatile std::uint8_t table[256] = {};
  static_cast<void>(table[secret.back()]);
}
#else
void leak(const Bytes&) {}
#endif

// Returns the selection bits of leaves [first, first + count).
Bytes expand(const Bytes& key, std::uint64_t first, std::uint64_t count) {
  static NodeLevel nodes;
  KeyTree tree(key.data());
  Bytes bits(count * kLeafBytes);
  expand_leaves(tree, first, count, first + count, nodes, bits.data());
  return bits;
}

// This is not inlined: otherwise memcheck takes old flags for part of a bit test's result.
__attribute__((noinline)) std::uint32_t evaluate(const Bytes& key, std::uint64_t index) {
  return eval_at(key.data(), index);
}

// What Gen gets and makes of one page.
struct Made {
  std::uint64_t index;
  Bytes entropy, keys[2];
};

void check_pair(const std::uint64_t index, Bytes (&keys)[2], int n) {
  // Expand the leaves around the hidden page, or the whole table if it is small.
  const std::uint64_t leaves = std::uint64_t{1} << tree_depth(n);
  const std::uint64_t leaf = index >> kLeafLogBits;
  const std::uint64_t first = leaves <= 2048 ? 0 : leaf < 700 ? 0 : leaf - 700;
  const std::uint64_t count = leaves <= 2048 ? leaves : leaves - first < 1500 ? leaves - first : 1500;
  Bytes shares[2];
  std::uint32_t at_index[2], beside[2];
  for (int party = 0; party < 2; ++party) {
    shares[party] = expand(keys[party], first, count);
    at_index[party] = evaluate(keys[party], index);
    beside[party] = evaluate(keys[party], index ^ (std::uint64_t{1} << (n ? n - 1 : 0)));
    make_public(shares[party]);
    VALGRIND_MAKE_MEM_DEFINED(&at_index[party], sizeof at_index[party]);
    VALGRIND_MAKE_MEM_DEFINED(&beside[party], sizeof beside[party]);
  }

  // Check that this was the true code: both shares differ in the hidden page alone.
  const std::uint64_t page = index - first * kLeafBits;
  for (std::size_t i = 0; i < shares[0].size(); ++i) {
    const unsigned expected = i == page / 8 ? 1u << (page % 8) : 0u;
    check((shares[0][i] ^ shares[1][i]) == expected, "the shares differ elsewhere", n);
  }
  check((at_index[0] ^ at_index[1]) == 1, "Eval at the page", n);
  check((beside[0] ^ beside[1]) == 0 || n == 0, "Eval at another page", n);
  for (int party = 0; party < 2; ++party) {
    make_public(keys[party]);
    check(find_key_fault(keys[party].data(), keys[party].size()) == KeyFault::none, "the key", n);
  }
}

// Runs Gen of some pairs at once with secret indices and secret entropy, then Eval of their keys,
// whose secrets are still marked.
void run_pairs(int count, int n) {
  std::vector<Made> made(count);
  std::vector<KeyPair> pairs;
  for (Made& pair : made) {
    pair = {random_word() & ((std::uint64_t{1} << n) - 1), random_bytes(kEntropyBytes), {}};
    for (Bytes& key : pair.keys) key.resize(key_bytes(n));
    make_secret(pair.entropy, 0, pair.entropy.size());
    bool equal_seeds = seeds_are_equal(pair.entropy.data());
    VALGRIND_MAKE_MEM_DEFINED(&equal_seeds, sizeof equal_seeds);
    check(!equal_seeds, "two random seeds are equal", n);
    pairs.push_back({pair.index, pair.entropy.data(), {pair.keys[0].data(), pair.keys[1].data()}});
    make_secret(pairs.back().index);
  }
  generate_keys(pairs.data(), count, n);
  leak(made.back().keys[0]);
  for (Made& pair : made) check_pair(pair.index, pair.keys, n);
}

// Cuts a key down to the `count` leaves around a page, whose bits are those of the whole key.
void check_restricted(const Bytes& key, std::uint64_t page, int below, const Bytes& bits,
                      std::uint64_t first_leaf, int n) {
  const int log_count = kLeafLogBits + below;
  const std::uint64_t leaf = page >> kLeafLogBits >> below << below;
  Bytes part(key_bytes(log_count));
  restrict_key(key.data(), leaf << kLeafLogBits, log_count, part.data());
  leak(part);
  Bytes own = expand(part, 0, std::uint64_t{1} << below);
  make_public(own);
  for (std::size_t i = 0; i < own.size(); ++i) {
    const std::uint64_t at = leaf * kLeafBytes + i - first_leaf * kLeafBytes;
    check(own[i] == bits[at], "a restricted key's bits", n);
  }
  make_public(part);
  check(find_key_fault(part.data(), part.size()) == KeyFault::none, "the restricted key", n);
}

// Runs Eval of a random key: all but its public fields is secret.
void run_random_key(int n) {
  Bytes key = random_bytes(key_bytes(n));
  const std::uint32_t levels = (std::uint32_t{1} << tree_depth(n)) - 1;
  store_word(key.data(), kMagicWord);
  key[kPartyOffset] &= 1;
  key[kLogPagesOffset] = static_cast<std::uint8_t>(n);
  key[kReservedOffset] = key[kReservedOffset + 1] = 0;
  store_word(key.data() + kControlLeftOffset, load_word(key.data() + kControlLeftOffset) & levels);
  store_word(key.data() + kControlRightOffset, load_word(key.data() + kControlRightOffset) & levels);
  check(find_key_fault(key.data(), key.size()) == KeyFault::none, "the random key", n);

  make_secret(key, kControlLeftOffset, kSaltOffset);
  make_secret(key, kRootSeedOffset, key.size());
  const std::uint64_t leaves = std::uint64_t{1} << tree_depth(n);
  const std::uint64_t count = leaves < 40 ? leaves : 40;
  Bytes bits = expand(key, leaves - count, count);
  leak(key);
  make_public(bits);
  for (int below = 0; below <= 4 && below <= tree_depth(n); ++below)
    check_restricted(key, (leaves - 1) * kLeafBits, below, bits, leaves - count, n);
  for (int i = 0; i < 20; ++i) {
    const std::uint64_t page = random_word() % (count * kLeafBits);
    std::uint32_t bit = 0;
    if (n >= kLeafLogBits) bit = eval_at(key.data(), (leaves - count) * kLeafBits + page);
    VALGRIND_MAKE_MEM_DEFINED(&bit, sizeof bit);
    if (n >= kLeafLogBits)
      check(bit == ((bits[page / 8] >> (page % 8)) & 1u), "Eval and EvalFull differ", n);
  }
}

}  // namespace

int main() {
  // Without valgrind nothing is marked, and nothing would be reported.
  std::printf("%s\n", RUNNING_ON_VALGRIND ? "under valgrind" : "not under valgrind");
  for (int n : {0, 1, 5, 9, 10, 11, 13, 16, 20, 25, 40}) {
    for (int count = 1; count <= kGenPairs; ++count) run_pairs(count, n);
    run_random_key(n);
  }
  std::printf("done\n");
  return 0;
}
