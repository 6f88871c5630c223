"""The emulator's warps: divergence, calls, operations of several lanes together."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import numpy as np
import pytest

from ptx_emulator import Module
from ptx_programs import UNTOUCHED, fails, kernel, run, store

U32 = np.uint32


# Divergence


def test_branches_meet_again(emulator: ctypes.CDLL) -> None:
    body = """
        and.b32 %w1, %thread, 3;
        setp.eq.u32 %p0, %w1, 0;
        @%p0 bra four;
        setp.eq.u32 %p1, %w1, 1;
        @%p1 bra.uni one;
        mov.u32 %w0, 9;
        bra together;
    four:
        mov.u32 %w0, 4;
        bra together;
    one:
        mov.u32 %w0, 1;
    together:
        activemask.b32 %w2;
        setp.ne.u32 %p2, %w2, -1;
        @%p2 mov.u32 %w0, 77;
    """
    assert run(emulator, body) == [4, 1, 9, 9] * 8


def test_lanes_loop_as_often_as_each_wants(emulator: ctypes.CDLL) -> None:
    body = """
        mov.u32 %w0, 0;
        mov.u32 %w1, 0;
    loop:
        setp.ge.u32 %p0, %w1, %thread;
        @%p0 bra done;
        add.u32 %w1, %w1, 1;
        mad.lo.u32 %w0, %w1, %w1, %w0;
        bra loop;
    done:
    """
    assert run(emulator, body, 96) == [sum(i * i for i in range(n + 1)) for n in range(96)]


def test_unstructured_control_flow(emulator: ctypes.CDLL) -> None:
    # A loop with two entries, and exits that lie before it.
    body = """
        mov.u32 %w0, 0;
        mov.u32 %w1, 0;
        bra start;
    left:
        add.u32 %w0, %w0, 1000;
        bra done;
    start:
        and.b32 %w2, %thread, 1;
        setp.eq.u32 %p0, %w2, 0;
        @%p0 bra second;
    first:
        add.u32 %w0, %w0, 1;
        setp.ge.u32 %p1, %w0, 50;
        @%p1 bra left;
    second:
        add.u32 %w0, %w0, %thread;
        add.u32 %w1, %w1, 1;
        setp.lt.u32 %p2, %w1, 6;
        @%p2 bra first;
    done:
    """

    def expected(thread: int) -> int:
        total = rounds = 0
        at_second = thread % 2 == 0
        while True:
            if not at_second:
                total += 1
                if total >= 50:
                    return total + 1000
            at_second = False
            total += thread
            rounds += 1
            if rounds >= 6:
                return total

    assert run(emulator, body) == [expected(thread) for thread in range(32)]


def test_indexed_branches(emulator: ctypes.CDLL) -> None:
    body = """
        rem.u32 %w1, %thread, {cases};
    targets: .branchtargets
        zero, one, two;
        brx.idx %w1, targets;
    two:
        mov.u32 %w0, 22;
        bra done;
    zero:
        mov.u32 %w0, 10;
        bra done;
    one:
        mov.u32 %w0, 11;
    done:
    """
    assert run(emulator, body.replace("{cases}", "3")) == ([10, 11, 22] * 11)[:32]
    fails(emulator, body.replace("{cases}", "4"), r"thread \(3, 0, 0\): branch index out of range")


def test_labels_and_registers_belong_to_their_scope(emulator: ctypes.CDLL) -> None:
    scope = """
        {
            .reg .pred %p0;
            .reg .u32 t;
            setp.eq.u32 %p0, %thread, VALUE;
            mov.u32 t, 100;
            @!%p0 bra skip;
            add.u32 %w0, t, VALUE;
        skip:
        }
    """
    body = "mov.u32 %w0, 0;" + scope.replace("VALUE", "3") + scope.replace("VALUE", "5")
    assert run(emulator, body) == [{3: 103, 5: 105}.get(i, 0) for i in range(32)]


def test_lanes_may_leave_early(emulator: ctypes.CDLL) -> None:
    body = """
        setp.gt.u32 %p0, %thread, 9;
        mov.u32 %w0, 5;
        @%p0 ret;
    """
    assert run(emulator, body) == [5] * 10 + [UNTOUCHED] * 22


def test_functions_are_called(emulator: ctypes.CDLL) -> None:
    before = """
    .func (.param .b32 result) twice(.param .b32 x, .param .align 8 .b8 y[16]);
    .func (.param .b32 result) twice(.param .b32 x, .param .align 8 .b8 y[16])
    {
        .reg .b32 %w<4>;
        .reg .b64 %q<4>;
        .reg .pred %p<2>;
        ld.param.u32 %w0, [x];
        mov.b64 %q0, y;
        ld.param.u32 %w1, [%q0+8];
        setp.lt.u32 %p0, %w0, 5;
        @%p0 bra small;
        mad.lo.u32 %w0, %w0, 2, %w1;
        st.param.b32 [result], %w0;
        ret;
    small:
        st.param.b32 [result+0], %w1;
        ret;
    }
    .func (.param .b32 r) outer(.param .b32 x)
    {
        .reg .b32 %w<3>;
        ld.param.u32 %w0, [x];
        { .param .b32 x; st.param.b32 [x], %w0;
          .param .align 8 .b8 y[16]; st.param.b32 [y+8], 7;
          .param .b32 back;
          call.uni (back), twice, (x, y);
          ld.param.b32 %w1, [back]; }
        add.u32 %w1, %w1, %w0;
        st.param.b32 [r], %w1;
        ret;
    }
    """
    call = """
        { .param .b32 x; st.param.b32 [x], %thread; .param .b32 r;
          call.uni (r), outer, (x); ld.param.b32 %wOUT, [r]; }
    """
    body = call.replace("OUT", "1") + call.replace("OUT", "2") + "add.u32 %w0, %w1, %w2;"
    out = np.zeros(32, U32)
    Module(kernel(body + store(), before=before), emulator).launch("k", 1, 32, [out])
    assert out.tolist() == [2 * ((7 if i < 5 else 2 * i + 7) + i) for i in range(32)]


# Operations of several lanes together


SHUFFLES: list[tuple[str, int, Callable[[int], int | None]]] = [
    ("up", 0, lambda i: i - 3 if i >= 3 else None),
    ("down", 31, lambda i: i + 3 if i + 3 < 32 else None),
    ("bfly", 31, lambda i: i ^ 3),
    ("idx", 31, lambda i: 3),
    # In segments of 8 lanes.
    ("down", 0x181F, lambda i: i + 3 if i % 8 + 3 < 8 else None),
    ("up", 0x1800, lambda i: i - 3 if i % 8 >= 3 else None),
    ("idx", 0x181F, lambda i: i // 8 * 8 + 3),
    ("bfly", 0x1C1F, lambda i: i ^ 3),
]


@pytest.mark.parametrize(("mode", "clamp", "source"), SHUFFLES)
def test_shuffles(
    emulator: ctypes.CDLL, mode: str, clamp: int, source: Callable[[int], int | None]
) -> None:
    body = f"""
        mul.lo.u32 %w1, %thread, 5;
        shfl.sync.{mode}.b32 %w0|%p0, %w1, 3, {clamp}, -1;
        @!%p0 add.u32 %w0, %w0, 1000;
    """
    sources = [source(i) for i in range(32)]
    own = [5 * i + 1000 for i in range(32)]
    expected = [own[i] if of is None else 5 * of for i, of in enumerate(sources)]
    assert run(emulator, body) == expected


def test_a_value_from_a_lane_that_does_not_take_part_is_undefined(emulator: ctypes.CDLL) -> None:
    body = """
        setp.ge.u32 %p0, %thread, 8;
        mov.u32 %w0, 0;
        @%p0 bra done;
        shfl.sync.idx.b32 %w0, %thread, 9, 31, 0xff;
    done:
    """
    fails(emulator, body, r"thread \(0, 0, 0\): store of an undefined value")
    assert run(emulator, body.replace(", 9,", ", 7,")) == [7] * 8 + [0] * 24


def test_votes_and_reductions(emulator: ctypes.CDLL) -> None:
    body = """
        setp.lt.u32 %p0, %thread, 7;
        vote.sync.ballot.b32 %w1, %p0, -1;
        vote.sync.any.pred %p1, %p0, -1;
        vote.sync.all.pred %p2, %p0, -1;
        vote.sync.uni.pred %p3, !%p0, -1;
        setp.lt.u32 %p4, %thread, 99;
        vote.sync.all.pred %p5, %p4, -1;
        vote.sync.uni.pred %p6, !%p4, -1;
        selp.u32 %w2, 1, 0, %p1;
        selp.u32 %w3, 2, 0, %p2;
        selp.u32 %w4, 4, 0, %p3;
        selp.u32 %w5, 8, 0, %p5;
        selp.u32 %w6, 16, 0, %p6;
        or.b32 %w0, %w2, %w3;
        or.b32 %w0, %w0, %w4;
        or.b32 %w0, %w0, %w5;
        or.b32 %w0, %w0, %w6;
        shl.b32 %w1, %w1, 8;
        or.b32 %w0, %w0, %w1;
    """
    assert run(emulator, body) == [0x7F00 | 1 | 8 | 16] * 32
    values = [(i * 2654435761) % 2**32 for i in range(32)]
    signed = [v - 2**32 if v >> 31 else v for v in values]
    for name, expected in [
        ("add.u32", sum(values)),
        ("add.s32", sum(values)),
        ("min.u32", min(values)),
        ("max.u32", max(values)),
        ("min.s32", min(signed)),
        ("max.s32", max(signed)),
        ("and.b32", int(np.bitwise_and.reduce(values))),
        ("or.b32", int(np.bitwise_or.reduce(values))),
        ("xor.b32", int(np.bitwise_xor.reduce(values))),
    ]:
        body = f"mul.lo.u32 %w1, %thread, 2654435761;\nredux.sync.{name} %w0, %w1, -1;"
        assert run(emulator, body) == [expected % 2**32] * 32, name
    body = "and.b32 %w1, %thread, 3;\nmatch.any.sync.b32 %w0, %w1, -1;"
    assert run(emulator, body) == [0x11111111 << i % 4 for i in range(32)]


def test_parts_of_a_warp_act_apart(emulator: ctypes.CDLL) -> None:
    # Both halves come to the same instruction at the same time, with different masks.
    body = """
        setp.lt.u32 %p0, %thread, 12;
        selp.b32 %w1, 0xfff, 0xfffff000, %p0;
        redux.sync.add.u32 %w0, %thread, %w1;
    """
    assert run(emulator, body) == [sum(range(12))] * 12 + [sum(range(12, 32))] * 20


def test_lanes_are_waited_for(emulator: ctypes.CDLL) -> None:
    # The odd lanes come later, by another path.
    body = """
        and.b32 %w1, %thread, 1;
        mov.u32 %w2, 1;
        setp.eq.u32 %p0, %w1, 0;
        @%p0 bra meet;
        bra detour;
    meet:
        redux.sync.add.u32 %w0, %w2, -1;
        bra done;
    detour:
        mov.u32 %w2, 100;
        bra meet;
    done:
    """
    assert run(emulator, body) == [16 + 1600] * 32


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("setp.lt.u32 %p0, %thread, 4;\n@%p0 bra.uni a;\nbar.warp.sync -1;\na: mov.u32 %w0, 0;\n"
         "exit;", "lanes 0xfffffff0 wait for lanes that never arrive; lanes 0xf have exited"),
        ("setp.lt.u32 %p0, %thread, 4;\n@%p0 exit;\nbar.warp.sync -1;",
         r"thread \(0, 0, 0\): lane has exited"),
        ("setp.lt.u32 %p0, %thread, 4;\n@%p0 bra a;\nbar.warp.sync -1;\nbra b;\na:\n"
         "bar.warp.sync -1;\nb:", "wait for lanes that never arrive"),
        ("bar.warp.sync 0xf;", r"thread \(4, 0, 0\): not in its own member mask 0xf"),
    ],
)  # fmt: skip
def test_a_lane_that_is_named_must_come(emulator: ctypes.CDLL, body: str, message: str) -> None:
    fails(emulator, body, message)


def test_lanes_that_are_not_there_must_not_be_named(emulator: ctypes.CDLL) -> None:
    fails(emulator, "bar.warp.sync -1;\nmov.u32 %w0, 0;", "names lanes not there", threads=20)


@pytest.mark.parametrize(
    ("name", "mask"),
    [
        ("eq", lambda i: 1 << i),
        ("lt", lambda i: (1 << i) - 1),
        ("le", lambda i: (2 << i) - 1),
        ("gt", lambda i: 2**32 - (2 << i)),
        ("ge", lambda i: 2**32 - (1 << i)),
    ],
)
def test_lane_masks(emulator: ctypes.CDLL, name: str, mask: Callable[[int], int]) -> None:
    body = f"mov.u32 %w0, %lanemask_{name};"
    assert run(emulator, body) == [mask(i) for i in range(32)]
