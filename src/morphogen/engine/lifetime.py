"""An engine's life: so many calls at a time, in the process that opened it, until it is closed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import NoReturn, Self

from morphogen.checks import OwnerProcess
from morphogen.engine.calls import Calls
from morphogen.errors import EngineClosedError
from morphogen.planner import KeyPacker


class Lifetime(ABC):
    """What every engine is besides its answers: see `morphogen.engine.base.Engine`.

    A call is one of ``_calls``, begins with `_check_open` and ends with `_end_call`.

    Parameters
    ----------
    packers : list of KeyPacker
        One for each call that may be under way.
    """

    def __init__(self, packers: list[KeyPacker]) -> None:
        self._owner = OwnerProcess("engine", "open an engine in each process", EngineClosedError)
        self._calls = Calls("an engine", packers, self._owner)
        self._closed = False
        self._why_closed = "this engine is closed"

    @property
    def max_in_flight(self) -> int:
        """Calls of `answer` that run at a time: further ones wait."""
        return self._calls.limit()

    @property
    def replicas(self) -> int:
        """Calls, of `max_in_flight`, that run at a time without slowing one another."""
        return self.max_in_flight

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def check_usable(self) -> None:
        """Refuse, as every call is refused, if this engine answers none any more.

        Raises
        ------
        EngineClosedError
            If it is closed, or belongs to the parent of this process.
        """
        self._owner.check()
        if self._closed:
            raise EngineClosedError(self._why_closed)

    def close(self) -> None:
        """Wait for the calls that run, then free threads and memory. May be called again.

        From within a call, this does not wait: the engine ends with the calls that run.
        """
        if not self._owner.is_current():
            return
        if self._calls.is_here():
            self._closed = True
            return
        with self._calls.alone():
            self._closed = True
            self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        # A copy would share threads and memory, and go on when the engine is closed.
        raise TypeError("an engine cannot be copied or pickled: open one where it is used")

    def _check_open(self) -> None:
        if self._closed:
            raise EngineClosedError(self._why_closed)

    def _end_call(self) -> None:
        if self._closed and self._calls.ends_last():  # closed by what a call ran
            self._end()

    def _end(self) -> None:
        self._release()

    @abstractmethod
    def _release(self) -> None:
        """Free threads, memory and device, if that was not done yet."""
