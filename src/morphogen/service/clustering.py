"""A cluster whose hosts hold the pages of a server's tables by parts, and engines over it."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from importlib.util import find_spec
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar

from morphogen.checks import missing_extra
from morphogen.engine.base import Engine
from morphogen.engine.sharded import ShardedEngine
from morphogen.errors import SourceError
from morphogen.pages import PageMatrix
from morphogen.service.comparing import Indices, rows_of
from morphogen.service.config import LOCAL, ClusterConfig
from morphogen.service.opening import Opened, Prepared
from morphogen.service.table import PagesFile

if TYPE_CHECKING:
    from morphogen.cluster.fleet import Fleet


class ClusterOpener:
    """Opens the engines of one table on processes that hold its shards.

    A file is opened by the shards themselves, each of which reads its own pages of it. Of a delta
    only the pages that change are sent.

    Parameters
    ----------
    start : callable
        Starts the processes.

    Attributes
    ----------
    verifies : bool
        True.
    """

    verifies: ClassVar[bool] = True

    def __init__(self, start: Callable[[], Fleet]) -> None:
        self._start = start
        self._fleet: Fleet | None = None

    @property
    def replaced(self) -> int:
        """Processes that were replaced so far."""
        return 0 if self._fleet is None else self._fleet.keeper.replaced

    def open(
        self,
        file: PagesFile,
        pages: PageMatrix,
        root: bytes | None,
        beyond: Indices | None = None,
    ) -> Opened:
        """Start the processes, and open an engine over them.

        Parameters
        ----------
        file, pages, root, beyond : PagesFile, PageMatrix, bytes, numpy.ndarray
            As any opener takes them.

        Returns
        -------
        Opened

        Raises
        ------
        ShardUnavailableError
            If a process does not start, or does not find the file.
        MorphogenError, OSError, ValueError
            If the shards' pages are not those of the file, or there are more shards than leaves.
        """
        self.close()  # those of an epoch that could not be served
        fleet = self._start()
        try:
            opened = _open(fleet, file, pages, root, beyond)
        except BaseException:
            fleet.close()
            raise
        self._fleet = fleet
        return opened

    def open_beside(self, prepared: Prepared, engine: Engine) -> Opened:
        """Open an engine on the same processes.

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
        ShardUnavailableError
            If no replica of a shard can open it.
        MorphogenError, OSError, ValueError
            As from `open`.
        """
        assert self._fleet is not None
        assert isinstance(engine, ShardedEngine)
        pages, changed = prepared.pages, prepared.changed
        if prepared.file is not None:
            return _open(self._fleet, prepared.file, pages, prepared.root, prepared.beyond)
        assert changed is not None
        rows = rows_of(pages, changed)
        return Opened(engine.next_epoch(changed, rows, pages.epoch, prepared.root), pages)

    def close(self) -> None:
        """End the processes. May be called again."""
        fleet, self._fleet = self._fleet, None
        if fleet is not None:
            fleet.close()


def _open(
    fleet: Fleet, file: PagesFile, pages: PageMatrix, root: bytes | None, beyond: Indices | None
) -> Opened:
    """Open an epoch from its file, beside those that are open."""
    from morphogen.cluster.host_shard import Rows

    changed = None
    if beyond is not None and len(beyond):
        changed = Rows(beyond, rows_of(pages, beyond))
    table = fleet.open(
        file.path, page_size=file.page_size, epoch=pages.epoch, changed=changed, root=root
    )
    if table.source.root != file.root:
        table.engine.close()
        raise SourceError(f"{os.fspath(file.path)} was replaced while it was opened: try again")
    return Opened(table.engine, pages, table.digest if changed is None else None)


class Cluster:
    """A cluster of Ray that a server starts or joins, for all of its tables.

    It works with ``with``: at the end the processes of all openers end, and so does the cluster, if
    it is the server's own.

    Parameters
    ----------
    config : ClusterConfig
        The options.
    device : str
        Of each shard.
    threads : int or None
        Of each shard on the CPU.

    Raises
    ------
    ModuleNotFoundError
        If the extra ``ray`` is missing.
    MorphogenError, ValueError
        If the address is none, or is off the loopback and Ray has no token or no TLS.
    """

    def __init__(self, config: ClusterConfig, device: str, threads: int | None) -> None:
        if find_spec("ray") is None:
            raise missing_extra("ray", "ray", "a cluster")
        from morphogen.cluster.ray_cluster import host_of
        from morphogen.cluster.security import check_exposed

        if config.address != LOCAL:
            check_exposed(host_of(config.address))
        self._config = config
        self._device = device
        self._threads = threads
        self._opened = ExitStack()

    def __enter__(self) -> Callable[[], ClusterOpener]:
        """Start or join it; the result makes the opener of a table."""
        from morphogen.cluster.fleet import Fleet
        from morphogen.cluster.ray_cluster import RayCluster

        config = self._config
        cluster = self._opened.enter_context(RayCluster(config.address))

        def start() -> Fleet:
            return Fleet(
                cluster,
                shards=config.shards,
                replicas=config.replicas,
                device=self._device,
                threads=self._threads,
                timeout=config.timeout,
                hedge=config.hedge,
            )

        def new_opener() -> ClusterOpener:
            opener = ClusterOpener(start)
            self._opened.callback(opener.close)
            return opener

        return new_opener

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._opened.close()
