"""Checks that many modules share, with the words of their errors: numbers, processes, extras.

Also the text that such words may hold.
"""

from __future__ import annotations

import operator
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, SupportsIndex

from morphogen.errors import MorphogenError

_LARGE = 1 << 32  # from here on, a power of two is written as one


def as_int(name: str, value: SupportsIndex) -> int:
    """Take a number that must be an int.

    Parameters
    ----------
    name : str
        The argument's name, for the message.
    value : int
        The number.

    Returns
    -------
    int
        The same as a plain int.

    Raises
    ------
    TypeError
        If it is no int.
    """
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an int, not {type(value).__name__}") from None


def as_indices(name: str, values: Iterable[SupportsIndex]) -> list[int]:
    """Take the indices of pages, in any iterable: a list, an array, an array of objects.

    Parameters
    ----------
    name : str
        The argument's name, for the message.
    values : iterable of int
        The indices.

    Returns
    -------
    list of int
        The same as plain ints.

    Raises
    ------
    TypeError
        If it is no iterable, or one is no int. A bool is none: a list of them is a mask.
    """
    try:
        indices = []
        for value in values:
            if isinstance(value, bool):
                raise TypeError("'bool' object cannot be interpreted as an index")
            indices.append(operator.index(value))
    except TypeError as error:
        raise TypeError(f"{name} must be a sequence of ints: {error}") from None
    return indices


def check_range(
    name: str,
    value: float,
    low: int,
    high: int | None = None,
    *,
    where: str = "",
    error: type[Exception] = ValueError,
) -> None:
    """Refuse a number that is out of its range.

    Parameters
    ----------
    name : str
        The argument's name, for the message.
    value : int or float
        The number.
    low, high : int
        The range, both ends included; without high, it has no upper end.
    where : str, optional
        The place where the range holds, for the message: "cuda:1".
    error : type of Exception, optional
        The error that is raised.

    Raises
    ------
    TypeError
        If it is no number.
    ValueError
        If the number is out of range.
    """
    try:
        if low <= value and (high is None or value <= high):
            return
    except TypeError:
        raise TypeError(f"{name} must be a number, not {type(value).__name__}") from None
    range_text = f"{low} or more" if high is None else f"in {low}..{_written(high)}"
    at = f" on {where}" if where else ""
    raise error(f"{name} must be {range_text}{at}, not {_given(value)}")


def check_seconds(name: str, value: float, *, above_zero: bool = False) -> None:
    """Refuse a number of seconds that is negative or not a number.

    Parameters
    ----------
    name : str
        The argument's name, for the message.
    value : float
        Seconds.
    above_zero : bool, optional
        Whether 0 is refused, too.

    Raises
    ------
    TypeError
        If it is no number.
    ValueError
        If the number is out of range.
    """
    try:
        if value > 0 or (value == 0 and not above_zero):  # neither holds for NaN
            return
    except TypeError:
        raise TypeError(f"{name} must be a number of seconds, not {type(value).__name__}") from None
    range_text = "above 0 seconds" if above_zero else "0 or more seconds"
    raise ValueError(f"{name} must be {range_text}, not {value}")


def _given(value: float) -> str:
    try:
        return str(value)
    except ValueError:  # Python writes no int of more than 4,300 digits
        return f"an int of {int(value).bit_length()} bits"


def _written(number: int) -> str:
    for offset, text in ((0, ""), (1, " - 1")):
        power = number + offset
        if power >= _LARGE and power & (power - 1) == 0:
            return f"2**{power.bit_length() - 1}{text}"
    return str(number)


def printable(value: Any) -> Any:
    r"""Text that UTF-8 can write, and JSON of it that every reader takes.

    Parameters
    ----------
    value : object
        A str, or lists and dicts of them, in which the bytes of names that are no UTF-8 are lone
        surrogates (PEP 383).

    Returns
    -------
    object
        The same with such surrogates spelled out: the name ``b"\xe9"`` becomes ``"\udce9"``.
    """
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {printable(key): printable(content) for key, content in value.items()}
    if isinstance(value, (list, tuple)):
        return [printable(content) for content in value]
    return value


