"""An engine's life: one call at a time, in the process that opened it, until it is closed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import NoReturn, Self

from morphogen.checks import OwnerProcess
from morphogen.engine.locks import CallLock
from morphogen.errors import EngineClosedError


class Lifetime(ABC):
    """What every engine is besides its answers: see `morphogen.engine.base.Engine`.

    A call holds ``_lock``, begins with `_check_open` and ends with `_end_call`.
    """

    def __init__(self) -> None:
        self._owner = OwnerProcess("engine", "open an engine in each process", EngineClosedError)
        self._lock = CallLock("an engine", self._owner)
        self._closed = False
        self._why_closed = "this engine is closed"

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
        """Wait for the call that runs, then free threads and memory. May be called again.

        From within a call, this does not wait for it: the engine ends with that call.
        """
        if not self._owner.is_current():
            return
        if self._lock.is_held_here():
            self._closed = True
            return
        with self._lock:
            self._closed = True
            self._release()

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
        if self._closed:  # meanwhile, by what the call ran
            self._release()

    @abstractmethod
    def _release(self) -> None:
        """Free threads, memory and device, if that was not done yet."""
