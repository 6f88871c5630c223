"""How an engine is opened over the pages of an epoch: at a start, and beside the epoch before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

from morphogen.authentication.tree import Tree
from morphogen.engine import device_candidates, open_engine
from morphogen.engine.base import Engine
from morphogen.engine.cuda.phases import PhaseCounter
from morphogen.engine.devices import gpus_among
from morphogen.epochs.manifest import Manifest
from morphogen.errors import DeviceOutOfMemoryError
from morphogen.keyword.layout import TableLayout
from morphogen.pages import PageMatrix
from morphogen.service.comparing import Indices, rows_of
from morphogen.service.table import PagesFile


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """An epoch that is verified, unless opening it does that, and opened by no engine yet.

    Parameters
    ----------
    pages : PageMatrix
        All of its pages, with its number.
    digest : str or None
        Of pages that are not authenticated.
    tree : Tree or None
        Of authenticated pages.
    layout : TableLayout or None
        Of a keyword table.
    manifest : Manifest or None
        What the table's owner says of it.
    file : PagesFile or None
        Where the pages are, but for those of ``beyond``. None where they are made of those that
        are served.
    beyond : numpy.ndarray or None
        int64: the pages that differ from the file's. None for none.
    changed : numpy.ndarray or None
        int64: the pages that differ from those that are served. None for all.
    """

    pages: PageMatrix
    digest: str | None
    tree: Tree | None
    layout: TableLayout | None
    manifest: Manifest | None
    file: PagesFile | None = None
    beyond: Indices | None = None
    changed: Indices | None = None

    @property
    def root(self) -> bytes | None:
        """The root of authenticated pages."""
        return None if self.tree is None else self.tree.root

    @property
    def num_changed(self) -> int:
        """The number of pages that change."""
        return self.pages.num_pages if self.changed is None else len(self.changed)

    @property
    def most_change(self) -> bool:
        """Whether most of the pages change."""
        return self.changed is None or 2 * len(self.changed) > self.pages.num_pages


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """An engine over the pages of an epoch.

    Parameters
    ----------
    engine : Engine
        Close it.
    pages : PageMatrix
        All of its pages, for whoever compares others with them.
    digest : str or None
        `digest_pages` of pages that are not authenticated, if they were read.
    """

    engine: Engine
    pages: PageMatrix
    digest: str | None = None


class Opener(Protocol):
    """Opens the engines of a table.

    Attributes
    ----------
    verifies : bool
        Whether opening a file of authenticated pages reads all of them, and refuses any but those
        of its root. Nobody else need then.
    replaced : int
        Processes of shards that were replaced so far.
    """

    @property
    def verifies(self) -> bool:
        """Whether opening a file verifies its pages."""

    @property
    def replaced(self) -> int:
        """Processes that were replaced so far."""

    def open(
        self,
        file: PagesFile,
        pages: PageMatrix,
        root: bytes | None,
        beyond: Indices | None = None,
    ) -> Opened:
        """Open an engine where none is served.

        Parameters
        ----------
        file : PagesFile
            No page of it need be read yet.
        pages : PageMatrix
            The file's, with those of ``beyond`` changed.
        root : bytes or None
            Of these pages, if they are authenticated.
        beyond : numpy.ndarray, optional
            int64: the pages that differ from the file's, ascending. By default there are none.

        Returns
        -------
        Opened

        Raises
        ------
        MorphogenError, MemoryError, OSError, ValueError
            If it cannot be opened.
        """

    def open_beside(self, prepared: Prepared, engine: Engine) -> Opened:
        """Open an engine beside the one that is served, which goes on.

        Parameters
        ----------
        prepared : Prepared
            What follows.
        engine : Engine
            What is served, and was when it was prepared.

        Returns
        -------
        Opened

        Raises
        ------
        MorphogenError, MemoryError, OSError, ValueError
            If it cannot be opened.
        """


@dataclass(frozen=True, slots=True)
class ProcessOpener:
    """Opens engines in this process.

    Parameters
    ----------
    device : str
        As `open_engine` takes it.
    threads : int or None
        On the CPU.
    lanes : int or None
        On a GPU, as `open_engine` takes it.
    graph : bool
        On a GPU.
    phases : PhaseCounter or None
        Counts chunks on GPUs.
    """

    device: str = "auto"
    threads: int | None = None
    lanes: int | None = None
    graph: bool = False
    phases: PhaseCounter | None = None
    verifies: ClassVar[bool] = False
    replaced: ClassVar[int] = 0

    def check(self) -> None:
        """Refuse a device that cannot be used, or not so.

        Raises
        ------
        DeviceUnavailableError, ValueError
            As from `open_engine`.
        """
        candidates = device_candidates(self.device)
        if self.lanes is not None or self.graph:
            gpus_among(candidates, self.device)

    def open(
        self,
        file: PagesFile,
        pages: PageMatrix,
        root: bytes | None,
        beyond: Indices | None = None,
    ) -> Opened:
        """Open an engine over pages, whatever file they are from.

        Parameters
        ----------
        file, pages, root, beyond : PagesFile, PageMatrix, bytes, numpy.ndarray
            As any opener takes them.

        Returns
        -------
        Opened

        Raises
        ------
        DeviceError, MemoryError, OSError, ValueError
            As from `open_engine`.
        """
        return Opened(self._open(pages, self.device, self.threads), pages)

    def open_beside(self, prepared: Prepared, engine: Engine) -> Opened:
        """Open an engine on the same device.

        On a GPU it is opened over all pages if most change and there is room for both; else the two
        share their pages.

        Parameters
        ----------
        prepared : Prepared
            What follows.
        engine : Engine
            What is served.

        Returns
        -------
        Opened

        Raises
        ------
        DeviceError, MemoryError, OSError
            As from `open_engine` and `Engine.next_epoch`.
        """
        pages, changed = prepared.pages, prepared.changed
        if engine.device == "cpu":
            return Opened(open_engine(pages, "cpu", threads=self.threads), pages)
        if changed is None or prepared.most_change:
            try:
                return Opened(self._open(pages, engine.device, None), pages)
            except DeviceOutOfMemoryError:
                if changed is None:
                    raise
        following = engine.next_epoch(changed, rows_of(pages, changed), pages.epoch)
        return Opened(following, following.pages)  # which has them in memory already

    def _open(self, pages: PageMatrix, device: str, threads: int | None) -> Engine:
        return open_engine(
            pages,
            device,
            threads=threads,
            lanes=self.lanes,
            graph=self.graph,
            phases=self.phases,
        )
