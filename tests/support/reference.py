"""The key format of docs/protocol.md in plain Python: slow, short and independent.

The tests compare the library with this module, so it shares no code with the library. It follows
the numbered steps of the protocol document and nothing else. It branches on secrets, so it must
never make keys that protect anybody.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MAGIC = b"MGK1"
NONCE = b"morphogen/v1"
MAX_N = 40
LEAF_BITS = 512
LEAF_LEVELS = 9  # LEAF_BITS == 1 << LEAF_LEVELS
INNER, LEAF = 0, 1  # the block counters

_MASK32 = 0xFFFFFFFF
_SIGMA = (0x61707865, 0x3320646E, 0x79622D32, 0x6B206574)
_QUARTER_ROUNDS = (
    (0, 4, 8, 12),
    (1, 5, 9, 13),
    (2, 6, 10, 14),
    (3, 7, 11, 15),
    (0, 5, 10, 15),
    (1, 6, 11, 12),
    (2, 7, 8, 13),
    (3, 4, 9, 14),
)


def chacha20_block(key: bytes, counter: int, nonce: bytes) -> bytes:
    """Return the 64-byte ChaCha20 block of RFC 8439, section 2.3."""
    if len(key) != 32 or len(nonce) != 12 or not 0 <= counter <= _MASK32:
        raise ValueError("ChaCha20 takes a 32-byte key, a 32-bit counter and a 12-byte nonce")
    start = [*_SIGMA, *_words(key), counter, *_words(nonce)]
    x = list(start)
    for _ in range(10):
        for a, b, c, d in _QUARTER_ROUNDS:
            x[a] = (x[a] + x[b]) & _MASK32
            x[d] = _rotate_left(x[d] ^ x[a], 16)
            x[c] = (x[c] + x[d]) & _MASK32
            x[b] = _rotate_left(x[b] ^ x[c], 12)
            x[a] = (x[a] + x[b]) & _MASK32
            x[d] = _rotate_left(x[d] ^ x[a], 8)
            x[c] = (x[c] + x[d]) & _MASK32
            x[b] = _rotate_left(x[b] ^ x[c], 7)
    return b"".join(
        ((u + v) & _MASK32).to_bytes(4, "little") for u, v in zip(x, start, strict=True)
    )


def _words(data: bytes) -> list[int]:
    return [int.from_bytes(data[i : i + 4], "little") for i in range(0, len(data), 4)]


def _rotate_left(word: int, count: int) -> int:
    return ((word << count) & _MASK32) | (word >> (32 - count))


def domain_bits(num_pages: int) -> int:
    """Return n, the smallest integer with 2**n >= num_pages."""
    if not 1 <= num_pages <= 1 << MAX_N:
        raise ValueError(f"num_pages must be 1..2**{MAX_N}, got {num_pages}")
    return (num_pages - 1).bit_length()


def tree_depth(n: int) -> int:
    """Return d, the number of tree levels above the leaves."""
    return max(0, n - LEAF_LEVELS)


def key_size(num_pages: int) -> int:
    """Return the length in bytes of each key for a table of num_pages pages."""
    return 112 + 16 * tree_depth(domain_bits(num_pages))


def prg(seed: bytes, salt: bytes, counter: int) -> bytes:
    """Return the 64 bytes that a node's seed expands to: counter INNER or LEAF."""
    return chacha20_block(seed + salt, counter, NONCE)


def split_inner(block: bytes) -> tuple[tuple[bytes, bytes], tuple[int, int]]:
    """Return an inner block's (left, right) seeds and (left, right) control bits."""
    return (block[0:16], block[16:32]), (block[32] & 1, block[33] & 1)


def xor(x: bytes, y: bytes) -> bytes:
    """Return the XOR of two byte strings of equal length."""
    return bytes(u ^ v for u, v in zip(x, y, strict=True))