class OwnerProcess:
    """The process that an object belongs to: a forked child has its locks, but not its threads.

    A method checks this before it takes a lock, which the fork may have copied locked.

    Parameters
    ----------
    owned : str
        The kind of the object, for the message: "engine".
    advice : str
        The way out, for the message: "open an engine in each process".
    error : type of MorphogenError
        The error that `check` raises.
    """

    __slots__ = ("_advice", "_error", "_owned", "_pid")

    def __init__(self, owned: str, advice: str, error: type[MorphogenError]) -> None:
        self._pid = os.getpid()
        self._owned = owned
        self._advice = advice
        self._error = error

    def is_current(self) -> bool:
        """Whether this process is the owner.

        Returns
        -------
        bool
            False in a forked child.
        """
        return self._pid == os.getpid()

    def check(self) -> None:
        """Refuse a call from a forked child.

        Raises
        ------
        MorphogenError
            If this process is not the owner.
        """
        current = os.getpid()
        if self._pid != current:
            raise self._error(
                f"this {self._owned} belongs to process {self._pid}, not to its fork {current}: "
                f"{self._advice}"
            )


def named_path(name: str, given: str | os.PathLike[str], kind: str = "file") -> Path:
    """Take the path of a file or a folder.

    Parameters
    ----------
    name : str
        The argument's name, for the message.
    given : path-like
        The path.
    kind : str, optional
        What is there, for the message.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    TypeError
        If it is no path.
    ValueError
        If it is empty, which pathlib takes for the current folder.
    """
    if not os.fspath(given):
        raise ValueError(f"{name} must name a {kind}, not ''")
    return Path(given)


def from_hexadecimal(name: str, text: str, size: int) -> bytes:
    """Take bytes that are written as hexadecimal digits, and nothing else.

    Parameters
    ----------
    name : str
        The argument's name, for the message.
    text : str
        The digits.
    size : int
        The number of bytes.

    Returns
    -------
    bytes

    Raises
    ------
    ValueError
        If it is anything else. The error does not repeat it: somebody may have mistaken a private
        key for a public one.
    """
    other = re.search("[^0-9a-fA-F]", text)
    if other or len(text) != 2 * size:
        among = f" characters with {other[0]!r} among them" if other else ""
        raise ValueError(f"{name} must be {2 * size} hexadecimal digits, not {len(text)}{among}")
    return bytes.fromhex(text)


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, so that nobody else sees the traffic.

    Parameters
    ----------
    host : str
        A name or an address.

    Returns
    -------
    bool
        False for a name other than localhost.
    """
    import ipaddress  # here, since most users of this module have no hosts

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def missing_extra(module: str, extra: str, user: str = "") -> ModuleNotFoundError:
    """The error for a module that an extra of this package brings and that is not installed.

    Parameters
    ----------
    module : str
        As it is imported: "msgspec".
    extra : str
        "client"; several with commas between.
    user : str, optional
        The part of the package that needs the module.

    Returns
    -------
    ModuleNotFoundError
    """
    what = f"{user} needs {module}" if user else f"{module} is not installed"
    return ModuleNotFoundError(f"{what}: pip install 'morphogen[{extra}]'", name=module)


@contextmanager
def needs_extra(extra: str, user: str = "") -> Iterator[None]:
    """Imports that need an extra: if one fails, the error says what to install.

    Parameters
    ----------
    extra, user : str
        As for `missing_extra`.

    Raises
    ------
    ModuleNotFoundError
        If a module is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        module = error.name or ""
        if module.partition(".")[0] in ("", "morphogen"):
            raise  # no extra brings it
        raise missing_extra(module, extra, user) from None


def find_home() -> Path | None:
    """The user's home.

    Returns
    -------
    Path or None
        None for a user without one, as in some containers.
    """
    try:
        return Path.home()
    except RuntimeError:
        return None


@contextmanager
def names_file(
    path: str | os.PathLike[str], *, instead_of: os.PathLike[str] | None = None
) -> Iterator[None]:
    """Work with a file: an OSError names it, which the system's own do only if opening fails.

    Parameters
    ----------
    path : path-like
        The file, as the user knows it.
    instead_of : path-like, optional
        A name that the user does not know, such as that of a temporary file.

    Raises
    ------
    OSError
        The same error, with the file's name.
    """
    try:
        yield
    except BrokenPipeError:
        raise  # no file's, but the output's
    except OSError as error:
        unknown = (None, None if instead_of is None else os.fspath(instead_of))
        if error.errno is None or error.filename not in unknown:
            raise
        raise OSError(error.errno, error.strerror, os.fspath(path)) from None
