"""The variants of the page kernels, among which a measurement on the device decides.

All give the same bytes. They are compiled for the sizes of chunks that are measured; a chunk of
another size runs the default kernel.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

DEFAULT = "default"
_STATIC_SHARED = 48 * 1024  # the most of any kernel


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
    threads : tuple of int
        Of a block, for each of ``keys``; none where they are those of the default kernel.
    dynamic_shared : int
        Bytes of shared memory that a block asks for at its launch.
    """

    name: str
    keys: tuple[int, ...]
    purpose: str
    source: str = "page_variants"
    compute_capability: tuple[int, int] = (8, 0)
    threads: tuple[int, ...] = ()
    dynamic_shared: int = 0

    def block_threads(self, keys: int, default: int) -> int:
        """Threads of a block of the kernel for so many keys, where the default kernel has these."""
        return self.threads[self.keys.index(keys)] if self.threads else default


VARIANTS = (
    Variant("red", (3, 6, 12, 24), "adds sums by red, in whole sectors of device memory"),
    Variant("no_prefetch", (6,), "fetches nothing while the keys' trees are walked"),
    Variant("half_prefetch", (6,), "fetches 128 KiB a block meanwhile, not 256"),
    Variant("plain", (6, 12), "loads pages without the hint that a line is used once"),
    Variant("stream", (6, 12), "loads pages past the first-level cache, 256 bytes at a time"),
    Variant("two_blocks", (6,), "runs two blocks of 512 threads a multiprocessor", threads=(512,)),
    Variant("masks", (12,), "adds pages under masks, without a jump for each key"),
    Variant(
        "bulk_prefetch",
        (6,),
        "fetches by one instruction for many pages",
        source="page_bulk",
        compute_capability=(9, 0),
    ),
    Variant(
        "tma",
        (3, 6, 12, 24),
        "copies pages to shared memory by bulk instructions, beside the walk and the scan",
        source="page_bulk",
        compute_capability=(9, 0),
        threads=(512, 512, 512, 256),
        dynamic_shared=160 * 1024,  # kRingBytes
    ),
)


def fitting(compute_capability: tuple[int, int]) -> tuple[Variant, ...]:
    """The variants that a device of this compute capability can run."""
    # Of a block: "Technical specifications per compute capability" in the CUDA programming guide.
    shared = (227 if compute_capability[0] in (9, 10) else 99) * 1024
    return tuple(
        one
        for one in VARIANTS
        if one.compute_capability <= compute_capability
        and one.dynamic_shared + _STATIC_SHARED <= shared
    )


def names(variants: Iterable[Variant]) -> tuple[str, ...]:
    """The names that a caller may ask for: those of variants, and the default."""
    return (DEFAULT, *(variant.name for variant in variants))


def find(name: str) -> Variant:
    """The variant of a name, which must be one."""
    return next(variant for variant in VARIANTS if variant.name == name)


def kernel_keys(keys: int) -> int:
    """The most keys of the kernel that runs chunks of so many, 1 to 24."""
    return keys if keys <= 6 else 12 if keys <= 12 else 24
