"""The variants of the page kernels: the shipped PTX, byte for byte, in the emulator."""

from __future__ import annotations

import ctypes
import re
from functools import cache

import pytest

import make_ptx
import morphogen.engine.cuda.ptx as ptx
import ptx_emulator
from kernel_device import Cut, assert_scans, open_kernels
from morphogen.engine.cuda.variants import DEFAULT, VARIANTS, Variant, find, fitting, names

EVERY = [(variant.name, keys) for variant in VARIANTS for keys in variant.keys]
every_kernel = pytest.mark.parametrize(("name", "keys"), EVERY)


@pytest.fixture(scope="module")
def sources(emulator: ctypes.CDLL) -> dict[str, ptx_emulator.Module]:
    found = {variant.source: ptx.choose((9, 0), variant.source) for variant in VARIANTS}
    return {source: open_kernels(emulator, path.name) for source, path in found.items() if path}


@cache
def entries(name: str) -> set[str]:
    text = (make_ptx.COMMITTED / name).read_text()
    return set(re.findall(r"\.visible \.entry (\w+)\(", text))


def scans(
    sources: dict[str, ptx_emulator.Module],
    variant: Variant,
    shape: tuple[int, int],
    keys: int,
    runs: int,
    *,
    seed: int = 0,
) -> None:
    assert_scans(sources[variant.source], shape, keys, Cut(runs=runs), seed=seed, variant=variant)


@every_kernel
def test_a_small_table(sources: dict[str, ptx_emulator.Module], name: str, keys: int) -> None:
    # Two whole tiles and a narrow one, two leaves in part, a tail of pages.
    scans(sources, find(name), (46, 8192 + 48), keys, 2)


@pytest.mark.slow
@every_kernel
@pytest.mark.parametrize(
    ("num_pages", "page_size", "runs"),
    [(1111, 16, 3), (150, 500, 2), (150, 1040, 1), (600, 512, 5), (170, 4096, 3)],
)
def test_more_tables(
    sources: dict[str, ptx_emulator.Module],
    name: str,
    keys: int,
    num_pages: int,
    page_size: int,
    runs: int,
) -> None:
    scans(sources, find(name), (num_pages, page_size), keys, runs, seed=runs)


@pytest.mark.slow
@pytest.mark.parametrize("keys", [6, 24])
@pytest.mark.parametrize("seed", range(3))
def test_copies_of_more_pages_than_the_ring_holds_in_any_order(
    sources: dict[str, ptx_emulator.Module], seed: int, keys: int
) -> None:
    # 33 stages of a ring of 5, and 21 windows of leaves, of which each run has some.
    scans(sources, find("tma"), (261, 4096), keys, 1, seed=seed)
    scans(sources, find("tma"), (21 * 512 + 5, 16), keys, 2, seed=seed)


def test_a_variant_has_the_kernels_that_it_says() -> None:
    said = {
        f"{variant.source} morphogen_scan_{keys}_{variant.name}"
        for variant in VARIANTS
        for keys in variant.keys
    }
    files = [name for name in make_ptx.FILES if name.split(".")[0] in {v.source for v in VARIANTS}]
    assert said == {f"{name.split('.')[0]} {entry}" for name in files for entry in entries(name)}


def test_the_ptx_of_a_variant_is_for_the_devices_that_it_names() -> None:
    for variant in VARIANTS:
        assert ptx.choose(variant.compute_capability, variant.source) is not None
        major, minor = variant.compute_capability
        assert f"{variant.source}.compute_{major}{minor}.ptx" in make_ptx.FILES


def test_names_are_different_and_none_is_that_of_the_default() -> None:
    every = names(VARIANTS)
    assert len(set(every)) == len(every)
    assert every[0] == DEFAULT


def test_a_device_gets_the_variants_that_it_can_run() -> None:
    assert "bulk_prefetch" in names(fitting((9, 0)))
    assert "bulk_prefetch" not in names(fitting((8, 9)))
    assert "red" in names(fitting((8, 0)))
    assert "tma" in names(fitting((10, 0)))
    assert "tma" not in names(fitting((12, 0))), "whose blocks have 99 KiB of shared memory"
