"""The future of a query that a batcher took."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from threading import get_ident

from morphogen.engine.locks import Condition
from morphogen.query import Answer


class AnswerFuture(Future[Answer]):
    """A future that an interrupted caller leaves usable, and whose callbacks end no thread.

    Parameters
    ----------
    cancelled : callable
        Called with the future once it is cancelled.
    """

    def __init__(self, cancelled: Callable[[AnswerFuture], None]) -> None:
        super().__init__()
        # Ctrl-C within `result` would leave the lock of Python's condition taken, for which the
        # thread that tells the answer would wait for ever.
        self._condition = Condition()  # type: ignore[assignment]
        self._cancelled = cancelled
        self._teller = 0  # the thread that tells the answer

    def cancel(self) -> bool:
        """Take the query out of the queue, unless its chunk has begun."""
        cancelled = super().cancel()
        if cancelled:
            self._cancelled(self)
        return cancelled

    def claim(self) -> bool:
        """Mark it as running, unless it was cancelled."""
        try:
            return self.set_running_or_notify_cancel()
        except (InvalidStateError, RuntimeError):  # whoever holds it gave it a result
            return False

    def add_done_callback(self, fn: Callable[[Future[Answer]], object]) -> None:
        """Call a function when the query is answered, failed or cancelled."""

        def call(future: Future[Answer]) -> None:
            try:
                fn(future)
            except Exception:
                raise  # which Future logs
            except BaseException as error:
                if self._teller != get_ident():
                    raise  # to whoever cancelled it, or added the callback too late
                raise RuntimeError(f"a callback raised {type(error).__name__}") from error

        super().add_done_callback(call)

    def tell(self, outcome: Answer | BaseException) -> None:
        """Give it its answer, or the error in its place. Its callbacks run here."""
        self._teller = get_ident()
        try:
            if isinstance(outcome, BaseException):
                self.set_exception(outcome)
            else:
                self.set_result(outcome)
        except InvalidStateError:
            pass  # whoever holds it gave it a result
        finally:
            self._teller = 0
