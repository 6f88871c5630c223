"""The emulator's products of bit matrices and asynchronous copies, by the PTX manual."""

from __future__ import annotations

import ctypes

import numpy as np
import numpy.typing as npt
import pytest

import ptx_emulator
from ptx_programs import fails, kernel, run

MMA = "mma.sync.aligned.m16n8k256.row.col.s32.b1.b1.s32.and.popc"
ROWS, COLUMNS, DEPTH = 16, 8, 256
LOAD = """
    mad.wide.u32 %q0, %thread, 16, %a;
    ld.global.v4.u32 {%w0, %w1, %w2, %w3}, [%q0];
    mad.wide.u32 %q1, %thread, 8, %b;
    ld.global.v2.u32 {%w4, %w5}, [%q1];
    mad.wide.u32 %q2, %thread, 16, %c;
    ld.global.v4.u32 {%w6, %w7, %w8, %w9}, [%q2];
"""
PRODUCT = f"{MMA} {{%w10, %w11, %w12, %w13}}, {{%w0, %w1, %w2, %w3}}, {{%w4, %w5}}, "
PRODUCT += "{%w6, %w7, %w8, %w9};"
STORE = "    st.global.v4.u32 [%q2], {%w10, %w11, %w12, %w13};\n"

Words = npt.NDArray[np.uint32]


def fragment(bits: npt.NDArray[np.bool_], lines: int) -> Words:
    """The words of each thread: the manual's places of a matrix whose rows are the given lines.

    Element i of thread t lies, for words j = i / 32, in line t / 4 + 8 * (j % 2) (of two sets of
    eight lines) and in column t % 4 * 32 + i % 32, from the 128th on in the second half.
    """
    sets = lines // 8
    words = np.zeros((32, 2 * sets), np.uint32)
    for thread in range(32):
        for j in range(2 * sets):
            line, first = thread // 4 + 8 * (j % sets), thread % 4 * 32 + 128 * (j // sets)
            for i in range(32):
                words[thread, j] |= np.uint32(int(bits[line, first + i]) << i)
    return words


