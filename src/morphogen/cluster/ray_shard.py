"""The way to one replica of one shard of a cluster, for a sharded engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from morphogen.checks import OwnerProcess
from morphogen.cluster.host_shard import Rows
from morphogen.cluster.process import ProcessGoneError
from morphogen.cluster.replica import Replica
from morphogen.engine.shards.transport import Part, Pass
from morphogen.errors import EngineClosedError, ShardUnavailableError
from morphogen.pages import TableShape
from morphogen.sharding import ShardRange


class RayShard:
    """One epoch of one replica of one shard: a `morphogen.engine.shards.transport.ShardTransport`.

    Whatever process the `Keeper` has put in the replica's place answers.

    Parameters
    ----------
    replica : Replica
        The replica.
    held : ShardRange
        The pages that it answers for.
    table : TableShape
        The table that they are of, and its epoch.
    root : bytes or None
        Its root.
    """

    def __init__(
        self, replica: Replica, held: ShardRange, table: TableShape, root: bytes | None
    ) -> None:
        self.range: ShardRange = held
        self.table: TableShape = table
        self.root: bytes | None = root
        self.replica: Replica = replica
        self._owner = OwnerProcess("engine", "open an engine in each process", EngineClosedError)

    @property
    def name(self) -> str:
        """For messages: shard, replica and host."""
        return self.replica.name

    @property
    def usable(self) -> bool:
        """Whether its process answers, as far as is known."""
        return self.replica.usable

    def submit(self, job: Pass, tell: Callable[[Part | Exception], None]) -> None:
        """Have a pass answered. This does not wait for the answer.

        Parameters
        ----------
        job : Pass
            The pass.
        tell : callable
            Called once with the part, or with what went wrong. If the process is stopped, that is
            when the `Keeper` has ended it.

        Raises
        ------
        EngineClosedError
            In a forked child.
        ShardUnavailableError
            If the process is gone, and no other in its place yet.
        """
        self._owner.check()  # a forked child would hang inside Ray
        replica = self.replica
        if not replica.usable:
            raise ShardUnavailableError(f"{replica.name} is gone, and another is not there yet")
        process = replica.process

        def told(result: Any) -> None:
            if isinstance(result, ProcessGoneError):
                replica.lose(process, result)
            tell(result)

        process.call("answer", (job, self.range), told)

    def next_epoch(
        self,
        indices: npt.NDArray[np.int64],
        pages: npt.NDArray[np.uint8],
        epoch: int,
        root: bytes | None = None,
    ) -> RayShard:
        """Open the next epoch beside this one, which goes on.

        Parameters
        ----------
        indices : numpy.ndarray
            int64, ascending: the pages that change, counted from the first of the range.
        pages : numpy.ndarray
            uint8 of shape (indices, page_size): their new bytes.
        epoch : int
            The new version.
        root : bytes, optional
            Root of the table of that version.

        Returns
        -------
        RayShard
            To the same replica. Close both.

        Raises
        ------
        EngineClosedError
            In a forked child.
        Exception
            As from `HostShard.change`.
        """
        self._owner.check()
        self.replica.change(
            (self.table.epoch, self.root), Rows(indices.copy(), pages.copy()), (epoch, root)
        )
        table = TableShape(self.table.num_pages, self.table.page_size, epoch)
        return RayShard(self.replica, self.range, table, root)

    def close(self) -> None:
        """Close this epoch. With the last one of a replica its process ends."""
        if self._owner.is_current():
            self.replica.drop((self.table.epoch, self.root))
