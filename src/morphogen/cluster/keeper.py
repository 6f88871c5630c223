"""The keeper of a cluster's processes: it replaces those that ended, and those that are stopped.

A process that ended is known at once, by the end of its connection. One that is stopped, or a host
that hangs, is reported by nobody: the keeper asks all of them, and ends one that does not answer.
Ray's own restarts are off, since calls learn of them seconds later.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from morphogen.cluster.process import ShardProcess, ask
from morphogen.cluster.replica import Replica
from morphogen.errors import ShardUnavailableError

_log = logging.getLogger(__name__)

START_SECONDS = 120.0  # that a process may take until it runs
LONGEST_WAIT = 30.0  # seconds between two tries to replace one process


class Keeper:
    """Replaces the processes of replicas.

    Parameters
    ----------
    start : callable
        Starts a process for a replica, without epochs, and does not wait until it runs.
    interval : float, optional
        Seconds between two questions whether a process answers.
    deadline : float, optional
        Seconds after which one that does not is ended.
    clock : callable, optional
        Tells the time, in seconds.

    Attributes
    ----------
    replaced : int
        Processes that were replaced.
    """

    def __init__(
        self,
        start: Callable[[Replica], ShardProcess],
        *,
        interval: float = 1.0,
        deadline: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._start = start
        self._interval = interval
        self._deadline = deadline
        self._clock = clock
        self.replaced: int = 0
        self._replicas: Sequence[Replica] = ()
        self._asked: dict[Replica, tuple[ShardProcess, float]] = {}
        self._tries: dict[Replica, tuple[int, float]] = {}
        self._under_way: dict[Replica, threading.Thread] = {}
        self._starting: dict[Replica, ShardProcess] = {}
        self._opening: dict[Replica, ShardProcess] = {}  # those of them that run
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closing = False
        self._thread: threading.Thread | None = None

    def keep(self, replicas: Sequence[Replica]) -> None:
        """Begin, in a thread of its own.

        Parameters
        ----------
        replicas : sequence of Replica
            The replicas.
        """
        self._replicas = replicas
        self._thread = threading.Thread(target=self._run, name="morphogen-keeper", daemon=True)
        self._thread.start()

    def wake(self, replica: Replica) -> None:
        """Look at once: a replica has lost its process.

        Parameters
        ----------
        replica : Replica
            The replica.
        """
        self._wake.set()

    def look(self, replicas: Sequence[Replica]) -> None:
        """Ask each process whether it answers, and begin to replace those that are gone.

        Parameters
        ----------
        replicas : sequence of Replica
            The replicas.
        """
        now = self._clock()
        for replica in replicas:
            if replica.retired:
                continue
            try:
                self._look_after(replica, now)
            except Exception as error:  # such as of a host without threads: the next look may do
                _log.error("%s cannot be looked after now: %s", replica.name, error)

    def close(self) -> None:
        """Stop, and end what is under way. May be called again."""
        with self._lock:
            self._closing = True
            starting = tuple(self._starting.values())
        self._wake.set()
        for process in starting:
            process.kill()  # or it might open a table for minutes
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        self.wait()

    def wait(self) -> None:
        """Wait for the replacements that are under way."""
        for thread in tuple(self._under_way.values()):
            if thread is not threading.current_thread():
                thread.join()

    def _run(self) -> None:
        while not self._closing:
            self._wake.clear()
            self.look(self._replicas)
            self._wake.wait(self._interval)

    def _look_after(self, replica: Replica, now: float) -> None:
        # One that is put in place may stop, too, while it opens tables.
        process = replica.process if replica.usable else self._opening.get(replica)
        if process is not None:
            self._ask(replica, process, now)
        if not replica.usable:
            self._replace(replica, now)

    def _ask(self, replica: Replica, process: ShardProcess, now: float) -> None:
        asked = self._asked.get(replica)
        if asked is None or asked[0] is not process:
            self._asked[replica] = (process, now)
            process.call("ping", (), lambda told: self._told(replica, process, told))
        elif now - asked[1] > self._deadline:
            error = ShardUnavailableError(f"it must answer within {self._deadline} s, and has not")
            self._asked.pop(replica, None)
            replica.lose(process, error)
            if process is self._opening.get(replica):
                process.kill()

    def _told(self, replica: Replica, process: ShardProcess, told: object) -> None:
        asked = self._asked.get(replica)
        if asked is not None and asked[0] is process:
            self._asked.pop(replica, None)
        if isinstance(told, Exception):
            replica.lose(process, told)

    def _replace(self, replica: Replica, now: float) -> None:
        tries, due = self._tries.get(replica, (0, now))
        with self._lock:
            if replica in self._under_way or now < due or self._closing:
                return
            thread = threading.Thread(
                target=self._try, args=(replica, tries), name="morphogen-replace", daemon=True
            )
            thread.start()
            self._under_way[replica] = thread

    def _try(self, replica: Replica, tries: int) -> None:
        process = None
        try:
            replica.process.kill()
            process = self._start(replica)
            with self._lock:
                self._starting[replica] = process
                if self._closing:
                    process.kill()
            ask(process, "ping", timeout=START_SECONDS)
            self._opening[replica] = process
            replica.restore(process)
        except Exception as error:
            if process is not None:
                process.kill()
            if not (replica.retired or self._closing):
                wait = min(LONGEST_WAIT, self._interval * 2.0 ** min(tries, 32))
                self._tries[replica] = (tries + 1, self._clock() + wait)
                _log.error("%s cannot be replaced yet: %s", replica.name, error)
        else:
            self._tries.pop(replica, None)
            _log.warning("%s answers in the place of one that was gone", replica.name)
            self.replaced += 1
        finally:
            with self._lock:
                self._under_way.pop(replica, None)
                self._starting.pop(replica, None)
                self._opening.pop(replica, None)
