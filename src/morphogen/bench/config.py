"""The settings of a benchmark, and the sizes that follow from them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import morphogen.dpf as dpf
from morphogen.batcher import MAX_QUEUED
from morphogen.bench.strategies import ALL, check_names
from morphogen.checks import check_range
from morphogen.engine import device_candidates, shares_pages
from morphogen.engine.cuda.status import free_memory
from morphogen.engine.cuda.variants import VARIANTS
from morphogen.engine.layouts import check_layout
from morphogen.planner import MAX_KEYS_PER_QUERY

# Requests that each of several callers makes in a round, one after the other: the sizes of chunks
# settle by then.
REQUESTS = 8

_ALL_STRATEGIES = 8  # the most that "all" means
_ALL_VARIANTS = 3 * (1 + len(VARIANTS))  # at most each in three widths
_VECTOR_BYTES = 16  # on a GPU a page is padded to whole vectors
# `most_pages` leaves room for the sums of two lanes, 6 pages each, and for their counters. The
# driver's own needs are not known: it gets a 64th.
_PAGES_LEFT = 16
# The same with layout="bits", where sums are of 96 keys, and pages lie in groups of 256. Each page
# then takes its own bytes again, and 12 bytes of selection bits in each of two lanes.
_BIT_PAGES_LEFT = 1024
_SELECTION_BYTES = 24
_DRIVER_SHARE = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkConfig:
    """The settings of a benchmark.

    Attributes
    ----------
    num_pages, page_size : int
        The pages: random ones, or the first of a file.
    batch_sizes : tuple of int
        Queries a batch, one row of the result for each, all different.
    keys_per_query : int
        1 to 3.
    iterations : int
        Rounds that are timed.
    warmup : int
        Rounds before them that are not.
    seed : int
        Of pages, indices and keys: the same seed gives the same answers on every device that gets
        its pages from the host, and on every GPU that makes them.
    device : str
        "cpu", "cuda:N", or several of these with commas between, which share the pages;
        `choose_device` gives it for other names.
    threads : int or None
        On the CPU; None for one for each core this process may use.
    instruction_set : str or None
        On the CPU; None for the widest.
    pages_on : str or None
        The maker of the pages: "host" or, on one GPU, "device", which needs no memory of the host's
        for them and no upload. None for "device" on one GPU.
    layout : str
        On one GPU: how it holds the pages, as `morphogen.open_engine` takes it.
    phases : bool
        On one GPU: whether to measure the phases of a batch too.
    matrix_file : Path or None
        A file to map as pages, instead of random ones. A short last page is filled up with zeros.
    strategies : tuple of str
        Ways to run a batch that are measured too: "all", or names such as
        "chunks-4-lanes-2-graph".
    concurrency : tuple of int
        Numbers of callers at the same time that are measured too, all different.
    variants : tuple of str
        On one GPU: variants of its kernels that are measured too, "all" or names, all different.
    """

    num_pages: int
    page_size: int
    batch_sizes: tuple[int, ...]
    keys_per_query: int
    iterations: int
    warmup: int
    seed: int = 0
    device: str = "cpu"
    threads: int | None = None
    instruction_set: str | None = None
    pages_on: str | None = None
    layout: str = "plain"
    phases: bool = False
    matrix_file: Path | None = None
    strategies: tuple[str, ...] = ()
    concurrency: tuple[int, ...] = ()
    variants: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_range("num_pages", self.num_pages, 1, dpf.MAX_PAGES)
        check_range("page_size", self.page_size, 1)
        check_range("keys_per_query", self.keys_per_query, 1, MAX_KEYS_PER_QUERY)
        check_range("iterations", self.iterations, 1)
        check_range("warmup", self.warmup, 0)
        check_range("seed", self.seed, 0)
        if not self.batch_sizes:
            raise ValueError("batch_sizes must have at least one entry, not 0")
        for size in self.batch_sizes:
            check_range("a batch size", size, 1)
        for callers in self.concurrency:
            # A batcher would refuse one more.
            check_range("a number of callers", callers, 1, MAX_QUEUED)
        for name in ("batch_sizes", "concurrency", "strategies", "variants"):
            values = getattr(self, name)
            if len(set(values)) != len(values):
                raise ValueError(f"{name} must all be different, not {values}")
        check_names(self.strategies)
        names = self.device.split(",")
        if not all(re.fullmatch(r"cpu|cuda:\d+", name) for name in names):
            raise ValueError(
                "device must be 'cpu' or 'cuda:N', or several of them with commas between, not "
                f"{self.device!r}"
            )
        if self.pages_on not in (None, "host", "device"):
            raise ValueError(f"pages_on must be 'host' or 'device', not {self.pages_on!r}")
        if self.matrix_file is not None and self.pages_on == "device":
            raise ValueError("the pages of a file cannot be made on the device")
        if "cpu" not in names and (self.threads is not None or self.instruction_set is not None):
            raise ValueError(f"threads and instruction_set are the CPU's, not for {self.device!r}")
        check_layout(self.layout)
        if self.on_gpu:
            return
        if self.layout != "plain":
            raise ValueError(f"layout={self.layout!r} is for one GPU, not for {self.device!r}")
        if self.pages_on == "device":
            raise ValueError("pages are made on the device only where that is one GPU")
        if self.phases:
            raise ValueError("phases are measured only on one GPU")
        if self.variants:
            raise ValueError("variants of kernels are measured only on one GPU")

    @property
    def on_gpu(self) -> bool:
        """Whether one GPU is measured."""
        return self.device != "cpu" and not self.shared

    @property
    def shared(self) -> bool:
        """Whether several devices share the pages."""
        return "," in self.device

    @property
    def ordinal(self) -> int:
        """N of "cuda:N"."""
        return _ordinal(self.device)

    @property
    def generated(self) -> bool:
        """Whether the device makes the pages."""
        return self.on_gpu and self.pages_on != "host" and self.matrix_file is None

    @property
    def queries(self) -> int:
        """The most queries that are under way at a time."""
        return max(*self.batch_sizes, *self.concurrency, 1)

    @property
    def memory(self) -> int:
        """Bytes of the host's that a run needs: the pages, unless mapped, and answers."""
        # The first answers of the batch and both loops, and the newest in parts and as a whole.
        # On a GPU also party 1's, the fetched pages, and their sums.
        kept = 9 if self.on_gpu else 5
        kept += _ALL_STRATEGIES if ALL in self.strategies else len(self.strategies)
        kept += _ALL_VARIANTS if self.variants else 0
        answers = kept * max(self.batch_sizes)
        # Concurrent callers: a round of answers, the first ones, and the right ones.
        answers = max(answers, (REQUESTS + 2) * max(self.concurrency, default=0))
        mapped = self.generated or self.matrix_file is not None
        return (answers * self.keys_per_query + (0 if mapped else self.num_pages)) * self.page_size


