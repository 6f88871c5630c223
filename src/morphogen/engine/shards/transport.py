"""What a sharded engine asks its shards, what they answer, and the way between.

A shard may be an engine in this process, or a process on another host: this knows neither.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from morphogen.engine.base import Engine
from morphogen.errors import ShardMismatchError
from morphogen.query import Query
from morphogen.sharding import ShardRange

WORD_BYTES = 8


@dataclass(frozen=True, slots=True)
class Pass:
    """What every shard is asked: to answer some queries over its pages, or to read them.

    Attributes
    ----------
    number : int
        No other pass of the engine has it.
    epoch : int
        Version of the pages that must answer.
    root : bytes or None
        Root of the authenticated table that must answer, if it is one.
    keys : bytes
        The keys of all queries, side by side, as `morphogen.planner.KeyPacker` has them. They are
        for the whole table. They are secrets of the clients, and in no repr.
    queries : int
        How many there are; 0 to read every page once and do nothing else, as `Engine.read_pages`.
    keys_per_query : int
        Keys of each, 1 to 3; 1 for a read.
    """

    number: int
    epoch: int
    root: bytes | None
    keys: bytes = field(repr=False)
    queries: int
    keys_per_query: int

    def part_shape(self, page_size: int) -> tuple[int, int, int]:
        """The shape of the part that answers this.

        Parameters
        ----------
        page_size : int
            Bytes a page.

        Returns
        -------
        tuple of int
            (queries, keys per query, page size); (1, 1, 8) for a read.
        """
        if self.queries:
            return self.queries, self.keys_per_query, page_size
        return 1, 1, WORD_BYTES


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """What a shard answers.

    Attributes
    ----------
    number : int
        Of the pass.
    range : ShardRange
        The pages that it is the sum of.
    epoch : int
        Version of these pages.
    root : bytes or None
        Root of the table that they are of.
    pages : numpy.ndarray
        uint8 of shape (queries, keys per query, page_size): for each key the XOR of the pages of
        the range that it selects. For a read, of shape (1, 1, 8): the XOR of all of their bytes,
        as a little-endian word. It must stay as it is.
    """

    number: int
    range: ShardRange
    epoch: int
    root: bytes | None
    pages: npt.NDArray[np.uint8] = field(repr=False)


class ShardTransport(Protocol):
    """The way to one replica of one shard.

    Attributes
    ----------
    name : str
        For messages: "cuda:1", or a host's.
    range : ShardRange
        The pages that it answers for.
    usable : bool
        Whether a pass may be submitted. One that is not usable may become so again.

    Notes
    -----
    If it also has an attribute ``table``, a `TableShape`, and an attribute ``root``, an engine
    compares them with its own before it takes it.
    """

    @property
    def name(self) -> str:
        """For messages: "cuda:1", or a host's."""

    @property
    def range(self) -> ShardRange:
        """The pages that it answers for."""

    @property
    def usable(self) -> bool:
        """Whether a pass may be submitted. One that is not usable may become so again."""

    def submit(self, job: Pass, tell: Callable[[Part | Exception], None]) -> None:
        """Have a pass answered. This does not wait for the answer.

        Parameters
        ----------
        job : Pass
            The pass.
        tell : callable
            To be called with the part, or with what went wrong, from any thread, also before this
            returns. Calls that never come, come twice, late or out of order do no harm but that the
            engine asks another replica.

        Raises
        ------
        Exception
            If it cannot be submitted, which is as if ``tell`` were called with it.
        """

    def next_epoch(
        self,
        indices: npt.NDArray[np.int64],
        pages: npt.NDArray[np.uint8],
        epoch: int,
        root: bytes | None = None,
    ) -> ShardTransport:
        """Open the next epoch beside this one, which goes on.

        Parameters
        ----------
        indices : numpy.ndarray
            int64, ascending: the pages that change, counted from the first of `range`.
        pages : numpy.ndarray
            uint8 of shape (indices, page_size): their new bytes.
        epoch : int
            The new version.
        root : bytes, optional
            Root of the table of that version.

        Returns
        -------
        ShardTransport
            To the same replica, with the same range. Close both.

        Raises
        ------
        Exception
            If it cannot be opened.
        """

    def close(self) -> None:
        """Give up what this holds. May be called again."""


class LostShard:
    """A replica that could not open an epoch, in its place until another is put there.

    Parameters
    ----------
    name : str
        Its name.
    held : ShardRange
        The pages that it would answer for.
    error : Exception
        What was wrong.
    """

    usable = False

    def __init__(self, name: str, held: ShardRange, error: Exception) -> None:
        self.name = name
        self.range = held
        self.error = error

    def submit(self, job: Pass, tell: Callable[[Part | Exception], None]) -> None:
        """Tell what was wrong."""
        tell(self.error)

    def next_epoch(
        self,
        indices: npt.NDArray[np.int64],
        pages: npt.NDArray[np.uint8],
        epoch: int,
        root: bytes | None = None,
    ) -> ShardTransport:
        """Raise what was wrong."""
        raise self.error

    def close(self) -> None:
        """Do nothing."""


def answer_pass(engine: Engine, job: Pass, held: ShardRange, root: bytes | None = None) -> Part:
    """Answer a pass by an engine: what every shard does in the end.

    Parameters
    ----------
    engine : Engine
        Over the pages of the shard.
    job : Pass
        The pass. Its keys are checked.
    held : ShardRange
        The pages of the shard.
    root : bytes, optional
        Root of the table that they are of.

    Returns
    -------
    Part
        Its array is new.

    Raises
    ------
    ShardMismatchError
        If the pass is for another epoch or root.
    MorphogenError, TypeError, ValueError
        As from `Engine.answer`.
    """
    _check_same(job, engine.table.epoch, root)
    if job.queries:
        answer = engine.answer(queries_of(job))
        epoch, pages = answer.epoch, answer.pages
    else:
        epoch = engine.table.epoch
        word = engine.read_pages()
        pages = np.frombuffer(word.to_bytes(WORD_BYTES, "little"), np.uint8).reshape(1, 1, -1)
    _check_same(job, epoch, root)  # the engine may have gone on meanwhile
    return Part(job.number, held, epoch, root, pages)


def queries_of(job: Pass) -> list[Query]:
    """The queries of a pass.

    Parameters
    ----------
    job : Pass
        Of one query or more.

    Returns
    -------
    list of Query
        In order.

    Raises
    ------
    InvalidKeyError
        If a key does not have the form of key format v1.
    """
    keys, per_query = job.keys, job.keys_per_query
    size = len(keys) // (job.queries * per_query)
    slices = [keys[at : at + size] for at in range(0, len(keys), size)]
    return [Query(slices[at : at + per_query]) for at in range(0, len(slices), per_query)]


def _check_same(job: Pass, epoch: int, root: bytes | None) -> None:
    if (epoch, root) != (job.epoch, job.root):
        raise ShardMismatchError(
            f"the pass is for {named_version(job.epoch, job.root)}, not for "
            f"{named_version(epoch, root)}, which this shard has"
        )


def named_version(epoch: int, root: bytes | None) -> str:
    """The version of a table, for messages.

    Parameters
    ----------
    epoch : int
        Its epoch.
    root : bytes or None
        Its root.

    Returns
    -------
    str
        "epoch 7", or "epoch 7 of root 0011...".
    """
    return f"epoch {epoch}" if root is None else f"epoch {epoch} of root {root.hex()}"
