"""The emulator's blocks: barriers, races between warps, the order of blocks."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from ptx_emulator import EmulatorError, Module
from ptx_programs import fails, kernel, run, store

U32 = np.uint32


# Barriers


@pytest.mark.parametrize(
    "barrier", ["bar.sync 0", "barrier.sync 3", "barrier.cta.sync.aligned 0, 128"]
)
def test_a_barrier_orders_all_warps(emulator: ctypes.CDLL, barrier: str) -> None:
    body = f"""
        .shared .u32 cells[128];
        mov.u32 %w1, cells;
        mad.lo.u32 %w2, %thread, 4, %w1;
        st.shared.u32 [%w2], %thread;
        mov.u32 %w6, 0;
    again:
        {barrier};
        add.u32 %w3, %thread, 33;
        and.b32 %w3, %w3, 127;
        mad.lo.u32 %w4, %w3, 4, %w1;
        ld.shared.u32 %w0, [%w4];
        {barrier};
        st.shared.u32 [%w2], %w0;
        add.u32 %w6, %w6, 1;
        setp.lt.u32 %p0, %w6, 3;
        @%p0 bra again;
    """
    for seed in range(10):
        assert run(emulator, body, 128, seed=seed) == [(i + 99) % 128 for i in range(128)]


def test_the_last_warp_may_lack_threads(emulator: ctypes.CDLL) -> None:
    body = "bar.sync 0;\nmov.u32 %w0, 3;\nbar.sync 0;\nbarrier.sync 1;"
    assert run(emulator, body, 70) == [3] * 70


def test_barriers_for_some_of_the_warps(emulator: ctypes.CDLL) -> None:
    # Warp 0 passes a value to warp 1 and does not wait. Warp 2 takes no part.
    body = """
        .shared .u32 cell;
        mov.u32 %w0, 1;
        setp.ge.u32 %p0, %thread, 64;
        @%p0 bra done;
        setp.ge.u32 %p1, %thread, 32;
        @%p1 bra takes;
        st.shared.u32 [cell], 5;
        bar.arrive 1, 64;
        bra done;
    takes:
        bar.sync 1, 64;
        ld.shared.u32 %w0, [cell];
    done:
    """
    for seed in range(5):
        assert run(emulator, body, 96, seed=seed) == [1] * 32 + [5] * 32 + [1] * 32
    # The accesses of warp 0 after its arrival are not ordered.
    late = body.replace("bar.arrive 1, 64;", "bar.arrive 1, 64;\nst.shared.u32 [cell], 6;")
    fails(emulator, late, "data race", 96)


def test_barriers_that_vote(emulator: ctypes.CDLL) -> None:
    body = """
        rem.u32 %w1, %thread, 3;
        setp.eq.u32 %p0, %w1, 0;
        bar.red.popc.u32 %w0, 0, %p0;
        bar.red.or.pred %p1, 0, %p0;
        barrier.cta.red.and.aligned.pred %p2, 1, 96, !%p0;
        selp.u32 %w2, 1000, 0, %p1;
        selp.u32 %w3, 5000, 0, %p2;
        add.u32 %w0, %w0, %w2;
        add.u32 %w0, %w0, %w3;
    """
    assert run(emulator, body, 96) == [1032] * 96


@pytest.mark.parametrize(
    ("condition", "body", "message"),
    [
        ("a whole warp", "setp.lt.u32 %p0, %thread, 32;\n@%p0 bra a;\nbar.sync 0;\na:",
         r"\(bar.sync 0;\).*thread \(32, 0, 0\).*not all reach; 32 of 64 threads have exited"),
        ("part of a warp", "setp.eq.u32 %p0, %thread, 40;\n@%p0 bra a;\nbar.sync 0;\na:",
         r"lanes 0xfffffeff wait for lanes that never arrive; lanes 0x100 have exited"),
        ("two places", "setp.eq.u32 %p0, %thread, 40;\n@%p0 bra a;\nbar.sync 0;\nbra b;\na:\n"
         "bar.sync 0;\nb:", "wait for lanes that never arrive"),
        ("two barriers", "setp.lt.u32 %p0, %thread, 32;\n@%p0 bra a;\nbar.sync 0;\nbra b;\na:\n"
         "bar.sync 1;\nb:", "not all reach"),
        ("two counts", "setp.lt.u32 %p0, %thread, 32;\n@%p0 bra a;\nbar.sync 0;\nbra b;\na:\n"
         "bar.sync 0, 32;\nbar.sync 0, 64;\nb:", "different thread counts|not all reach"),
        ("no such barrier", "bar.sync 16;", "no barrier has number 16"),
        ("a part of a warp as count", "bar.sync 0, 40;", "not a multiple of 32"),
        ("a count too large", "bar.sync 0, 96;", "thread count is out of range"),
    ],
)  # fmt: skip
def test_a_barrier_that_not_all_reach_is_an_error(
    emulator: ctypes.CDLL, condition: str, body: str, message: str
) -> None:
    text = kernel(body + "\nexit;")
    with pytest.raises(EmulatorError, match=message):
        Module(text, emulator).launch("k", 1, 64, [np.zeros(1, U32)])


# Races

READ, WRITE = "ld.shared.u32 %w5, [cell]", "st.shared.u32 [cell], 1"
ADD, BYTE = "red.shared.add.u32 [cell], 1", "st.shared.u8 [cell+1], 1"
STRONG_READ = "ld.relaxed.cta.shared.u32 %w5, [cell]"
STRONG_WRITE = "st.volatile.shared.u32 [cell], 1"


@pytest.mark.parametrize(
    ("one", "other", "races"),
    [
        (WRITE, WRITE, True),
        (WRITE, READ, True),
        (WRITE, ADD, True),
        (WRITE, BYTE, True),
        (WRITE, STRONG_READ, True),
        (WRITE, STRONG_WRITE, True),
        (READ, READ, False),
        (READ, ADD, True),
        (READ, STRONG_WRITE, True),
        (READ, STRONG_READ, False),
        (ADD, ADD, False),
        (ADD, STRONG_READ, False),
        (STRONG_WRITE, STRONG_READ, False),
    ],
)
@pytest.mark.parametrize("seed", range(8))  # either thread comes first
def test_races_between_warps_are_found(
    emulator: ctypes.CDLL, one: str, other: str, races: bool, seed: int
) -> None:
    program = """
        .shared .align 4 .u32 cell;
        mov.u32 %w0, 0;
        setp.eq.u32 %p0, %thread, 0;
        @%p0 st.shared.u32 [cell], 0;
        bar.sync 0;
        setp.eq.u32 %p1, %thread, {thread};
        @%p0 {one};
        {barrier};
        @%p1 {other};
    """.replace("{one}", one).replace("{other}", other)
    # Two accesses of one warp, or with a barrier between them, do not race.
    for thread, barrier in [(3, ""), (35, "bar.sync 0")]:
        body = program.replace("{thread}", str(thread)).replace("{barrier}", barrier)
        assert run(emulator, body, 64, seed=seed) == [0] * 64
    body = program.replace("{thread}", "35").replace("{barrier}", "")
    if not races:
        assert run(emulator, body, 64, seed=seed) == [0] * 64
        return
    with pytest.raises(EmulatorError, match=r"data race in shared memory: this .* by warp [01]"):
        run(emulator, body, 64, seed=seed)


READERS = """
    .shared .u32 cell;
    setp.eq.u32 %p0, %thread, 70;
    @%p0 st.shared.u32 [cell], 1;
    bar.sync 0;
    ld.shared.u32 %w0, [cell];
    bar.sync 0;
    setp.lt.u32 %p1, %thread, 64;
    @%p1 ld.shared.u32 %w0, [cell];
    {}
    @%p0 st.shared.u32 [cell], 2;
    bar.sync 0;
    @%p0 ld.shared.u32 %w0, [cell];
    @%p0 add.u32 %w0, %w0, -1;
