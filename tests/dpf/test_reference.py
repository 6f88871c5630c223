"""Compare support/reference.py with the vectors, RFC 8439, `cryptography` and docs/protocol.md."""

from __future__ import annotations

import hashlib
import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

import reference as ref

TESTS = Path(__file__).resolve().parents[1]
VECTORS = json.loads((TESTS / "vectors" / "dpf_v1.json").read_text(encoding="utf-8"))
PROTOCOL = TESTS.parent / "docs" / "protocol.md"

each_vector = pytest.mark.parametrize(
    "vector", VECTORS["keys"], ids=lambda v: f"{v['num_pages']}-{v['index']}"
)


def library_block(key: bytes, counter: int, nonce: bytes) -> bytes:
    """Return the ChaCha20 block as `cryptography` computes it."""
    cipher = Cipher(algorithms.ChaCha20(key, counter.to_bytes(4, "little") + nonce), mode=None)
    return cipher.encryptor().update(bytes(64))


def test_vectors_are_there() -> None:
    assert VECTORS["format"] == "morphogen key v1"
    assert len(VECTORS["keys"]) == 9


def test_chacha20_block_rfc_8439() -> None:
    v = VECTORS["chacha20_block"]
    key, nonce = bytes.fromhex(v["key"]), bytes.fromhex(v["nonce"])
    assert ref.chacha20_block(key, v["counter"], nonce).hex() == v["block"]


def test_chacha20_block_cryptography() -> None:
    rng = random.Random(8439)
    for counter in (0, 1, 2, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF):
        for _ in range(20):
            key, nonce = rng.randbytes(32), rng.randbytes(12)
            assert ref.chacha20_block(key, counter, nonce) == library_block(key, counter, nonce)


@pytest.mark.parametrize(
    ("key_bytes", "counter", "nonce_bytes"),
    [(31, 0, 12), (33, 0, 12), (32, -1, 12), (32, 1 << 32, 12), (32, 0, 8), (32, 0, 16)],
)
def test_chacha20_block_bad_input(key_bytes: int, counter: int, nonce_bytes: int) -> None:
    with pytest.raises(ValueError, match="ChaCha20"):
        ref.chacha20_block(bytes(key_bytes), counter, bytes(nonce_bytes))


@each_vector
def test_gen_makes_the_vectors_keys(vector: dict[str, Any]) -> None:
    entropy = bytes.fromhex(vector["seed0"] + vector["seed1"] + vector["salt"])
    keys = ref.gen(vector["index"], vector["num_pages"], entropy)
    assert keys == (bytes.fromhex(vector["key0"]), bytes.fromhex(vector["key1"]))


