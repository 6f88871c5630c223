# Made by tools/release/make_stubs.py from the module's source.
"""The calls that are under way in an engine: at most so many, each with something of its own.

No interrupt leaves a place taken: see `morphogen.engine.locks`. Steps between two calls of Python
are not cut by other threads either, so that a call which need not wait takes no lock.
"""

from typing import Any

from morphogen.checks import OwnerProcess

class Calls:
    """So many calls at a time, each on a thread of its own; ``with`` gives what it uses.

    A call from within a call is refused: it might wait for ever.

    Parameters
    ----------
    called : str
        What is called, for the message: "an engine".
    lent : list
        What each call that is under way has for itself.
    process : OwnerProcess, optional
        Whose calls alone are let in. Without one, the caller has checked that.

    Raises
    ------
    MorphogenError
        On entry, the process's own error in a fork of it; and if this thread is in a call already:
        code that the call runs, such as a property of its arguments, a finalizer or a signal
        handler, made another.
    """

    def __init__(
        self, called: str, lent: list[Any], process: OwnerProcess | None = None
    ) -> None: ...
    def limit(self) -> int:
        """The most calls that may be under way."""
    def waiting(self) -> int:
        """Calls that wait to begin."""
    def waiting_alone(self) -> int:
        """Calls that wait until no other is under way."""
    def is_here(self) -> bool:
        """Whether this thread is in a call."""
    def check_free(self) -> None:
        """Refuse, as entry does, a call from within a call."""
    def alone(self) -> Alone:
        """A call beside which there is no other: for ``with``.

        It goes before calls that wait, which then go before the next such call.
        """
    def ends_last(self) -> bool:
        """Say that this thread's call is about to end. Whether no other is left to say so."""
    def __enter__(self) -> Any: ...
    def __exit__(self, *exception: object) -> None: ...

class Alone:
    """A call beside which there is no other, of `Calls.alone`."""

    def __init__(self, calls: Calls) -> None: ...
    def __enter__(self) -> None: ...
    def __exit__(self, *exception: object) -> None: ...