def counts(values: Words) -> Words:
    """The matrix of the threads' C or D, of which thread t has rows t / 4 and t / 4 + 8."""
    matrix = np.zeros((ROWS, COLUMNS), np.uint32)
    for thread in range(32):
        for i in range(4):
            matrix[thread // 4 + 8 * (i // 2), thread % 4 * 2 + i % 2] = values[thread, i]
    return matrix


@pytest.mark.parametrize("density", [0.02, 0.5, 1.0])
def test_a_product_counts_the_common_bits(emulator: ctypes.CDLL, density: float) -> None:
    rng = np.random.default_rng(int(100 * density))
    a, b = rng.random((ROWS, DEPTH)) < density, rng.random((COLUMNS, DEPTH)) < density
    c = rng.integers(0, 2**32, (32, 4), dtype=np.uint32)  # sums wrap
    before = counts(c)
    module = ptx_emulator.Module(
        kernel(LOAD + PRODUCT + STORE, [".u64 a", ".u64 b", ".u64 c"]), emulator
    )
    module.launch("k", 1, 32, [fragment(a, ROWS), fragment(b, COLUMNS), c])
    wanted = before + (a.astype(np.uint32) @ b.T.astype(np.uint32))
    assert np.array_equal(counts(c), wanted)


def test_a_product_may_write_over_what_it_reads(emulator: ctypes.CDLL) -> None:
    body = "    mov.u32 %w0, 3;\n    mov.u32 %w1, 100;\n"
    body += f"{MMA} {{%w0, %w2, %w3, %w4}}, {{%w0, %w0, %w0, %w0}}, {{%w0, %w0}}, "
    body += "{%w1, %w1, %w1, %w1};"
    assert run(emulator, body) == [100 + 2 * 8] * 32


def test_all_threads_of_a_warp_come_to_a_product(emulator: ctypes.CDLL) -> None:
    product = f"{MMA} {{%w0, %w1, %w2, %w3}}, {{%w4, %w4, %w4, %w4}}, {{%w4, %w4}}, "
    product += "{%w4, %w4, %w4, %w4};"
    fails(emulator, "mov.u32 %w4, 0;\n" + product, "names lanes not there", threads=16)
    missing = f"mov.u32 %w4, 0;\nsetp.eq.u32 %p0, %thread, 5;\n@%p0 bra end;\n{product}\nend:\n"
    fails(emulator, missing + "mov.u32 %w0, 0;", "wait for lanes that never arrive")


def test_a_product_of_undefined_bits_is_undefined(emulator: ctypes.CDLL) -> None:
    body = "    mov.u32 %w1, 0;\n    setp.ne.u32 %p0, %thread, 9;\n    @%p0 mov.u32 %w2, 1;\n"
    body += f"{MMA} {{%w0, %w3, %w4, %w5}}, {{%w2, %w1, %w1, %w1}}, {{%w1, %w1}}, "
    body += "{%w1, %w1, %w1, %w1};"
    # Thread 9 has a part of row 2, whose counts threads 8 to 11 get.
    fails(emulator, body, r"thread \(8, 0, 0\).*undefined")


COPY = """
    .shared .align 16 .b8 room[1024];
    .reg .b32 %to, %from;
    mov.u32 %to, room;
    shl.b32 %w1, %thread, 4;
    add.u32 %to, %to, %w1;
    mad.wide.u32 %q0, %thread, 16, %in;
    cp.async.cg.shared.global [%to], [%q0+512], 16;
"""
READ = "    ld.shared.u32 %w0, [%to+4];\n"


def copied(emulator: ctypes.CDLL, body: str) -> list[int]:
    out, source = np.zeros(32, np.uint32), np.arange(256, dtype=np.uint32)
    store = "    mad.wide.u32 %q1, %thread, 4, %out;\n    st.global.u32 [%q1], %w0;\n"
    module = ptx_emulator.Module(kernel(body + store, [".u64 in", ".u64 out"]), emulator)
    module.launch("k", 1, 32, [source, out])
    return [int(word) for word in out]


WANTED = [128 + 4 * i + 1 for i in range(32)]


def test_copies_come_when_their_thread_waits(emulator: ctypes.CDLL) -> None:
    assert copied(emulator, COPY + "cp.async.wait_all;" + READ) == WANTED
    group = "cp.async.commit_group;"
    assert copied(emulator, COPY + group + "cp.async.wait_group 0;" + READ) == WANTED
    early = copied(emulator, COPY + group + "cp.async.wait_group 1;" + READ)
    assert early != WANTED
    later = COPY + group + group + "cp.async.wait_group 1;" + READ
    assert copied(emulator, later) == WANTED
    assert copied(emulator, COPY + READ) != WANTED


def test_a_copy_that_others_read_needs_a_barrier(emulator: ctypes.CDLL) -> None:
    source = np.arange(512, dtype=np.uint32)

    def read_others(between: str) -> None:
        read = "    xor.b32 %to, %to, 512;\n" + READ
        text = kernel(COPY + "cp.async.wait_all;" + between + read, [".u64 in"])
        ptx_emulator.Module(text, emulator).launch("k", 1, 64, [source])

    read_others("bar.sync 0;")
    with pytest.raises(ptx_emulator.EmulatorError, match=r"data race|nothing wrote"):
        read_others("")


def test_a_copy_checks_its_addresses(emulator: ctypes.CDLL) -> None:
    for change, message in (
        (("%q0+512", "%q0+508"), "not aligned to 16"),
        (("%q0+512", "%q0+8192"), "outside of all arrays"),
        (("[%to]", "[%to+1024]"), "out of bounds"),
    ):
        body = COPY.replace(*change) + "cp.async.wait_all;" + READ
        with pytest.raises(ptx_emulator.EmulatorError, match=message):
            copied(emulator, body)
    with pytest.raises(ptx_emulator.EmulatorError, match="copies 16 bytes"):
        copied(emulator, COPY.replace(", 16;", ", 8;"))