@each_vector
def test_eval_of_the_vectors_keys(vector: dict[str, Any]) -> None:
    num_pages, index = vector["num_pages"], vector["index"]
    bits = []
    for party in (0, 1):
        key = bytes.fromhex(vector[f"key{party}"])
        assert len(key) == ref.key_size(num_pages)
        packed = ref.eval_full(key, num_pages)
        assert len(packed) == -(-num_pages // 8)
        assert hashlib.sha256(packed).hexdigest() == vector[f"bits{party}_sha256"]
        sample = {0, index, num_pages - 1, *random.Random(index).choices(range(num_pages), k=20)}
        for x in sample:
            assert ref.eval_at(key, x, num_pages) == packed[x >> 3] >> (x & 7) & 1
        bits.append(int.from_bytes(packed, "little"))
    assert bits[0] ^ bits[1] == 1 << index


@pytest.mark.parametrize("num_pages", [1, 2, 7, 8, 9, 511, 512, 513, 1023, 1024, 1025, 1537, 3000])
def test_shares_differ_in_one_bit(num_pages: int) -> None:
    rng = random.Random(num_pages)
    for index in {0, num_pages // 2, num_pages - 1, rng.randrange(num_pages)}:
        key0, key1 = ref.gen(index, num_pages, rng.randbytes(48))
        differing = [i for i, (x, y) in enumerate(zip(key0, key1, strict=True)) if x != y]
        assert {4} <= set(differing) <= {4, *range(32, 48)}
        share0 = int.from_bytes(ref.eval_full(key0, num_pages), "little")
        share1 = int.from_bytes(ref.eval_full(key1, num_pages), "little")
        assert share0 ^ share1 == 1 << index
        assert share0 < 1 << num_pages


def test_the_largest_table() -> None:
    num_pages = 1 << 40
    index = 0xA5_1234_5678
    key0, key1 = ref.gen(index, num_pages, random.Random(40).randbytes(48))
    assert len(key0) == len(key1) == ref.key_size(num_pages) == 608
    for x in (0, index - 1, index, index + 1, index ^ 1 << 39, num_pages - 1):
        differs = ref.eval_at(key0, x, num_pages) ^ ref.eval_at(key1, x, num_pages)
        assert differs == (x == index)


def test_answers_reconstruct_the_page() -> None:
    rng = random.Random(1)
    pages = [rng.randbytes(5) for _ in range(600)]
    for index in (0, 511, 512, 599):
        key0, key1 = ref.gen(index, len(pages), rng.randbytes(48))
        assert ref.xor(ref.answer(pages, key0), ref.answer(pages, key1)) == pages[index]


def test_gen_bad_input() -> None:
    entropy = bytes(range(48))
    for num_pages in (0, -1, (1 << 40) + 1):
        with pytest.raises(ValueError, match="num_pages"):
            ref.gen(0, num_pages, entropy)
    for index in (-1, 1025):
        with pytest.raises(ValueError, match="index"):
            ref.gen(index, 1025, entropy)
    for length in (0, 47, 49):
        with pytest.raises(ValueError, match="entropy"):
            ref.gen(0, 1025, bytes(length))
    with pytest.raises(ValueError, match="equal"):
        ref.gen(0, 1025, bytes(16) * 2 + bytes(range(16)))


def altered(key: bytes, offset: int, value: int) -> bytes:
    """Return the key with one byte replaced."""
    return key[:offset] + bytes([value]) + key[offset + 1 :]


def test_parser_rejects() -> None:
    key, _ = ref.gen(700, 1025, bytes(range(48)))
    assert ref.parse_key(key).depth == 2
    for length in (0, 1, 111, 112, 128, 143):
        with pytest.raises(ValueError, match="bytes"):
            ref.parse_key(key[:length])
    with pytest.raises(ValueError, match="bytes"):
        ref.parse_key(key + b"\0")
    for offset in range(4):
        with pytest.raises(ValueError, match="starts with"):
            ref.parse_key(altered(key, offset, key[offset] ^ 1))
    for party in (2, 128, 255):
        with pytest.raises(ValueError, match="party"):
            ref.parse_key(altered(key, 4, party))
    for n in (41, 255):
        with pytest.raises(ValueError, match="n must be"):
            ref.parse_key(altered(key, 5, n))
    for n in (0, 9, 10, 12, 40):
        with pytest.raises(ValueError, match="144"):
            ref.parse_key(altered(key, 5, n))
    for offset in (6, 7):
        with pytest.raises(ValueError, match="zero"):
            ref.parse_key(altered(key, offset, 1))
    for word in (8, 12):
        for bit in range(2, 32):
            offset = word + bit // 8
            with pytest.raises(ValueError, match="control"):
                ref.parse_key(altered(key, offset, key[offset] | 1 << bit % 8))


def test_parser_accepts_any_seed_and_correction() -> None:
    for fill in (b"\0", b"\xff"):
        key = b"MGK1\x01\x0b\0\0" + b"\x03\0\0\0" * 2 + fill * 128
        assert len(ref.eval_full(key, 1025)) == 129


def test_key_for_another_table() -> None:
    key, _ = ref.gen(0, 1025, bytes(range(48)))
    for num_pages in (1, 512, 1024, 2049):
        with pytest.raises(ValueError, match="the key has n = 11"):
            ref.eval_full(key, num_pages)
        with pytest.raises(ValueError, match="the key has n = 11"):
            ref.eval_at(key, 0, num_pages)


# docs/protocol.md


def test_document_size_table() -> None:
    rows = re.findall(
        r"^\| (\d+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$",
        PROTOCOL.read_text(encoding="utf-8"),
        flags=re.MULTILINE,
    )
    assert len(rows) == 10
    for row in rows:
        num_pages, *rest = map(int, row)
        n = ref.domain_bits(num_pages)
        d = ref.tree_depth(n)
        assert rest == [n, d, 1 << d, -(-num_pages // 512), ref.key_size(num_pages)]
        assert 2**n >= num_pages
        assert n == 0 or 2 ** (n - 1) < num_pages


def document_example() -> dict[str, bytes]:
    """Return the `name = hex` lines of the worked example; indented lines continue a value."""
    section = PROTOCOL.read_text(encoding="utf-8").split("\n## 8. Worked example\n")[1]
    block = section.split("```text\n")[1].split("```")[0]
    values: dict[str, bytes] = {}
    for line in re.sub(r"\n +", "", block).splitlines():
        name, _, digits = line.partition(" = ")
        assert name.strip() not in values
        values[name.strip()] = bytes.fromhex(digits)
    return values


def recomputed_example(entropy: bytes) -> dict[str, bytes]:
    """Recompute the worked example with the reference and `cryptography`."""
    index, num_pages = 700, 1025
    salt = entropy[32:48]
    keys = ref.gen(index, num_pages, entropy)
    parsed = ref.parse_key(keys[0])
    depth, leaf = parsed.depth, index >> 9
    values = {"entropy": entropy}
    for i in range(depth + 1):
        nodes = [ref.node(key, i, leaf >> (depth - i)) for key in keys]
        for party, (seed, control) in enumerate(nodes):
            values[f"p{party}.seed.{i}"] = seed
            values[f"p{party}.t.{i}"] = bytes([control])
        counter, name = (0, f"block.{i}") if i < depth else (1, "leaf")
        for party, (seed, _) in enumerate(nodes):
            values[f"p{party}.{name}"] = library_block(seed + salt, counter, b"morphogen/v1")
        if i < depth:
            values[f"a.{i}"] = bytes([leaf >> (depth - 1 - i) & 1])
            values[f"SC.{i}"] = parsed.seed_corrections[i]
            values[f"cl.{i}"] = bytes([parsed.control_left >> i & 1])
            values[f"cr.{i}"] = bytes([parsed.control_right >> i & 1])
    values["LC"] = parsed.leaf_correction
    off_path = [ref.node(key, 1, 1) for key in keys]
    assert off_path[0] == off_path[1]
    values["off.seed"], values["off.t"] = off_path[0][0], bytes([off_path[0][1]])
    pages = [x.to_bytes(4, "little") for x in range(num_pages)]
    for party, key in enumerate(keys):
        bits = ref.eval_full(key, num_pages)
        values[f"key{party}"] = key
        values[f"p{party}.bits.leaf1"] = bits[64:128]
        values[f"p{party}.bits.last"] = bits[128:]
        values[f"p{party}.bits.sha256"] = hashlib.sha256(bits).digest()
        values[f"p{party}.answer"] = ref.answer(pages, key)
    values["page"] = ref.xor(values["p0.answer"], values["p1.answer"])
    return values


def test_document_example_is_true() -> None:
    document = document_example()
    assert document["entropy"] == bytes(range(0x11, 0x41))
    assert document == recomputed_example(document["entropy"])
    assert document["page"] == (700).to_bytes(4, "little")


def test_document_example_follows_the_steps() -> None:
    """Redo Gen's formulas of section 5 from the document's own values."""
    v = document_example()
    assert v["p0.seed.0"] + v["p1.seed.0"] == v["entropy"][:32]
    sides = (slice(0, 16), slice(16, 32))
    for i, a in enumerate((0, 1)):
        block = (v[f"p0.block.{i}"], v[f"p1.block.{i}"])
        assert v[f"a.{i}"] == bytes([a])
        assert v[f"SC.{i}"] == ref.xor(block[0][sides[1 - a]], block[1][sides[1 - a]])
        assert v[f"cl.{i}"][0] == (block[0][32] ^ block[1][32] ^ a ^ 1) & 1
        assert v[f"cr.{i}"][0] == (block[0][33] ^ block[1][33] ^ a) & 1
        correction = v[f"cr.{i}" if a else f"cl.{i}"][0]
        for party in (0, 1):
            control = v[f"p{party}.t.{i}"][0]
            seed = block[party][sides[a]]
            assert v[f"p{party}.seed.{i + 1}"] == (ref.xor(seed, v[f"SC.{i}"]) if control else seed)
            expected = block[party][32 + a] & 1 ^ control & correction
            assert v[f"p{party}.t.{i + 1}"][0] == expected
    unit = ref.xor(ref.xor(v["p0.leaf"], v["p1.leaf"]), v["LC"])
    assert unit == bytes(23) + b"\x10" + bytes(40)
    head = b"\x0b\0\0" + bytes([v["cl.0"][0] | v["cl.1"][0] << 1, 0, 0, 0])
    head += bytes([v["cr.0"][0] | v["cr.1"][0] << 1, 0, 0, 0]) + v["entropy"][32:]
    tail = v["SC.0"] + v["SC.1"] + v["LC"]
    assert v["key0"] == b"MGK1\0" + head + v["p0.seed.0"] + tail
    assert v["key1"] == b"MGK1\1" + head + v["p1.seed.0"] + tail
    for party in (0, 1):
        leaf = v[f"p{party}.leaf"]
        corrected = ref.xor(leaf, v["LC"]) if v[f"p{party}.t.2"][0] else leaf
        assert v[f"p{party}.bits.leaf1"] == corrected
