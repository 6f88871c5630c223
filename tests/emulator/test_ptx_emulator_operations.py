"""The emulator's instructions, compared with the PTX manual's formulas in Python integers."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator

import numpy as np
import pytest

import ptx_emulator
from ptx_programs import BITS, DTYPES, edge_values, kernel, operation, store

THREADS = 1024

Reference = Callable[..., int]


def signed(value: int, bits: int) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def divide(a: int, b: int) -> int:
    """Divide towards zero."""
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def leading_zeros(a: int, bits: int) -> int:
    return bits - a.bit_length()


def highest(a: int, bits: int, shift_amount: bool) -> int:
    if a < 0:
        a = ~a
    if a == 0:
        return -1
    return bits - a.bit_length() if shift_amount else a.bit_length() - 1


def extract(a: int, start: int, length: int, bits: int, is_signed: bool) -> int:
    start, length = start & 255, length & 255
    a &= (1 << bits) - 1
    field = (a >> start) & ((1 << length) - 1)
    sign = a >> min(start + length - 1, bits - 1) & 1 if is_signed and length else 0
    available = max(0, min(length, bits - start))
    return field | (((1 << bits) - 1) >> available << available if sign else 0)


def insert(a: int, b: int, start: int, length: int) -> int:
    mask = ((1 << (length & 255)) - 1) << (start & 255)
    return (b & ~mask) | ((a << (start & 255)) & mask)


def permute(a: int, b: int, selector: int) -> int:
    source = (b << 32 | a).to_bytes(8, "little")
    result = b""
    for i in range(4):
        nibble = selector >> 4 * i & 15
        byte = source[nibble & 7]
        result += bytes([(0xFF if byte >> 7 else 0) if nibble & 8 else byte])
    return int.from_bytes(result, "little")


def funnel(lo: int, hi: int, n: int, left: bool, wrap: bool) -> int:
    n = n & 31 if wrap else min(n, 32)
    both = hi << 32 | lo
    return (both << n) >> 32 if left else both >> n


def dot(a: int, b: int, c: int, a_signed: bool, b_signed: bool) -> int:
    def lanes(x: int, is_signed: bool) -> list[int]:
        return [signed(x >> i, 8) if is_signed else x >> i & 255 for i in range(0, 32, 8)]

    return c + sum(x * y for x, y in zip(lanes(a, a_signed), lanes(b, b_signed), strict=True))


def typed() -> Iterator[tuple[str, str, Reference]]:
    """Yield instructions that exist for several types. References take and give any integer."""
    for letter, bits in (("h", 16), ("w", 32), ("q", 64)):
        for kind in "us":
            name, two, three = f"{kind}{bits}", letter * 3, letter * 4

            def value(x: int, bits: int = bits, kind: str = kind) -> int:
                return signed(x, bits) if kind == "s" else x

            def of(f: Reference, value: Callable[[int], int] = value) -> Reference:
                return lambda *operands: f(*map(value, operands))

            def high(product: int, bits: int = bits) -> int:
                return product >> bits

            yield f"add.{name}", two, lambda a, b: a + b
            yield f"sub.{name}", two, lambda a, b: a - b
            yield f"mul.lo.{name}", two, lambda a, b: a * b
            yield f"mul.hi.{name}", two, of(lambda a, b, high=high: high(a * b))
            yield f"mad.lo.{name}", three, lambda a, b, c: a * b + c
            yield f"mad.hi.{name}", three, of(lambda a, b, c, high=high: high(a * b) + c)
            yield f"min.{name}", two, of(min)
            yield f"max.{name}", two, of(max)
            yield f"sad.{name}", three, of(lambda a, b, c: c + abs(a - b))
            yield f"div.{name}", two, of(divide)
            yield f"rem.{name}", two, of(lambda a, b: a - b * divide(a, b))
            yield f"selp.{name}", f"{letter * 3}p", lambda a, b, p: a if p else b
            yield (
                f"slct.{name}.s32",
                f"{letter * 3}w",
                lambda a, b, c: a if signed(c, 32) >= 0 else b,
            )
            yield f"mov.{name}", letter * 2, lambda a: a
            yield (
                f"shr.{name}",
                f"{letter * 2}w",
                lambda a, n, value=value: value(a) >> min(n, 64),
            )
            if kind == "s":
                yield f"neg.{name}", letter * 2, lambda a: -a
                yield f"abs.{name}", letter * 2, of(abs)
            wide = {"h": "w", "w": "q"}.get(letter)
            if wide:
                yield f"mul.wide.{name}", f"{wide}{letter * 2}", of(lambda a, b: a * b)
                yield (
                    f"mad.wide.{name}",
                    f"{wide}{letter * 2}{wide}",
                    lambda a, b, c, value=value: value(a) * value(b) + c,
                )
            if letter != "h":
                both = (bits, kind == "s")
                yield (
                    f"bfe.{name}",
                    f"{letter * 2}ww",
                    lambda a, b, c, both=both: extract(a, b, c, *both),
                )
                for suffix, amount in (("", False), (".shiftamt", True)):
                    yield (
                        f"bfind{suffix}.{name}",
                        f"w{letter}",
                        of(lambda a, bits=bits, amount=amount: highest(a, bits, amount)),
                    )
            for compare, holds in COMPARISONS.items():
                yield f"setp.{compare}.{name}", f"p{letter * 2}", of(holds)
                yield (
                    f"set.{compare}.u32.{name}",
                    f"w{letter * 2}",
                    of(lambda a, b, h=holds: -h(a, b)),
                )
        name = f"b{bits}"
        yield f"not.{name}", letter * 2, lambda a: ~a
        yield f"cnot.{name}", letter * 2, lambda a: a == 0
        yield f"and.{name}", letter * 3, lambda a, b: a & b
        yield f"or.{name}", letter * 3, lambda a, b: a | b
        yield f"xor.{name}", letter * 3, lambda a, b: a ^ b
        yield f"shl.{name}", f"{letter * 2}w", lambda a, n: a << min(n, 64)
        yield f"selp.{name}", f"{letter * 3}p", lambda a, b, p: a if p else b
        yield f"setp.eq.{name}", f"p{letter * 2}", lambda a, b: a == b
        yield f"setp.ne.{name}", f"p{letter * 2}", lambda a, b: a != b
        for compare, holds in UNSIGNED_COMPARISONS.items():
            yield f"setp.{compare}.u{bits}", f"p{letter * 2}", holds
        if letter != "h":
            yield f"popc.{name}", f"w{letter}", int.bit_count
            yield f"clz.{name}", f"w{letter}", lambda a, bits=bits: leading_zeros(a, bits)
            yield f"bfi.{name}", f"{letter * 3}ww", insert
            yield (
                f"brev.{name}",
                letter * 2,
                lambda a, bits=bits: int(f"{a:0{bits}b}"[::-1], 2),
            )


COMPARISONS: dict[str, Reference] = {
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
}
UNSIGNED_COMPARISONS: dict[str, Reference] = {
    "lo": lambda a, b: a < b,
    "ls": lambda a, b: a <= b,
    "hi": lambda a, b: a > b,
    "hs": lambda a, b: a >= b,
}

OTHERS: list[tuple[str, str, Reference]] = [
    ("prmt.b32", "wwww", permute),
    ("shf.l.wrap.b32", "wwww", lambda a, b, n: funnel(a, b, n, left=True, wrap=True)),
    ("shf.l.clamp.b32", "wwww", lambda a, b, n: funnel(a, b, n, left=True, wrap=False)),
    ("shf.r.wrap.b32", "wwww", lambda a, b, n: funnel(a, b, n, left=False, wrap=True)),
    ("shf.r.clamp.b32", "wwww", lambda a, b, n: funnel(a, b, n, left=False, wrap=False)),
    ("dp4a.u32.u32", "wwww", lambda a, b, c: dot(a, b, c, False, False)),
    ("dp4a.u32.s32", "wwww", lambda a, b, c: dot(a, b, c, False, True)),
    ("dp4a.s32.u32", "wwww", lambda a, b, c: dot(a, b, c, True, False)),
    ("dp4a.s32.s32", "wwww", lambda a, b, c: dot(a, b, c, True, True)),
    ("setp.lt.and.s32", "pwwp", lambda a, b, p: signed(a, 32) < signed(b, 32) and p),
    ("setp.ge.or.u64", "pqqp", lambda a, b, p: a >= b or p),
    ("setp.eq.xor.b16", "phhp", lambda a, b, p: (a == b) != bool(p)),
    ("set.ne.and.u32.s32", "wwwp", lambda a, b, p: -(a != b and bool(p))),
    ("and.pred", "ppp", lambda a, b: a and b),
    ("or.pred", "ppp", lambda a, b: a or b),
    ("xor.pred", "ppp", lambda a, b: bool(a) != bool(b)),
    ("not.pred", "pp", lambda a: not a),
    ("mov.pred", "pp", lambda a: a),
]


def conversions() -> Iterator[tuple[str, str, Reference]]:
    """Yield cvt between all types, in registers of the least width that takes them."""
    letters = {8: "h", 16: "h", 32: "w", 64: "q"}
    for to_bits, to_letter in letters.items():
        for from_bits, from_letter in letters.items():
            for to_kind in "us":
                for from_kind in "us":

                    def convert(
                        a: int, of: tuple[int, str] = (from_bits, from_kind),
                        to: tuple[int, str] = (to_bits, to_kind),
                    ) -> int:  # fmt: skip
                        for bits, kind in (of, to):
                            a = signed(a, bits) if kind == "s" else a & ((1 << bits) - 1)
                        return a

                    name = f"cvt.{to_kind}{to_bits}.{from_kind}{from_bits}"
                    yield name, to_letter + from_letter, convert


ALL = [*typed(), *OTHERS, *conversions()]


@pytest.mark.parametrize(("opcode", "signature", "reference"), ALL, ids=[name for name, *_ in ALL])
def test_an_instruction(
    emulator: ctypes.CDLL, opcode: str, signature: str, reference: Reference
) -> None:
    inputs = [edge_values(letter, THREADS, seed) for seed, letter in enumerate(signature[1:])]
    if opcode[:4] in ("div.", "rem."):
        inputs[1][inputs[1] == 0] = 3
    if opcode.startswith("prmt"):
        inputs[2] = edge_values("w", THREADS, 7) | np.uint32(THREADS)  # it differs between lanes
    out = np.zeros(THREADS, DTYPES[signature[0]])
    module = ptx_emulator.Module(operation(opcode, signature), emulator)
    module.launch("k", THREADS // 128, 128, [out, *inputs])
    mask = (1 << BITS[signature[0]]) - 1
    expected = [int(reference(*map(int, row))) & mask for row in zip(*inputs, strict=True)]
    assert out.tolist() == expected


@pytest.mark.parametrize("selector", [0x3210, 0x0123, 0x7654, 0x8888, 0xBBBB, 0xF4A1, 0x9999])
def test_prmt_with_an_immediate(emulator: ctypes.CDLL, selector: int) -> None:
    a, b = edge_values("w", 64, 0), edge_values("w", 64, 1)
    out = np.zeros(64, np.uint32)
    module = ptx_emulator.Module(operation("prmt.b32", "www", f", {selector}"), emulator)
    module.launch("k", 1, 64, [out, a, b])
    assert out.tolist() == [permute(int(x), int(y), selector) for x, y in zip(a, b, strict=True)]


def test_lop3_is_any_function_of_three_bits(emulator: ctypes.CDLL) -> None:
    a, b, c = (np.full(32, word, np.uint32) for word in (0xF0, 0xCC, 0xAA))
    for table in range(256):
        out = np.zeros(32, np.uint32)
        module = ptx_emulator.Module(operation("lop3.b32", "wwww", f", {table}"), emulator)
        module.launch("k", 1, 32, [out, a, b, c])
        assert (out & 0xFF == table).all()
        # The high bits are results for three zero bits.
        assert (out >> 8 == (0xFFFFFF if table & 1 else 0)).all()


def test_carries_run_through_128_bits(emulator: ctypes.CDLL) -> None:
    body = """
        mad.wide.u32 %q0, %thread, 32, %in;
        ld.global.v2.u64 {%q1, %q2}, [%q0];
        ld.global.v2.u64 {%q3, %q4}, [%q0+16];
        mad.wide.u32 %q0, %thread, 64, %out;
        add.cc.u64 %q5, %q1, %q3;
        addc.u64 %q6, %q2, %q4;
        st.global.v2.u64 [%q0], {%q5, %q6};
        sub.cc.u64 %q5, %q1, %q3;
        subc.cc.u64 %q6, %q2, %q4;
        st.global.v2.u64 [%q0+16], {%q5, %q6};
        subc.u64 %q7, 0, 0;
        st.global.u64 [%q0+32], %q7;
        mul.lo.u64 %q5, %q1, %q3;
        mul.hi.u64 %q6, %q1, %q3;
        mad.lo.cc.u64 %q5, %q2, %q4, %q5;
        madc.hi.u64 %q6, %q2, %q4, %q6;
        st.global.v2.u64 [%q0+48], {%q5, %q6};
    """
    count = 256
    values = edge_values("q", 4 * count, 5).reshape(count, 4)
    out = np.zeros((count, 8), np.uint64)
    module = ptx_emulator.Module(kernel(body, [".u64 out", ".u64 in"]), emulator)
    module.launch("k", 2, count // 2, [out, values])

    def wide(row: list[int]) -> int:
        return row[0] | row[1] << 64

    for row, results in zip(values.tolist(), out.tolist(), strict=True):
        a, b = wide(row[:2]), wide(row[2:])
        product = row[0] * row[2] + row[1] * row[3]
        assert wide(results[0:2]) == (a + b) % (1 << 128)
        assert wide(results[2:4]) == (a - b) % (1 << 128)
        assert results[4] == (2**64 - 1 if a < b else 0)
        assert wide(results[6:8]) == product % (1 << 128)


def test_vectors_are_packed_and_unpacked(emulator: ctypes.CDLL) -> None:
    body = """
        mad.wide.u32 %q0, %thread, 8, %in;
        ld.global.u64 %q1, [%q0];
        mov.b64 {%h0, %h1, %h2, %h3}, %q1;
        mov.b64 {%w0, _}, %q1;
        mov.b32 {%h4, %h5}, %w0;
        mov.b32 %w1, {%h5, %h3};
        mov.b64 %q2, {%w1, %w0};
        mov.b64 %q3, {%h3, %h2, %h1, %h0};
        xor.b64 %q2, %q2, %q3;
    """
    values = edge_values("q", 64, 9)
    out = np.zeros(64, np.uint64)
    text = kernel(body + store("%q2", 64), [".u64 out", ".u64 in"])
    ptx_emulator.Module(text, emulator).launch("k", 1, 64, [out, values])
    h = values.view(np.uint16).reshape(64, 4)
    first = np.stack([h[:, 1], h[:, 3], h[:, 0], h[:, 1]], axis=1)
    assert (out.view(np.uint16).reshape(64, 4) == first ^ h[:, ::-1]).all()


@pytest.mark.parametrize("opcode", ["div.u32", "rem.s32"])
def test_division_by_zero_is_an_error(emulator: ctypes.CDLL, opcode: str) -> None:
    a = np.ones(64, np.uint32)
    b = np.ones(64, np.uint32)
    b[37] = 0
    module = ptx_emulator.Module(operation(opcode, "www"), emulator)
    with pytest.raises(ptx_emulator.EmulatorError, match=r"thread \(37, 0, 0\): division by zero"):
        module.launch("k", 1, 64, [np.zeros(64, np.uint32), a, b])


def test_a_guard_leaves_the_other_lanes_alone(emulator: ctypes.CDLL) -> None:
    body = """
        mov.u32 %w0, 7;
        and.b32 %w1, %thread, 1;
        setp.eq.u32 %p0, %w1, 1;
        @%p0 add.u32 %w0, %thread, 100;
        setp.gt.u32 %p1|%p2, %thread, 20;
        @!%p2 mul.lo.u32 %w0, %w0, 2;
        setp.gt.and.u32 %p3, %thread, 28, !%p0;
        @%p3 mov.u32 %w0, 0;
    """
    out = np.zeros(32, np.uint32)
    ptx_emulator.Module(kernel(body + store()), emulator).launch("k", 1, 32, [out])
    thread = np.arange(32)
    expected = np.where(thread % 2 == 1, thread + 100, 7) * np.where(thread > 20, 2, 1)
    expected[(thread > 28) & (thread % 2 == 0)] = 0
    assert (out == expected).all()
