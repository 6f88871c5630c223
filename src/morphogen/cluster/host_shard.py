"""The shard of one host: the process that maps its pages, and answers for them."""

from __future__ import annotations

import os
import socket
import threading
from dataclasses import dataclass, field, replace
from importlib.metadata import version as package_version

import numpy as np
import numpy.typing as npt

from morphogen.cluster.source import Proof, Source
from morphogen.engine import open_engine
from morphogen.engine.base import Engine
from morphogen.engine.shards.transport import Part, Pass, answer_pass, named_version
from morphogen.errors import ShardMismatchError
from morphogen.pages import TableShape
from morphogen.sharding import ShardRange

Version = tuple[int, bytes | None]  # epoch and root


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Pages of a range that are others than its file's.

    Attributes
    ----------
    indices : numpy.ndarray
        int64, ascending, counted from the first of the range.
    pages : numpy.ndarray
        uint8 (indices, page_size).
    """

    indices: npt.NDArray[np.int64]
    pages: npt.NDArray[np.uint8] = field(repr=False)

    def within(self, held: ShardRange) -> Rows:
        """Those of a range, counted from its first.

        Parameters
        ----------
        held : ShardRange
            The range, as these are counted.

        Returns
        -------
        Rows
            Views of these.
        """
        some = slice(*np.searchsorted(self.indices, (held.first, held.stop)))
        return Rows(self.indices[some] - held.first, self.pages[some])

    def then(self, later: Rows) -> Rows:
        """Both, where the later have the last word.

        Parameters
        ----------
        later : Rows
            Of the same range.

        Returns
        -------
        Rows
            Each page once.
        """
        kept = ~np.isin(self.indices, later.indices)
        indices = np.concatenate((self.indices[kept], later.indices))
        order = np.argsort(indices)
        return Rows(indices[order], np.concatenate((self.pages[kept], later.pages))[order])


@dataclass(frozen=True, slots=True)
class ShardFacts:
    """What a shard says of pages that it opened, for the checks before it serves.

    Attributes
    ----------
    range : ShardRange
        The pages that it answers for.
    table : TableShape
        The table that they are of.
    root : bytes or None
        Root of the table, as its file says it.
    digest : bytes or None
        Digest of the `Proof` of the pages in the file; None if they were not read.
    device : str
        The device that answers: "cpu".
    host : str
        The name of the host.
    pid : int
        The process, on that host.
    release : str
        The version of this package there.
    """

    range: ShardRange
    table: TableShape
    root: bytes | None
    digest: bytes | None
    device: str
    host: str
    pid: int
    release: str


@dataclass(frozen=True, slots=True, eq=False)
class _Held:
    engine: Engine
    facts: ShardFacts
    proof: Proof | None


class HostShard:
    """The shard of one host. It maps its pages itself: they never travel.

    It holds engines of several epochs, each found by its epoch and root. A GPU host's engine uses
    all of its GPUs. Methods may be called from many threads.

    Parameters
    ----------
    device : str, optional
        "cpu"; "cuda:N"; "cuda", which is all GPUs of the host; or "auto", these if it has some, and
        otherwise the CPU.
    threads : int, optional
        On the CPU, the threads of a pass; by default one for each core.
    """

    def __init__(self, device: str = "auto", threads: int | None = None) -> None:
        self._device = device
        self._threads = threads
        self._held: dict[Version, _Held] = {}
        self._lock = threading.Lock()

    def open(
        self,
        source: Source,
        held: ShardRange,
        version: Version,
        verify: bool = True,
        rows: Rows | None = None,
    ) -> ShardFacts:
        """Open an epoch beside those that are open.

        Parameters
        ----------
        source : Source
            The file.
        held : ShardRange
            The pages to answer for.
        version : tuple of (int, bytes or None)
            Epoch and root that passes will name. Whether the root is the file's is for the caller
            to compare.
        verify : bool, optional
            Whether to read all of them first, and to hash them: `prove` gives the hashes.
        rows : Rows, optional
            Pages that are others than the file's, for a later epoch.

        Returns
        -------
        ShardFacts
            What the file says, not the rows.

        Raises
        ------
        OSError
            If the file cannot be opened or mapped.
        ShardMismatchError
            If the file has no such pages, or the epoch is open already.
        TableFileError
            If it is no whole table.
        DeviceError, TypeError, ValueError
            As from `morphogen.open_engine`.
        """
        opened = source.open()
        table, root = opened.table, opened.root
        if held.stop > table.num_pages:
            raise ShardMismatchError(
                f"{source.path} must have {held} on {socket.gethostname()}, and has "
                f"{table.num_pages} pages"
            )
        pages = opened.pages.slice(held.first, held.count)
        proof = opened.prove(pages) if verify else None
        if rows is not None:
            pages = pages.with_changes(rows.indices, rows.pages, version[0])
        device, threads = self._choose()
        engine = open_engine(pages, device, threads=threads)
        facts = ShardFacts(
            held,
            table,
            root,
            None if proof is None else proof.digest,
            engine.device,
            socket.gethostname(),
            os.getpid(),
            version_of_package(),
        )
        return self._hold(version, _Held(engine, facts, proof))

    def change(self, before: Version, rows: Rows, after: Version) -> ShardFacts:
        """Open the next epoch beside one that is open, from the pages that change.

        Parameters
        ----------
        before : tuple of (int, bytes or None)
            Epoch and root that are open.
        rows : Rows
            The pages that change.
        after : tuple of (int, bytes or None)
            Epoch and root that these make.

        Returns
        -------
        ShardFacts
            Those of the file.

        Raises
        ------
        ShardMismatchError
            If that epoch and root are not open.
        DeviceError, OSError, TypeError, ValueError
            As from `morphogen.Engine.next_epoch`.
        """
        held = self._find(before)
        engine = held.engine.next_epoch(rows.indices, rows.pages, after[0])
        return self._hold(after, replace(held, engine=engine))

    def prove(self, version: Version) -> Proof | None:
        """The hashes of an epoch's pages in the file.

        Parameters
        ----------
        version : tuple of (int, bytes or None)
            Epoch and root.

        Returns
        -------
        Proof or None
            None if it was opened without reading them.

        Raises
        ------
        ShardMismatchError
            If they are not open.
        """
        return self._find(version).proof

    def answer(self, job: Pass, held: ShardRange) -> Part:
        """Answer a pass.

        Parameters
        ----------
        job : Pass
            The pass.
        held : ShardRange
            The pages that must answer.

        Returns
        -------
        Part
            The XOR of those pages of the range that each key selects.

        Raises
        ------
        ShardMismatchError
            If this shard does not have that epoch, root and range.
        MorphogenError, TypeError, ValueError
            As from `morphogen.Engine.answer`.
        """
        found = self._find((job.epoch, job.root))
        if found.facts.range != held:
            raise ShardMismatchError(f"this shard answers for {found.facts.range}, not for {held}")
        return answer_pass(found.engine, job, held, job.root)

    def ping(self) -> int:
        """Tell that the process works.

        Returns
        -------
        int
            Its number.
        """
        return os.getpid()

    def drop(self, version: Version) -> None:
        """Close an epoch, if it is open.

        Parameters
        ----------
        version : tuple of (int, bytes or None)
            Epoch and root.
        """
        with self._lock:
            held = self._held.pop(version, None)
        if held is not None:
            held.engine.close()

    def versions(self) -> tuple[Version, ...]:
        """Tell which epochs are open.

        Returns
        -------
        tuple of (int, bytes or None)
            Epoch and root of each.
        """
        with self._lock:
            return tuple(self._held)

    def close(self) -> None:
        """Close all epochs."""
        for version in self.versions():
            self.drop(version)

    def _find(self, version: Version) -> _Held:
        with self._lock:
            held = self._held.get(version)
            if held is None:
                has = ", ".join(named_version(*one) for one in self._held) or "none"
                raise ShardMismatchError(
                    f"this shard must have {named_version(*version)}, and has {has}"
                )
        return held

    def _hold(self, version: Version, held: _Held) -> ShardFacts:
        with self._lock:
            other = self._held.setdefault(version, held)
        if other is not held:
            held.engine.close()
            raise ShardMismatchError(
                f"{named_version(*version)} must be opened once, and is open: {other.facts.range}"
            )
        return held.facts

    def _choose(self) -> tuple[str, int | None]:
        """The device and the threads that an engine is opened with."""
        device = self._device
        if device in ("auto", "cuda"):
            from morphogen.engine.cuda.status import driver_status

            device = "cuda:all" if device == "cuda" or driver_status().usable else "cpu"
        return device, self._threads if device == "cpu" else None


def version_of_package() -> str:
    """The version of this package, which all hosts of a cluster must have."""
    return package_version("morphogen")
