"""Small PTX programs for the tests of the emulator."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import ptx_emulator

# The letter of an operand, and the bits of its register; p is a predicate.
BITS = {"p": 1, "h": 16, "w": 32, "q": 64}
DTYPES = {"p": np.uint32, "h": np.uint16, "w": np.uint32, "q": np.uint64}

HEADER = """
.version 9.0
.target sm_80
.address_size 64
"""

UNTOUCHED = 0xA5A5A5A5  # the value in run() of a thread that stored nothing

# Registers of every body. %thread counts over the whole grid, if the grid has one dimension.
REGISTERS = """
    .reg .pred %p<32>;
    .reg .b16 %h<32>;
    .reg .b32 %w<64>;
    .reg .b64 %q<64>;
    .reg .b32 %thread, %block, %size;
    mov.u32 %thread, %tid.x;
    mov.u32 %block, %ctaid.x;
    mov.u32 %size, %ntid.x;
    mad.lo.u32 %thread, %block, %size, %thread;
"""


def kernel(
    body: str, parameters: Sequence[str] = (".u64 out",), directives: str = "", before: str = ""
) -> str:
    """Return a module with one kernel, "k". It first loads each .u64 parameter into %name."""
    declared = ", ".join(f".param {parameter}" for parameter in parameters)
    loads = ""
    for parameter in parameters:
        kind, *_, name = parameter.split()
        if kind == ".u64":
            loads += f"    .reg .b64 %{name};\n    ld.param.u64 %{name}, [{name}];\n"
    entry = f".visible .entry k({declared}) {directives}"
    return f"{HEADER}{before}\n{entry} {{{REGISTERS}{loads}{body}\n}}"


def store(register: str = "%w0", bits: int = 32, out: str = "%out") -> str:
    """Store each thread's register in its element of an array."""
    return f"""
    .reg .b64 %place;
    mad.wide.u32 %place, %thread, {bits // 8}, {out};
    st.global.u{bits} [%place], {register};
    """


def run(
    emulator: ctypes.CDLL, body: str, threads: int = 32, blocks: int = 1, seed: int = 0
) -> list[int]:
    """Return the %w0 of each thread."""
    out = np.full(threads * blocks, UNTOUCHED, np.uint32)
    module = ptx_emulator.Module(kernel(body + store()), emulator)
    module.launch("k", blocks, threads, [out], seed=seed)
    return [int(word) for word in out]


def fails(emulator: ctypes.CDLL, body: str, message: str, threads: int = 32) -> None:
    with pytest.raises(ptx_emulator.EmulatorError, match=message):
        run(emulator, body, threads)


def operation(opcode: str, signature: str, immediate: str = "") -> str:
    """Return a kernel that applies an instruction to arrays: parameters out, then in0, in1...

    The signature has a letter of BITS for each operand, the destination's first.
    """
    body = ""
    parameters = [".u64 out"]
    operands = []
    for number, letter in enumerate(signature[1:]):
        bits = 32 if letter == "p" else BITS[letter]
        register = "%w40" if letter == "p" else f"%{letter}{10 + number}"
        parameters.append(f".u64 in{number}")
        body += f"    mad.wide.u32 %q{20 + number}, %thread, {bits // 8}, %in{number};\n"
        body += f"    ld.global.u{bits} {register}, [%q{20 + number}];\n"
        if letter == "p":
            register = f"%p{10 + number}"
            body += f"    setp.ne.u32 {register}, %w40, 0;\n"
        operands.append(register)
    result, bits = f"%{signature[0]}0", BITS[signature[0]]
    body += f"    {opcode} {', '.join([result, *operands])}{immediate};\n"
    if signature[0] == "p":
        body += "    selp.u32 %w0, 1, 0, %p0;\n"
        result, bits = "%w0", 32
    return kernel(body + store(result, bits), parameters)


def edge_values(letter: str, count: int, seed: int) -> npt.NDArray[Any]:
    """Return random values of an operand, half of them near the edges of its range."""
    rng = np.random.default_rng([BITS[letter], seed])
    last = (1 << BITS[letter]) - 1
    top = (last + 1) // 2
    edges = [0, 1, 2, 3, 7, 31, 32, 33, 63, 64, 255, top - 1, top, top + 1, last - 1, last]
    values = rng.integers(0, last, count, dtype=np.uint64, endpoint=True)
    chosen = np.array([edge & last for edge in edges], dtype=np.uint64)
    return np.where(rng.random(count) < 0.5, rng.choice(chosen, count), values).astype(
        DTYPES[letter]
    )
