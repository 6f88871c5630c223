"""Atomics, and several lanes at one place of the emulator's memory."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

import ptx_emulator
from ptx_emulator import EmulatorError, Module
from ptx_programs import kernel, store


def test_lanes_that_store_different_values_to_a_place_are_an_error(emulator: ctypes.CDLL) -> None:
    same = Module(kernel("st.global.u32 [%out], 7;"), emulator)
    out = np.zeros(1, np.uint32)
    same.launch("k", 1, 32, [out])
    assert out[0] == 7
    different = Module(kernel("st.global.u32 [%out], %thread;"), emulator)
    with pytest.raises(EmulatorError, match="different values to the same place"):
        different.launch("k", 1, 32, [out])


U32, U64, S32, S64 = np.uint32, np.uint64, np.int32, np.int64


@pytest.mark.parametrize("space", ["global", "shared", ""])
@pytest.mark.parametrize(
    ("name", "dtype", "start", "operand", "expected"),
    [
        ("add.u32", U32, 5, 3, 5 + 3 * 96),
        ("add.s32", S32, 5, -3, 5 - 3 * 96),
        ("relaxed.gpu.add.u64", U64, 1 << 40, 1 << 33, (1 << 40) + 96 * (1 << 33)),
        ("xor.b32", U32, 6, 1, 6),
        ("xor.b64", U64, 1 << 40, 1 << 40, 1 << 40),
        ("or.b64", U64, 1, 1 << 63, 1 << 63 | 1),
        ("and.b32", U32, 7, 5, 5),
        ("min.s32", S32, 4, -5, -5),
        ("min.u32", U32, 4, 2**32 - 5, 4),
        ("max.u64", U64, 4, 2**63 + 1, 2**63 + 1),
        ("max.s64", S64, 4, -9, 4),
        ("inc.u32", U32, 0, 9, 96 % 10),
        ("dec.u32", U32, 0, 9, -96 % 10),
        ("exch.b32", U32, 5, 77, 77),
    ],
)
def test_atomics(
    emulator: ctypes.CDLL,
    space: str,
    name: str,
    dtype: type,
    start: int,
    operand: int,
    expected: int,
) -> None:
    bits = 64 if name.endswith("64") else 32
    register = {32: "%w", 64: "%q"}[bits]
    *semantics, operation, kind = name.split(".")
    opcode = ".".join(["atom", *semantics, *filter(None, [space]), operation, kind])
    if space == "shared":
        body = f"""
            .shared .align 8 .u64 cell;
            mov.u64 %q5, cell;
            setp.eq.u32 %p0, %thread, 0;
            @%p0 ld.global.u{bits} {register}1, [%out];
            @%p0 st.shared.u{bits} [cell], {register}1;
            bar.sync 0;
            {opcode} {register}2, [%q5], {operand};
            bar.sync 0;
            @%p0 ld.shared.u{bits} {register}3, [cell];
            @%p0 st.global.u{bits} [%out], {register}3;
        """
    else:
        body = f"{opcode} {register}2, [%out], {operand};"
    out: ptx_emulator.Array = np.array([start], dtype)
    Module(kernel(body), emulator).launch("k", 1, 96, [out], seed=3)
    assert int(out[0]) == expected


def test_each_atomic_returns_what_was_there(emulator: ctypes.CDLL) -> None:
    body = """
        atom.global.add.u32 %w0, [%counter], 1;
    """
    module = Module(kernel(body + store(), [".u64 out", ".u64 counter"]), emulator)
    orders = set()
    for seed in range(5):
        out, counter = np.zeros(256, np.uint32), np.zeros(1, np.uint32)
        module.launch("k", 4, 64, [out, counter], seed=seed)
        assert sorted(out.tolist()) == list(range(256))
        assert counter[0] == 256
        orders.add(tuple(out.tolist()))
    assert len(orders) == 5  # a kernel must rely on no order


def test_compare_and_swap_takes_one_winner(emulator: ctypes.CDLL) -> None:
    body = "add.u32 %w1, %thread, 1;\natom.global.cas.b32 %w0, [%lock], 0, %w1;\n"
    out, lock = np.zeros(128, np.uint32), np.zeros(1, np.uint32)
    text = kernel(body + store(), [".u64 out", ".u64 lock"])
    Module(text, emulator).launch("k", 1, 128, [out, lock])
    winners = np.flatnonzero(out == 0)
    assert winners.tolist() == [lock[0] - 1]
    assert (np.delete(out, winners) == lock[0]).all()


def test_an_atomic_needs_defined_memory(emulator: ctypes.CDLL) -> None:
    body = ".shared .u32 word;\n{}\nred.shared.add.u32 [word], 1;"
    Module(kernel(body.replace("{}", "st.shared.u32 [word], 0;")), emulator).launch("k", 1, 32, [0])
    with pytest.raises(EmulatorError, match="atomic on shared memory that nothing wrote"):
        Module(kernel(body.replace("{}", "")), emulator).launch("k", 1, 32, [0])
    local = ".local .u32 word;\nmov.u64 %q0, word;\nst.local.u32 [%q0], 0;\nred.add.u32 [%q0], 1;"
    with pytest.raises(EmulatorError, match="atomic on local memory"):
        Module(kernel(local), emulator).launch("k", 1, 32, [0])