"""


@pytest.mark.parametrize("seed", range(8))
def test_a_write_after_the_reads_of_many_warps_needs_a_barrier(
    emulator: ctypes.CDLL, seed: int
) -> None:
    ordered = READERS.replace("{}", "bar.sync 0;")
    assert run(emulator, ordered, 96, seed=seed) == [1] * 96
    with pytest.raises(EmulatorError, match="data race"):
        run(emulator, READERS.replace("{}", ""), 96, seed=seed)


@pytest.mark.parametrize("seed", range(8))
def test_a_writer_must_wait_for_every_reader(emulator: ctypes.CDLL, seed: int) -> None:
    body = """
        .shared .u32 cell;
        setp.lt.u32 %p0, %thread, {from};
        setp.eq.u32 %p1, %thread, 70;
        setp.ge.u32 %p2, %thread, 64;
        @%p1 st.shared.u32 [cell], 1;
        mov.u32 %w0, 1;
        bar.sync 0;
        @%p2 bra writer;
        ld.shared.u32 %w0, [cell];
        @!%p0 bar.arrive 1, {count};
        bra done;
    writer:
        bar.sync 1, {count};
        @%p1 st.shared.u32 [cell], 2;
    done:
    """
    both = body.replace("{from}", "0").replace("{count}", "96")
    assert run(emulator, both, 96, seed=seed) == [1] * 96
    with pytest.raises(EmulatorError, match=r"data race.* by warp [02]"):
        run(emulator, body.replace("{from}", "32").replace("{count}", "64"), 96, seed=seed)


def test_warps_that_pass_a_value_on_do_not_race(emulator: ctypes.CDLL) -> None:
    # Each warp waits only for the warp before it, and so is ordered behind all earlier warps.
    body = """
        .shared .u32 cell;
        shr.u32 %w1, %thread, 5;
        setp.eq.u32 %p0, %w1, 0;
        @%p0 bra first;
        bar.sync %w1, 64;
        ld.shared.u32 %w0, [cell];
        setp.eq.u32 %p1, %w1, 3;
        @%p1 bra last;
        bra pass;
    first:
        mov.u32 %w0, 9;
        st.shared.u32 [cell], 9;
    pass:
        add.u32 %w2, %w1, 1;
        bar.arrive %w2, 64;
        bra done;
    last:
        st.shared.u32 [cell], 5;
    done:
    """
    for seed in range(8):
        assert run(emulator, body, 128, seed=seed) == [9] * 128


def test_different_bytes_of_a_word_do_not_race(emulator: ctypes.CDLL) -> None:
    body = """
        .shared .align 4 .b8 bytes[64];
        cvt.u64.u32 %q0, %thread;
        mov.u64 %q1, bytes;
        rem.u32 %w1, %thread, 32;
        mul.lo.u32 %w1, %w1, 2;
        shr.u32 %w2, %thread, 5;
        add.u32 %w1, %w1, %w2;
        cvt.u64.u32 %q2, %w1;
        add.s64 %q1, %q1, %q2;
        st.shared.u8 [%q1], %thread;
        ld.shared.u8 %w0, [%q1];
    """
    assert run(emulator, body, 64) == list(range(64))


# Blocks


def test_any_order_of_blocks_and_warps(emulator: ctypes.CDLL) -> None:
    # The last block to finish adds up the values of the others.
    body = """
        .shared .u32 last;
        mad.wide.u32 %q0, %block, 4, %partial;
        setp.eq.u32 %p0, %w63, %w62;
        mov.u32 %w1, %tid.x;
        red.global.add.u32 [%q0], %w1;
        membar.gl;
        bar.sync 0;
        setp.ne.u32 %p1, %w1, 0;
        @%p1 bra join;
        mov.u32 %w2, %nctaid.x;
        atom.global.inc.u32 %w3, [%finished], %w2;
        add.u32 %w2, %w2, -1;
        setp.eq.u32 %p2, %w3, %w2;
        selp.u32 %w4, 1, 0, %p2;
        st.shared.u32 [last], %w4;
    join:
        bar.sync 0;
        ld.shared.u32 %w5, [last];
        setp.eq.u32 %p3, %w5, 0;
        @%p3 exit;
        mov.u32 %w6, %nctaid.x;
        setp.ge.u32 %p4, %w1, %w6;
        @%p4 exit;
        mad.wide.u32 %q1, %w1, 4, %partial;
        ld.global.cg.u32 %w7, [%q1];
        red.global.add.u32 [%out], %w7;
        mad.wide.u32 %q2, %block, 4, %order;
        setp.eq.u32 %p5, %w1, 0;
        @%p5 st.global.u32 [%out+4], %block;
    """
    parameters = [".u64 out", ".u64 partial", ".u64 finished", ".u64 order"]
    module = Module(kernel(body, parameters), emulator)
    lasts = set()
    for seed in range(12):
        out, partial, finished = np.zeros(2, U32), np.zeros(20, U32), np.zeros(1, U32)
        module.launch("k", 20, 96, [out, partial, finished, 0], seed=seed)
        assert out[0] == 20 * sum(range(96))
        assert finished[0] == 20
        lasts.add(int(out[1]))
    assert len(lasts) > 3


def test_blocks_have_three_dimensions(emulator: ctypes.CDLL) -> None:
    body = """
        mov.u32 %w1, %tid.y;
        mov.u32 %w2, %tid.z;
        mov.u32 %w3, %ctaid.y;
        mov.u32 %w4, %ctaid.z;
        mov.u32 %w5, %nctaid.x;
        mov.u32 %w6, %nctaid.y;
        mad.lo.u32 %w7, %w4, %w6, %w3;
        mad.lo.u32 %w7, %w7, %w5, %block;
        mov.u32 %w8, %ntid.x;
        mov.u32 %w9, %ntid.y;
        mov.u32 %w10, %ntid.z;
        mov.u32 %w11, %tid.x;
        mad.lo.u32 %w12, %w2, %w9, %w1;
        mad.lo.u32 %w12, %w12, %w8, %w11;
        mul.lo.u32 %w13, %w8, %w9;
        mul.lo.u32 %w13, %w13, %w10;
        mad.lo.u32 %thread, %w7, %w13, %w12;
        mov.u32 %w14, %laneid;
        mov.u32 %w15, %warpid;
        mad.lo.u32 %w0, %w15, 32, %w14;
    """
    out = np.full(2 * 3 * 4 * 60, 0xA5, U32)
    Module(kernel(body + store()), emulator).launch("k", (2, 3, 4), (3, 4, 5), [out], seed=1)
    assert (out.reshape(24, 60) == np.arange(60)).all()