def gen(index: int, num_pages: int, entropy: bytes) -> tuple[bytes, bytes]:
    """Return both parties' keys for one page; entropy is seed0 | seed1 | salt, 48 bytes."""
    n = domain_bits(num_pages)
    d = tree_depth(n)
    if not 0 <= index < num_pages:
        raise ValueError(f"index must be 0..{num_pages - 1}, got {index}")
    if len(entropy) != 48:
        raise ValueError(f"entropy must be 48 bytes, got {len(entropy)}")
    roots, salt = (entropy[0:16], entropy[16:32]), entropy[32:48]
    if roots[0] == roots[1]:
        raise ValueError("the two seeds are equal: the keys would show the page")

    seeds, controls = roots, (0, 1)
    seed_corrections = []
    control_left = control_right = 0
    for level in range(d):
        a = (index >> LEAF_LEVELS) >> (d - 1 - level) & 1
        child0, t0 = split_inner(prg(seeds[0], salt, INNER))
        child1, t1 = split_inner(prg(seeds[1], salt, INNER))
        correction = xor(child0[1 - a], child1[1 - a])
        bits = (t0[0] ^ t1[0] ^ a ^ 1, t0[1] ^ t1[1] ^ a)
        seeds = (
            xor(child0[a], correction) if controls[0] else child0[a],
            xor(child1[a], correction) if controls[1] else child1[a],
        )
        controls = (t0[a] ^ (controls[0] & bits[a]), t1[a] ^ (controls[1] & bits[a]))
        seed_corrections.append(correction)
        control_left |= bits[0] << level
        control_right |= bits[1] << level

    unit = (1 << (index % LEAF_BITS)).to_bytes(LEAF_BITS // 8, "little")
    leaf_correction = xor(xor(prg(seeds[0], salt, LEAF), prg(seeds[1], salt, LEAF)), unit)

    key0, key1 = (
        MAGIC
        + bytes([party, n, 0, 0])
        + control_left.to_bytes(4, "little")
        + control_right.to_bytes(4, "little")
        + salt
        + roots[party]
        + b"".join(seed_corrections)
        + leaf_correction
        for party in (0, 1)
    )
    return key0, key1


@dataclass(frozen=True)
class Key:
    """The fields of one party's key."""

    party: int
    n: int
    control_left: int
    control_right: int
    salt: bytes
    seed: bytes
    seed_corrections: tuple[bytes, ...]
    leaf_correction: bytes

    @property
    def depth(self) -> int:
        """Return d, the number of tree levels above the leaves."""
        return len(self.seed_corrections)


def parse_key(key: bytes) -> Key:
    """Return the fields of a key; raise ValueError for every key that the format forbids."""
    if len(key) < 112:
        raise ValueError(f"a key has at least 112 bytes, got {len(key)}")
    if key[0:4] != MAGIC:
        raise ValueError(f"a key starts with {MAGIC!r}, got {key[0:4]!r}")
    party, n = key[4], key[5]
    if party > 1:
        raise ValueError(f"party must be 0 or 1, got {party}")
    if n > MAX_N:
        raise ValueError(f"n must be 0..{MAX_N}, got {n}")
    if key[6:8] != b"\0\0":
        raise ValueError(f"bytes 6 and 7 must be zero, got {key[6:8].hex()}")
    d = tree_depth(n)
    if len(key) != 112 + 16 * d:
        raise ValueError(f"a key with n = {n} has {112 + 16 * d} bytes, got {len(key)}")
    control_left = int.from_bytes(key[8:12], "little")
    control_right = int.from_bytes(key[12:16], "little")
    if control_left >> d or control_right >> d:
        raise ValueError(f"a control correction has a bit at level {d} or above")
    return Key(
        party=party,
        n=n,
        control_left=control_left,
        control_right=control_right,
        salt=key[16:32],
        seed=key[32:48],
        seed_corrections=tuple(key[48 + 16 * i : 64 + 16 * i] for i in range(d)),
        leaf_correction=key[48 + 16 * d : 112 + 16 * d],
    )


def _parse_for(key: bytes, num_pages: int) -> Key:
    parsed = parse_key(key)
    n = domain_bits(num_pages)
    if parsed.n != n:
        raise ValueError(f"the table has n = {n}, the key has n = {parsed.n}")
    return parsed


def step(key: Key, level: int, seed: bytes, control: int) -> tuple[tuple[bytes, int], ...]:
    """Return (seed, control bit) of the left and of the right child of a node at a level."""
    (left, right), (t_left, t_right) = split_inner(prg(seed, key.salt, INNER))
    if control:
        left = xor(left, key.seed_corrections[level])
        right = xor(right, key.seed_corrections[level])
        t_left ^= key.control_left >> level & 1
        t_right ^= key.control_right >> level & 1
    return (left, t_left), (right, t_right)


def node(key: bytes, depth: int, position: int) -> tuple[bytes, int]:
    """Return (seed, control bit) of the node at a depth, counted from the left from 0."""
    parsed = parse_key(key)
    seed, control = parsed.seed, parsed.party
    for level in range(depth):
        seed, control = step(parsed, level, seed, control)[position >> (depth - 1 - level) & 1]
    return seed, control


def leaf_bits(key: Key, seed: bytes, control: int) -> bytes:
    """Return the 64 bytes of selection bits of a node at depth d."""
    block = prg(seed, key.salt, LEAF)
    return xor(block, key.leaf_correction) if control else block


def eval_at(key: bytes, index: int, num_pages: int) -> int:
    """Return one party's selection bit of one page."""
    parsed = _parse_for(key, num_pages)
    if not 0 <= index < num_pages:
        raise ValueError(f"index must be 0..{num_pages - 1}, got {index}")
    bits = leaf_bits(parsed, *node(key, parsed.depth, index >> LEAF_LEVELS))
    j = index % LEAF_BITS
    return bits[j >> 3] >> (j & 7) & 1


def eval_full(key: bytes, num_pages: int) -> bytes:
    """Return one party's selection bits of all pages, packed in ceil(num_pages / 8) bytes."""
    parsed = _parse_for(key, num_pages)
    nodes = [(parsed.seed, parsed.party)]
    for level in range(parsed.depth):
        nodes = [child for parent in nodes for child in step(parsed, level, *parent)]
        pages_below = LEAF_BITS << (parsed.depth - 1 - level)
        nodes = nodes[: -(-num_pages // pages_below)]
    packed = bytearray(b"".join(leaf_bits(parsed, *leaf) for leaf in nodes))
    del packed[-(-num_pages // 8) :]
    if num_pages % 8:
        packed[-1] &= (1 << num_pages % 8) - 1
    return bytes(packed)


def restrict(key: bytes, first: int, count: int, num_pages: int) -> bytes:
    """Return the key of pages first to first + count - 1, which are the first below one node."""
    parsed = _parse_for(key, num_pages)
    n = domain_bits(count)
    if not 0 <= first < first + count <= num_pages or first % max(LEAF_BITS, 1 << n):
        raise ValueError(f"no node covers {count} pages from {first} on")
    walked = parsed.depth - tree_depth(n)
    seed, control = node(key, walked, first // (LEAF_BITS << tree_depth(n)))
    return (
        MAGIC
        + bytes([control, n, 0, 0])
        + (parsed.control_left >> walked).to_bytes(4, "little")
        + (parsed.control_right >> walked).to_bytes(4, "little")
        + parsed.salt
        + seed
        + b"".join(parsed.seed_corrections[walked:])
        + parsed.leaf_correction
    )


def answer(pages: Sequence[bytes], key: bytes) -> bytes:
    """Return the XOR of the pages that a key selects; all pages have one length."""
    bits = eval_full(key, len(pages))
    total = bytes(len(pages[0]))
    for i, page in enumerate(pages):
        if bits[i >> 3] >> (i & 7) & 1:
            total = xor(total, page)
    return total
