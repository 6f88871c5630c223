"""How much clients may take of a server: connections, time, memory; what open files allow."""

from __future__ import annotations

import resource
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from morphogen.checks import as_int, check_range, check_seconds
from morphogen.service.clients import Proxies

MAX_CONNECTIONS = 2048
MIN_UNREAD_BYTES = 256 << 20

_SPARE_FILES = 128  # for a GPU's driver, the connections of the metrics, and libraries
_FEWEST_CONNECTIONS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much clients may take of a server.

    Attributes
    ----------
    connections : int
        The most connections. One more takes the place of one that waits for its client.
    per_address : int or None
        The most connections of one address; None for a quarter of all.
    head_seconds, body_seconds, answer_seconds : float
        The longest time in which a client sends the whole head of a request, then its whole body,
        and in which it reads the whole answer; of a cap, each 256 KiB.
    idle_seconds : float
        The longest time between an answer and the next request.
    trusted_proxies : tuple of str
        Addresses and networks of proxies whose ``X-Forwarded-For`` tells the client.
    unread_bytes : int or None
        The most bytes of all answers that their clients have not read yet; None for 256 MiB, or
        more if two answers need it.

    Raises
    ------
    TypeError, ValueError
        If a number has the wrong type or is out of range.
    """

    connections: int = MAX_CONNECTIONS
    per_address: int | None = None
    head_seconds: float = 10.0
    body_seconds: float = 20.0
    answer_seconds: float = 60.0
    idle_seconds: float = 15.0
    trusted_proxies: tuple[str, ...] = ()
    unread_bytes: int | None = None

    def __post_init__(self) -> None:
        for name in ("connections", "per_address", "unread_bytes"):
            if (number := getattr(self, name)) is not None:
                check_range(name, as_int(name, number), 1)
        for name in ("head_seconds", "body_seconds", "answer_seconds", "idle_seconds"):
            check_seconds(name, getattr(self, name), above_zero=True)
        Proxies(self.trusted_proxies)

    @property
    def most_of_an_address(self) -> int:
        """The most connections of one address."""
        share = max(1, self.connections // 4) if self.per_address is None else self.per_address
        return min(self.connections, share)

    def with_answers_of(self, size: int) -> Self:
        """Settle the bytes of unread answers for a table.

        Parameters
        ----------
        size : int
            Bytes of the largest answer.

        Returns
        -------
        Limits
            With unread_bytes settled.

        Raises
        ------
        ValueError
            If they are too few for one answer.
        """
        if self.unread_bytes is None:
            return replace(self, unread_bytes=max(MIN_UNREAD_BYTES, 2 * size))
        if self.unread_bytes < size:
            raise ValueError(
                f"unread_bytes must be at least {size}, the largest answer, not {self.unread_bytes}"
            )
        return self

    def within_open_files(self) -> tuple[Self, int]:
        """Raise the process's limit of open files as needed, and keep to it where it is fixed.

        Returns
        -------
        limits : Limits
            With as many connections as there may be open files.
        open_files : int
            The limit of open files now.

        Raises
        ------
        OSError
            If there would be hardly any connections.
        """
        others = len(list(Path("/proc/self/fd").iterdir())) + _SPARE_FILES
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        unlimited = resource.RLIM_INFINITY
        wanted = others + self.connections
        if soft != unlimited and soft < wanted:
            soft = wanted if hard == unlimited else min(wanted, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        room = self.connections if soft == unlimited else min(self.connections, soft - others)
        if room < min(_FEWEST_CONNECTIONS, self.connections):
            raise OSError(
                f"a process may open {soft} files here, which leaves room for {max(0, room)} "
                f"connections: raise the limit (ulimit -n) to {wanted}"
            )
        return replace(self, connections=room), soft
