"""The emulator's memory: state spaces, widths, bounds, undefined values."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

import ptx_emulator
from ptx_emulator import EmulatorError, Module
from ptx_programs import kernel, store

# Widths


@pytest.mark.parametrize("kind", ["u", "s", "b"])
@pytest.mark.parametrize(
    ("bits", "register"),
    [(8, 16), (8, 32), (8, 64), (16, 16), (16, 32), (16, 64), (32, 32), (32, 64), (64, 64)],
)
def test_a_load_extends_and_a_store_truncates(
    emulator: ctypes.CDLL, bits: int, kind: str, register: int
) -> None:
    name = {16: "%h0", 32: "%w0", 64: "%q0"}[register]
    body = f"""
        mad.wide.u32 %q1, %thread, {bits // 8}, %in;
        ld.global.{kind}{bits} {name}, [%q1];
        mad.wide.u32 %q2, %thread, {bits // 8}, %narrow;
        st.global.{kind}{bits} [%q2], {name};
    """
    values = np.random.default_rng(bits).integers(0, 256, (64, bits // 8), np.uint8)
    values = values.view(f"u{bits // 8}").ravel()
    narrow = np.zeros_like(values)
    out = np.zeros(64, f"u{register // 8}")
    text = kernel(body + store(name, register), [".u64 out", ".u64 in", ".u64 narrow"])
    Module(text, emulator).launch("k", 2, 32, [out, values, narrow])
    wide = values.view(f"i{bits // 8}") if kind == "s" else values
    assert (out == wide.astype(f"i{register // 8}").view(out.dtype)).all()
    assert (narrow == values).all()


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("threads", [32, 29])
@pytest.mark.parametrize(("bits", "count"), [(8, 4), (16, 2), (32, 2), (32, 4), (64, 2)])
def test_vectors_move_whole(
    emulator: ctypes.CDLL, bits: int, count: int, threads: int, shuffled: bool
) -> None:
    letter = {8: "%h", 16: "%h", 32: "%w", 64: "%q"}[bits]
    registers = ", ".join(f"{letter}{10 + i}" for i in range(count))
    body = f"""
        xor.b32 %w0, %thread, {5 if shuffled else 0};
        mad.wide.u32 %q0, %w0, {bits // 8 * count}, %in;
        ld.global.nc.L1::no_allocate.v{count}.b{bits} {{{registers}}}, [%q0];
        mad.wide.u32 %q0, %w0, {bits // 8 * count}, %out;
        st.global.cs.v{count}.b{bits} [%q0], {{{registers}}};
    """
    rng = np.random.default_rng(bits)
    values = rng.integers(0, 256, (32, count * bits // 8), np.uint8)
    out = np.full_like(values, 0xA5)
    module = Module(kernel(body, [".u64 out", ".u64 in"]), emulator)
    statistics = module.launch("k", 1, threads, [out, values])
    touched = np.arange(threads) ^ (5 if shuffled else 0)
    untouched = np.setdiff1d(np.arange(32), touched)
    assert (out[touched] == values[touched]).all()
    assert (out[untouched] == 0xA5).all()
    assert statistics.global_load_bytes == threads * values.shape[1]


# Bounds and alignment

ACCESSES = ["ld.global.u32 %w0, [%q0];", "st.global.u32 [%q0], 1;", "red.global.add.u32 [%q0], 1;"]


@pytest.mark.parametrize("access", [*ACCESSES, ACCESSES[0].replace(".global", "")])
def test_beyond_the_array_is_an_error(emulator: ctypes.CDLL, access: str) -> None:
    module = Module(kernel(f"mad.wide.u32 %q0, %thread, 4, %out;\n{access}"), emulator)
    module.launch("k", 1, 64, [np.zeros(64, np.uint32)])
    with pytest.raises(EmulatorError, match=r"thread \(63, 0, 0\): global memory .* outside"):
        module.launch("k", 1, 64, [np.zeros(63, np.uint32)])
    with pytest.raises(EmulatorError, match="outside"):  # the last word lies there in part
        module.launch("k", 1, 64, [np.zeros(255, np.uint8)])


@pytest.mark.parametrize("access", ACCESSES)
def test_before_the_array_is_an_error(emulator: ctypes.CDLL, access: str) -> None:
    body = f"mad.wide.u32 %q0, %thread, 4, %out;\nadd.s64 %q0, %q0, -4;\n{access}"
    with pytest.raises(EmulatorError, match=r"thread \(0, 0, 0\).*outside"):
        Module(kernel(body), emulator).launch("k", 1, 32, [np.zeros(64, np.uint32)])


@pytest.mark.parametrize("access", ACCESSES[1:])
def test_a_read_only_array_is_not_written(emulator: ctypes.CDLL, access: str) -> None:
    array = np.zeros(64, np.uint32)
    array.flags.writeable = False
    body = f"mad.wide.u32 %q0, %thread, 4, %out;\n{access}"
    with pytest.raises(EmulatorError, match="read-only"):
        Module(kernel(body), emulator).launch("k", 1, 32, [array])


@pytest.mark.parametrize(
    ("access", "bytes_"),
    [
        ("ld.global.u16 %h0", 2),
        ("ld.global.u64 %q9", 8),
        ("ld.global.v4.u32 {%w0,%w1,%w2,%w3}", 16),
    ],
)
def test_addresses_are_aligned_to_the_whole_access(
    emulator: ctypes.CDLL, access: str, bytes_: int
) -> None:
    text = kernel(f"add.s64 %q0, %out, {{offset}};\n{access}, [%q0+{bytes_}];")
    Module(text.replace("{offset}", str(bytes_)), emulator).launch(
        "k", 1, 1, [np.zeros(64, np.uint8)]
    )
    for offset in (1, bytes_ // 2, bytes_ - 1):
        module = Module(text.replace("{offset}", str(offset)), emulator)
        with pytest.raises(EmulatorError, match=f"not aligned to {bytes_} bytes"):
            module.launch("k", 1, 1, [np.zeros(64, np.uint8)])


def test_lanes_may_use_several_arrays_at_once(emulator: ctypes.CDLL) -> None:
    body = """
        mad.wide.u32 %q0, %thread, 8, %in;
        ld.global.u64 %q1, [%q0];
        ld.global.u32 %w0, [%q1];
    """
    arrays = ptx_emulator.place([np.full(1, 10 * i, np.uint32) for i in range(32)])
    out = np.zeros(32, np.uint32)
    text = kernel(body + store(), [".u64 out", ".u64 in"])
    Module(text, emulator).launch("k", 1, 32, [out, np.array(list(arrays), np.uint64)], arrays)
    assert (out == 10 * np.arange(32)).all()


def test_prefetching_beyond_an_array_is_allowed(emulator: ctypes.CDLL) -> None:
    body = "prefetch.global.L2 [%out+100000];\nprefetch.L1 [%out];"
    Module(kernel(body), emulator).launch("k", 1, 32, [np.zeros(1, np.uint32)])


# Parameters


PARAMETERS = [".u64 out", ".align 16 .b8 job[48]", ".u32 factor"]


@pytest.mark.parametrize(
    "read",
    [
        "ld.param.u8 %w0, [%q1];",
        "cvta.param.u64 %q1, %q1;\nld.u8 %w0, [%q1];",
        "cvta.param.u64 %q1, %q1;\ncvta.to.param.u64 %q1, %q1;\nld.param.u8 %w0, [%q1];",
    ],
)
def test_parameters_are_read_by_index(emulator: ctypes.CDLL, read: str) -> None:
    body = f"""
        mov.b64 %q0, job;
        cvt.u64.u32 %q1, %thread;
        add.s64 %q1, %q0, %q1;
        {read}
        ld.param.v4.u32 {{%w1, %w2, %w3, %w4}}, [job+16];
        add.u32 %w0, %w0, %w4;
        ld.param.u32 %w5, [factor];
        mul.lo.u32 %w0, %w0, %w5;
    """
    job = np.random.default_rng(0).integers(0, 256, 48, np.uint8)
    module = Module(kernel(body + store(), PARAMETERS), emulator)
    kinds = [(p.offset, p.size, p.alignment) for p in module.kernels["k"].parameters]
    assert kinds == [(0, 8, 8), (16, 48, 16), (64, 4, 4)]
    assert module.kernels["k"].parameter_bytes == 68
    out = np.zeros(48, np.uint32)
    module.launch("k", 1, 48, [out, job.tobytes(), 3])
    assert (out == 3 * (job + job.view(np.uint32)[7])).all()


def test_beyond_the_parameters_is_an_error(emulator: ctypes.CDLL) -> None:
    body = "mov.b64 %q0, job;\nld.param.u32 %w0, [%q0+52];"
    with pytest.raises(EmulatorError, match="parameter memory access out of bounds"):
        Module(kernel(body, PARAMETERS), emulator).launch("k", 1, 1, [0, bytes(48), 1])


# Variables of the module


def test_variables_keep_their_values_between_launches(emulator: ctypes.CDLL) -> None:
    before = """
        .const .align 4 .b8 table[8] = {1, 2, 3, 4, 5, 6, 7, 8};
        .global .align 8 .u64 counter = 0x100;
        .visible .global .u32 grid[2][3] = {{1, 2, 3}, {4, 5}};
    """
    body = """
        atom.global.add.u64 %q0, [counter], 1;
        ld.const.u32 %w1, [table+4];
        mov.u64 %q1, table;
        cvta.const.u64 %q1, %q1;
        ld.u16 %w2, [%q1+2];
        mov.u64 %q2, grid;
        ld.global.v2.u32 {%w3, %w4}, [%q2+16];
        cvt.u32.u64 %w0, %q0;
        st.global.v4.u32 [%out], {%w0, %w1, %w2, %w3};
        st.global.u32 [%out+16], %w4;
    """
    out = np.zeros(5, np.uint32)
    module = Module(kernel(body, before=before), emulator)
    for launch in range(3):
        module.launch("k", 1, 1, [out])
        assert out.tolist() == [0x100 + launch, 0x08070605, 0x0403, 5, 0]


def test_constants_are_not_written(emulator: ctypes.CDLL) -> None:
    body = "mov.u64 %q0, table;\ncvta.const.u64 %q0, %q0;\nst.u32 [%q0], 1;"
    module = Module(kernel(body, before=".const .u32 table[2];"), emulator)
    with pytest.raises(EmulatorError, match="store to constant memory"):
        module.launch("k", 1, 1, [np.zeros(1, np.uint32)])


# Local memory


def test_every_thread_has_its_own_local_memory(emulator: ctypes.CDLL) -> None:
    body = """
        .local .align 16 .b8 depot[32];
        mov.u64 %q0, depot;
        st.local.u32 [%q0+4], %thread;
        cvta.local.u64 %q1, %q0;
        and.b32 %w1, %thread, 3;
        mul.wide.u32 %q2, %w1, 4;
        add.s64 %q2, %q1, %q2;
        st.u32 [%q2+16], 100;
        ld.u32 %w2, [%q1+4];
        ld.local.u32 %w3, [%q2+16];
        add.u32 %w0, %w2, %w3;
    """
    out = np.zeros(64, np.uint32)
    Module(kernel(body + store()), emulator).launch("k", 1, 64, [out])
    assert (out == np.arange(64) + 100).all()


def test_beyond_local_memory_is_an_error(emulator: ctypes.CDLL) -> None:
    body = ".local .b8 depot[32];\nmov.u64 %q0, depot;\nst.local.u8 [%q0+32], 1;"
    with pytest.raises(EmulatorError, match="local memory access out of bounds"):
        Module(kernel(body), emulator).launch("k", 1, 32, [np.zeros(1, np.uint32)])


# Shared memory

EXCHANGE = """
    .shared .align 16 .b8 tile[512];
    mov.u32 %w1, tile;
    mad.lo.u32 %w2, %thread, 4, %w1;
    mul.lo.u32 %w3, %thread, 3;
    st.shared.u32 [%w2], %w3;
    bar.sync 0;
    xor.b32 %w4, %thread, 127;
    mad.lo.u32 %w2, %w4, 4, %w1;
    ld.shared.u32 %w0, [%w2];
"""


def test_threads_exchange_through_shared_memory(emulator: ctypes.CDLL) -> None:
    out = np.zeros(128, np.uint32)
    module = Module(kernel(EXCHANGE + store()), emulator)
    assert module.kernels["k"].shared_bytes == 512
    for seed in range(5):
        module.launch("k", 1, 128, [out], seed=seed)
        assert (out == 3 * (np.arange(128) ^ 127)).all()


def test_dynamic_and_generic_shared_memory(emulator: ctypes.CDLL) -> None:
    body = EXCHANGE.replace(".shared .align 16 .b8 tile[512];", "").replace(
        "%w1, tile", "%w1, tile"
    )
    body = body.replace(
        "ld.shared.u32 %w0, [%w2];",
        """
        cvt.u64.u32 %q0, %w2;
        cvta.shared.u64 %q0, %q0;
        isspacep.shared %p0, %q0;
        isspacep.global %p1, %q0;
        selp.u32 %w5, 1000, 0, %p0;
        selp.u32 %w5, 9999, %w5, %p1;
        ld.u32 %w0, [%q0];
        add.u32 %w0, %w0, %w5;
    """,
    )
    out = np.zeros(128, np.uint32)
    module = Module(
        kernel(body + store(), before=".extern .shared .align 16 .b8 tile[];"), emulator
    )
    assert module.kernels["k"].shared_bytes == 0
    module.launch("k", 1, 128, [out], dynamic_shared_bytes=512)
    assert (out == 3 * (np.arange(128) ^ 127) + 1000).all()
    with pytest.raises(EmulatorError, match=r"shared memory .* out of bounds.*dynamic"):
        module.launch("k", 1, 128, [out], dynamic_shared_bytes=511)


def test_beyond_shared_memory_is_an_error(emulator: ctypes.CDLL) -> None:
    body = EXCHANGE.replace("[512]", "[508]")
    with pytest.raises(EmulatorError, match=r"thread \(127, 0, 0\): shared memory access out of"):
        Module(kernel(body + store()), emulator).launch("k", 1, 128, [np.zeros(128, np.uint32)])


def test_shared_memory_is_undefined_in_every_block(emulator: ctypes.CDLL) -> None:
    body = """
        .shared .u32 word[1];
        setp.eq.u32 %p0, %block, 0;
        @%p0 st.shared.u32 [word], 7;
        ld.shared.u32 %w0, [word];
    """
    module = Module(kernel(body + store()), emulator)
    out = np.zeros(64, np.uint32)
    module.launch("k", 1, 32, [out])
    assert (out[:32] == 7).all()
    with pytest.raises(EmulatorError, match=r"block \(1, 0, 0\).*nothing wrote"):
        module.launch("k", 2, 32, [out])


# Undefined values


@pytest.mark.parametrize(
    ("use", "message"),
    [
        ("st.global.u32 [%out], %w1;", "store of an undefined value"),
        ("st.global.v2.u32 [%out], {%w0, %w1};", "store of an undefined value"),
        ("ld.global.u32 %w2, [%q1];", "an undefined value as an address"),
        ("setp.eq.u32 %p1, %w1, 0;\n@%p1 bra done;\ndone:", "an undefined value as a guard"),
        ("red.global.add.u32 [%out], %w1;", "an undefined value as an atomic's operand"),
        ("vote.sync.any.pred %p2, %p1, 1;", "an undefined value as a vote"),
        ("add.u32 %w2, %w0, %w1;\nst.global.u32 [%out], %w2;", "store of an undefined value"),
        ("selp.u32 %w2, %w0, %w1, %p0;\nst.global.u32 [%out], %w2;", "store of an undefined value"),
        (
            "setp.eq.u32 %p9, %w0, 0;\nselp.u32 %w2, %w1, %w0, %p9;\nst.global.u32 [%out], %w2;",
            "store of an undefined value",
        ),
        (
            ".local .u32 depot;\nld.local.u32 %w2, [depot];\nst.global.u32 [%out], %w2;",
            "store of an undefined value",
        ),
        (
            ".local .u32 depot;\nst.local.u32 [depot], %w1;\nld.local.u32 %w2, [depot];\n"
            "st.global.u32 [%out], %w2;",
            "store of an undefined value",
        ),
    ],
)
def test_an_undefined_value_must_not_matter(emulator: ctypes.CDLL, use: str, message: str) -> None:
    body = f"mov.u32 %w0, 0;\nsetp.ne.u32 %p0, %w0, 0;\n{use}\n"
    module = Module(kernel(body), emulator)
    with pytest.raises(EmulatorError, match=message):
        module.launch("k", 1, 1, [np.zeros(2, np.uint32)])


def test_an_undefined_value_may_be_passed_over(emulator: ctypes.CDLL) -> None:
    body = """
        setp.ge.u32 %p0, %thread, 0;
        add.u32 %w1, %w9, 1;
        selp.u32 %w0, %thread, %w1, %p0;
    """
    out = np.zeros(32, np.uint32)
    Module(kernel(body + store()), emulator).launch("k", 1, 32, [out])
    assert (out == np.arange(32)).all()


def test_registers_are_undefined_lane_by_lane(emulator: ctypes.CDLL) -> None:
    body = "setp.ne.u32 %p0, %thread, 9;\n@%p0 mov.u32 %w0, 1;\n" + store()
    with pytest.raises(EmulatorError, match=r"thread \(9, 0, 0\): store of an undefined value"):
        Module(kernel(body), emulator).launch("k", 1, 32, [np.zeros(32, np.uint32)])