def choose_device(device: str) -> str:
    """Choose the device that a name means: for "auto" and "cuda", the first GPU that can be used.

    For "cuda:all" these are all of them.

    Parameters
    ----------
    device : str
        As `morphogen.open_engine` takes it.

    Returns
    -------
    str
        "cpu" or "cuda:N", or several of them with commas between.

    Raises
    ------
    DeviceUnavailableError, ValueError
        If it cannot be used here, or there is no such name.
    """
    candidates = device_candidates(device)
    chosen = candidates if shares_pages(device) else candidates[:1]
    return ",".join("cpu" if ordinal is None else f"cuda:{ordinal}" for ordinal in chosen)


def most_pages(device: str, page_size: int, layout: str = "plain") -> int:
    """The number of pages that fit the free memory of a GPU.

    Parameters
    ----------
    device : str
        "cuda:N".
    page_size : int
    layout : str, optional
        As for `BenchmarkConfig`.

    Returns
    -------
    int

    Raises
    ------
    ValueError
        If the device is no GPU alone: other programs need the host's memory, too.
    """
    check_range("page_size", page_size, 1)
    if not re.fullmatch(r"cuda:\d+", device):
        raise ValueError("as many pages as fit are measured only on one GPU")
    stride = -(-page_size // _VECTOR_BYTES) * _VECTOR_BYTES  # a page as the device has it
    free = free_memory(_ordinal(device))
    room = free - free // _DRIVER_SHARE
    pages = room // stride - _PAGES_LEFT
    if layout == "bits":
        pages = room // (2 * stride + _SELECTION_BYTES) - _BIT_PAGES_LEFT
    return max(1, min(pages, dpf.MAX_PAGES))


def _ordinal(device: str) -> int:
    return int(device.removeprefix("cuda:"))
