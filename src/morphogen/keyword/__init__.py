"""Build a keyword table, whose pages are looked up by key.

`TableLayout` says where the keys are, and looks them up; section 12 of docs/protocol.md defines
every byte.
"""

from __future__ import annotations

from collections.abc import Iterable

from morphogen.keyword.builder import (
    BuiltTable as BuiltTable,
    TableBuilder as TableBuilder,
    WrittenTable as WrittenTable,
)
from morphogen.keyword.layout import Bytes, TableLayout as TableLayout
from morphogen.keyword.placement import Duplicates
from morphogen.progress import Progress, StagedProgress


def build(
    items: Iterable[tuple[bytes | str, bytes | str]],
    *,
    page_size: int = 4096,
    load: float | None = None,
    seed: bytes | None = None,
    progress: Progress | None = None,
    value_size: int | None = None,
    proof_levels: int | None = None,
    duplicates: Duplicates = "error",
) -> tuple[Bytes, TableLayout]:
    """Build a keyword table.

    Parameters
    ----------
    items : iterable of tuple of bytes or str
        Keys with their values: at least one. Text is stored as UTF-8.
    page_size : int, optional
        Bytes a page. The largest value and 20 bytes more must fit it.
    load : float, optional
        Entries for each slot, above 0 and at most 1: empty slots are wasted space, and the fuller
        a table, the harder it is to build. By default 0.9, or 0.85 where a page has room for one
        entry only.
    seed : bytes, optional
        16 bytes, for tests and for tables that must come out alike: the first seed that is tried,
        from which those that follow are derived. By default each comes from the operating system's
        cryptographic random number generator.
    progress : callable, optional
        Called with the work done and the work in all.
    value_size, proof_levels, duplicates : optional
        As `TableBuilder` takes them.

    Returns
    -------
    pages : numpy.ndarray
        uint8 of shape (num_pages, page_size).
    layout : TableLayout
        The places of the keys: a client needs it to look one up.

    Raises
    ------
    TableBuildError
        If there are no items, a key is there twice, a value does not fit a page, or no table was
        found for any of 8 seeds.
    TypeError
        If a key or a value is neither bytes nor str.
    ValueError
        If page_size, load or seed is out of its range.

    Notes
    -----
    The same items in the same order with the same seed give the same table.

    Each key lies in one of three pages that BLAKE2b (RFC 7693) picks: cuckoo hashing with buckets,
    placed by local search allocation (Khosla, "Balls into Bins Made Faster", ESA 2013).

    Examples
    --------
    >>> from morphogen.keyword import build
    >>> words = {b"apple": b"a fruit", b"carrot": b"a root"}
    >>> pages, layout = build(words.items(), page_size=512)
    >>> layout.find(b"carrot", pages[list(layout.candidates(b"carrot"))])
    b'a root'
    """
    built = build_table(
        items,
        page_size=page_size,
        load=load,
        seed=seed,
        progress=progress,
        value_size=value_size,
        proof_levels=proof_levels,
        duplicates=duplicates,
    )
    return built.pages, built.layout


def build_table(
    items: Iterable[tuple[bytes | str, bytes | str]],
    *,
    page_size: int = 4096,
    load: float | None = None,
    seed: bytes | None = None,
    progress: Progress | None = None,
    value_size: int | None = None,
    proof_levels: int | None = None,
    duplicates: Duplicates = "error",
) -> BuiltTable:
    """Build a keyword table as `build` does, and say how many seeds it took.

    Parameters
    ----------
    items : iterable of tuple of bytes
        As `build` takes them.
    page_size : int, optional
        As `build` takes it.
    load : float, optional
        As `build` takes it.
    seed : bytes, optional
        As `build` takes it.
    progress : callable, optional
        As `build` takes it.
    value_size, proof_levels, duplicates : optional
        As `TableBuilder` takes them.

    Returns
    -------
    BuiltTable
        The table, and how many seeds it took.

    Raises
    ------
    TableBuildError, TypeError, ValueError
        As from `build`.
    """
    builder = TableBuilder(
        page_size=page_size,
        load=load,
        seed=seed,
        value_size=value_size,
        proof_levels=proof_levels,
        duplicates=duplicates,
    )
    builder.add_pairs(items)
    return builder.build(None if progress is None else _one_stage(progress, len(builder)))


def _one_stage(progress: Progress, count: int) -> StagedProgress:
    """Progress of all stages as one of four times the entries."""
    stages = ("hashing", "placing", "filling", "sealing")

    def tell(done: int, total: int, name: str) -> None:
        progress(stages.index(name) * count + count * done // total, len(stages) * count)

    return tell
