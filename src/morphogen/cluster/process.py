"""A process that holds shards, as the router sees it: a way to call it, and an end to it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Protocol

from morphogen.cluster.placement import Host
from morphogen.errors import ShardUnavailableError

Tell = Callable[[Any], None]  # takes the result of a call, or the exception that ended it


class ProcessGoneError(ShardUnavailableError):
    """A process that held a shard has ended, or nobody can reach it any more."""


class ShardProcess(Protocol):
    """A process with a `HostShard`, on any host.

    Attributes
    ----------
    name : str
        For messages.
    host : str
        The host that it runs on, its `morphogen.cluster.placement.Host.id`.
    """

    @property
    def name(self) -> str:
        """For messages."""

    @property
    def host(self) -> str:
        """The host that it runs on."""

    def call(self, method: str, arguments: tuple[Any, ...], tell: Tell) -> None:
        """Have a method of the shard called. This does not wait for it.

        Parameters
        ----------
        method : str
            Its name.
        arguments : tuple
            Its arguments.
        tell : callable
            Called with the result or with what was raised, from any thread, at most once:
            `ProcessGoneError` if the process ends before it answers. One that is stopped tells
            nothing until it is killed.
        """

    def kill(self) -> None:
        """End the process, whatever it does. May be called again."""


class Processes(Protocol):
    """What starts processes: a `RayCluster`, or a stand-in."""

    def hosts(self) -> tuple[Host, ...]:
        """The hosts that a process may be started on now.

        Returns
        -------
        tuple of Host
            At least one.
        """

    def start(self, host: Host, device: str, threads: int | None) -> ShardProcess:
        """Start a process. This does not wait until it runs.

        Parameters
        ----------
        host : Host
            Where.
        device, threads : str, int
            As `HostShard` takes them.

        Returns
        -------
        ShardProcess
            Its calls wait until it runs.
        """


def ask(process: ShardProcess, method: str, *arguments: Any, timeout: float | None = None) -> Any:
    """Call a method of a shard, and wait for it.

    Parameters
    ----------
    process : ShardProcess
        The process.
    method : str
        The method's name.
    *arguments : object
        Its arguments.
    timeout : float, optional
        Seconds to wait; by default as long as it takes.

    Returns
    -------
    object
        The method's result.

    Raises
    ------
    ProcessGoneError
        If the process ends before it answers.
    ShardUnavailableError
        If it does not answer in time.
    Exception
        What the method raised.
    """
    done = threading.Event()
    told: list[Any] = []

    def tell(result: Any) -> None:
        told.append(result)
        done.set()

    process.call(method, arguments, tell)
    if not done.wait(timeout):
        raise ShardUnavailableError(
            f"{process.name} must answer {method} within {timeout} s, and has not"
        )
    if isinstance(told[0], Exception):
        raise told[0]
    return told[0]
