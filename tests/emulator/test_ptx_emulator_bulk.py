"""Bulk copies and mbarriers in the emulator, by the PTX manual: phases, bytes, and races."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

import ptx_emulator
from ptx_programs import kernel

COPY = "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [page], [%in], 64, [bar];"
EXPECT = "mbarrier.arrive.expect_tx.shared::cta.b64 _, [bar], 64;"
FENCE = "fence.proxy.async.shared::cta;"


def wait(parity: int = 0, label: str = "W") -> str:
    return f"""
    {label}: mbarrier.try_wait.parity.shared::cta.b64 %p1, [bar], {parity};
    @!%p1 bra {label};
    """


def program(first: str, everyone: str = "", count: int = 1) -> str:
    """Return a kernel of which thread 0 does `first`, and all threads `everyone` and a load."""
    body = f"""
    .shared .align 16 .b8 page[64];
    .shared .align 8 .b64 bar;
    setp.ne.u32 %p0, %thread, 0;
    @%p0 bra REST;
    mbarrier.init.shared::cta.b64 [bar], {count};
    {first}
    REST:
    {everyone}
    ld.shared.u32 %w0, [page + 16];
    .reg .b64 %place;
    mad.wide.u32 %place, %thread, 4, %out;
    st.global.u32 [%place], %w0;
    """
    return kernel(body, [".u64 out", ".u64 in"])


def run(emulator: ctypes.CDLL, text: str, seed: int = 0) -> list[int]:
    out, page = np.zeros(64, np.uint32), np.arange(16, dtype=np.uint32)
    module = ptx_emulator.Module(text, emulator)
    module.launch("k", 1, 64, [out, page], seed=seed)
    return [int(word) for word in out]


@pytest.mark.parametrize("seed", range(8))
def test_who_waits_for_the_phase_finds_the_bytes(emulator: ctypes.CDLL, seed: int) -> None:
    text = program(f"{FENCE} {EXPECT} {COPY}", f"bar.sync 0; {wait()}")
    assert run(emulator, text, seed) == [4] * 64


def test_bytes_may_come_before_they_are_expected(emulator: ctypes.CDLL) -> None:
    text = program(f"{FENCE} {COPY} {EXPECT}", f"bar.sync 0; {wait()}")
    assert run(emulator, text) == [4] * 64


def test_a_barrier_passes_on_what_one_thread_has_waited_for(emulator: ctypes.CDLL) -> None:
    text = program(f"{FENCE} {EXPECT} {COPY} {wait()}", "bar.sync 0;")
    assert run(emulator, text) == [4] * 64


FAULTS = {
    "nobody waited": (f"{FENCE} {EXPECT} {COPY}", "bar.sync 0;", 1, "bulk copy writes here"),
    "the phase before was waited for": (
        f"{FENCE} {EXPECT} {COPY}",
        f"bar.sync 0; {wait(1)}",
        1,
        "bulk copy writes here",
    ),
    "the mbarrier may not be there yet": (
        f"{FENCE} {EXPECT} {COPY}",
        wait(),
        1,
        "no mbarrier was initialized|data race",
    ),
    "no fence": (f"{EXPECT} {COPY}", f"bar.sync 0; {wait()}", 1, "no fence.proxy.async"),
    "an arrival is missing": (
        f"{FENCE} {EXPECT} {COPY}",
        f"bar.sync 0; {wait()}",
        2,
        "never ends",
    ),
    "bytes are missing": (f"{FENCE} {EXPECT}", f"bar.sync 0; {wait()}", 1, "never ends"),
    "two arrivals for one": (
        f"{FENCE} {EXPECT} {EXPECT} {COPY}",
        f"bar.sync 0; {wait()}",
        1,
        "more arrivals than an mbarrier is for",
    ),
    "it was initialized twice": (
        "mbarrier.init.shared::cta.b64 [bar], 1;",
        "bar.sync 0;",
        1,
        "initialized before",
    ),
    "an odd size": (
        f"{FENCE} {EXPECT} {COPY.replace('64', '60')}",
        "bar.sync 0;",
        1,
        "not all multiples of 16",
    ),
    "beyond the target": (
        f"{FENCE} {EXPECT} {COPY.replace('64', '80')}",
        "bar.sync 0;",
        1,
        "out of bounds",
    ),
    "a copy over bytes that are read": (
        f"{FENCE} {EXPECT} {COPY} {wait()} {EXPECT} {COPY}",
        "bar.sync 0;",
        1,
        "bulk copy writes here",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found(name: str, emulator: ctypes.CDLL) -> None:
    first, everyone, count, message = FAULTS[name]
    with pytest.raises(ptx_emulator.EmulatorError, match=message):
        run(emulator, program(first, everyone, count))


def test_a_copy_that_outlives_its_block_is_found(emulator: ctypes.CDLL) -> None:
    text = program(f"{FENCE} {EXPECT} {COPY}", "ret;")
    with pytest.raises(ptx_emulator.EmulatorError, match="ends before its bulk copies do"):
        run(emulator, text)


def test_a_copy_over_what_other_warps_still_read_is_a_race(emulator: ctypes.CDLL) -> None:
    # All threads read the first page; thread 0 copies the next without a sign that they have.
    again = f"""
    ld.shared.u32 %w1, [page + 16];
    @%p0 bra LAST;
    {EXPECT} {COPY}
    LAST:
    {wait(1, "V")}
    """
    for seed in range(4):
        text = program(f"{FENCE} {EXPECT} {COPY}", f"bar.sync 0; {wait()} {again}")
        with pytest.raises(ptx_emulator.EmulatorError, match="data race"):
            run(emulator, text, seed)
    # With a barrier between, it is none.
    text = program(
        f"{FENCE} {EXPECT} {COPY}",
        f"bar.sync 0; {wait()} {again.replace('@%p0 bra LAST;', 'bar.sync 0; @%p0 bra LAST;')}",
    )
    assert run(emulator, text) == [4] * 64


def test_a_bulk_prefetch_is_in_bounds_and_of_whole_vectors(emulator: ctypes.CDLL) -> None:
    def prefetch(size: int) -> str:
        return program(
            f"{FENCE} {EXPECT} {COPY} cp.async.bulk.prefetch.L2.global [%in], {size};",
            f"bar.sync 0; {wait()}",
        )

    assert run(emulator, prefetch(64)) == [4] * 64
    for size, message in ((60, "multiples of 16"), (80, "outside of all arrays")):
        with pytest.raises(ptx_emulator.EmulatorError, match=message):
            run(emulator, prefetch(size))
