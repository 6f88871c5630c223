"""The variants of the page kernels, among which a measurement on the device decides.

All give the same bytes. They are compiled for the sizes of chunks that are measured; a chunk of
another size runs the default kernel.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Variant:
    """A variant.

    Attributes
    ----------
    name : str
    keys : tuple of int
        The kernels that there are, by the most keys of their chunks. Of a chunk that shares a
        kernel with fewer keys, 7 to 11 and 13 to 23, the next of these is the kernel.
    purpose : str
        What it does otherwise than the default.
    source : str
        The source of its kernels, of which a device loads the PTX.
    compute_capability : tuple of (int, int)
        The least that it needs.
    threads : int
        Of a block; 0 for those of the default kernel.
    dynamic_shared : int
        Bytes of shared memory that a block asks for at its launch.
    """

    name: str
    keys: tuple[int, ...]
    purpose: str
    source: str = "page_variants"
    compute_capability: tuple[int, int] = (8, 0)
    threads: int = 0
    dynamic_shared: int = 0


VARIANTS = (
    Variant("red", (3, 6, 12, 24), "adds sums by red, in whole sectors of device memory"),
    Variant("no_prefetch", (6,), "fetches nothing while the keys' trees are walked"),
    Variant("half_prefetch", (6,), "fetches 128 KiB a block meanwhile, not 256"),
    Variant("plain", (6, 12), "loads pages without the hint that a line is used once"),
    Variant("stream", (6, 12), "loads pages past the first-level cache, 256 bytes at a time"),
    Variant("two_blocks", (6,), "runs two blocks of 512 threads a multiprocessor", threads=512),
    Variant("masks", (12,), "adds pages under masks, without a jump for each key"),
    Variant(
        "bulk_prefetch",
        (6,),
        "fetches by one instruction for many pages",
        source="page_bulk",
        compute_capability=(9, 0),
    ),
)


def fitting(compute_capability: tuple[int, int]) -> tuple[Variant, ...]:
    """The variants that a device of this compute capability can run."""
    return tuple(one for one in VARIANTS if one.compute_capability <= compute_capability)


def names(variants: Iterable[Variant]) -> tuple[str, ...]:
    """The names that a caller may ask for: those of variants, and the default."""
    return (DEFAULT, *(variant.name for variant in variants))


def find(name: str) -> Variant:
    """The variant of a name, which must be one."""
    return next(variant for variant in VARIANTS if variant.name == name)
