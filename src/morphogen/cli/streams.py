"""The standard streams of a command. Each may be missing, be closed, or lose its reader."""

from __future__ import annotations

import io
import os
import select
import shutil
import stat
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from morphogen.checks import names_file

STDIN, STDOUT = "standard input", "standard output"
STANDARD = Path("-")  # stands for the one where a file is read, for the other where one is written
_DEV_STDIN = Path("/dev/stdin")


class _Missing(io.TextIOBase):
    """In the place of a stream that is not there: it is no terminal, and takes what is written."""

    def writable(self) -> bool:
        return True

    def write(self, text: str, /) -> int:
        return len(text)


class _Waiting(io.FileIO):
    """A descriptor that does not block, written to as one that does.

    Another process may have set that, which shares it. Python would fail with part of the text
    written, or lose it without an error where streams have no buffers.
    """

    def write(self, data: Any, /) -> int:
        written: int | None
        while (written := super().write(data)) is None:
            select.select([], [self], [])
        return written


def prepare() -> None:
    """Make sure that there are streams to write to, and that no text fails to be printed."""
    for descriptor in range(3):
        _occupy(descriptor)
    with suppress(OSError, AttributeError):  # it is missing, or no descriptor
        if not os.get_blocking(sys.stdout.fileno()):
            sys.stdout = io.TextIOWrapper(
                io.BufferedWriter(_Waiting(sys.stdout.fileno(), "wb", closefd=False)),
                encoding=sys.stdout.encoding,
                line_buffering=sys.stdout.isatty(),
            )
    for name in ("stdout", "stderr"):
        stream: TextIO | None = getattr(sys, name)
        if stream is None or stream.closed:
            setattr(sys, name, _Missing())
        elif isinstance(stream, io.TextIOWrapper):
            # The name of a file may be any bytes, and a terminal may know few characters.
            stream.reconfigure(errors="backslashreplace")


def _occupy(descriptor: int) -> None:
    """Open a standard descriptor that is closed: the next file would get it, and the messages."""
    with suppress(OSError):
        try:
            os.fstat(descriptor)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, descriptor)
            if null != descriptor:
                os.close(null)


@contextmanager
def writing() -> Iterator[None]:
    """Write to the standard output.

    Raises
    ------
    OSError
        If it cannot be written, with its name; a BrokenPipeError if its reader has gone. From then
        on all that is printed is lost without an error.
    """
    try:
        yield
    except OSError as error:
        _leave(sys.stdout)
        raise OSError(error.errno, error.strerror, STDOUT) from None


def write(text: str) -> None:
    """Print to the standard output.

    Parameters
    ----------
    text : str

    Raises
    ------
    OSError
        As for `writing`.
    """
    with writing():
        sys.stdout.write(text)
        sys.stdout.flush()


def write_bytes(content: bytes) -> None:
    """Write to the standard output.

    Parameters
    ----------
    content : bytes

    Raises
    ------
    OSError
        As for `writing`, and if there is no standard output.
    """
    check_output()
    with writing():
        sys.stdout.flush()
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()


def takes_output(json: bool, outputs: Mapping[str, Path | None]) -> bool:
    """Whether an option of a command writes to the standard output, in the place of the result.

    Parameters
    ----------
    json : bool
        Whether the result is to be printed as JSON.
    outputs : mapping of str to pathlib.Path or None
        By the option, the file that it writes.

    Returns
    -------
    bool

    Raises
    ------
    OSError
        If it does, and there is no standard output.
    ValueError
        If two would write there.
    """
    takers = [f"{option} -" for option, path in outputs.items() if path == STANDARD]
    if not takers:
        return False
    takers += ["--json"] if json else []
    if len(takers) > 1:
        raise ValueError(f"{takers[0]} and {takers[1]} would both write to the {STDOUT}")
    check_output()
    return True


def input_file(path: Path, *, once: bool = False) -> Path:
    """The file that an argument names: one that can be mapped, and opened several times.

    Parameters
    ----------
    path : pathlib.Path
        ``-`` for the standard input. What comes through a pipe is read into memory, not copied to a
        disk: it may be a private key.
    once : bool, optional
        Whether it is enough that the file can be read once, as a pipe can.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    OSError
        If there is no standard input, or no memory.
    """
    if path != STANDARD:
        return path
    check_input()
    descriptor = sys.stdin.fileno()
    mode = os.fstat(descriptor).st_mode
    if not (stat.S_ISREG(mode) or (once and stat.S_ISFIFO(mode))):
        with names_file(STDIN), os.fdopen(os.memfd_create("morphogen"), "wb") as copy:
            shutil.copyfileobj(sys.stdin.buffer, copy)
            copy.flush()
            os.dup2(copy.fileno(), descriptor)
    return _DEV_STDIN


def check_inputs(inputs: Mapping[str, Path | None]) -> None:
    """Refuse two files of which both would come through the standard input.

    Parameters
    ----------
    inputs : mapping of str to pathlib.Path or None
        By the argument, the file that it reads.

    Raises
    ------
    ValueError
        If there are two.
    """
    takers = [argument for argument, path in inputs.items() if path == STANDARD]
    if len(takers) > 1:
        raise ValueError(f"{takers[0]} and {takers[1]} cannot both come through the {STDIN}")


def check_output_file(output: Path, source: Path | None = None, *, force: bool) -> None:
    """Refuse to write a file where it cannot be, or where it would replace another.

    Parameters
    ----------
    output : pathlib.Path
    source : pathlib.Path, optional
        The file that it is made from.
    force : bool
        Whether it may replace another file.

    Raises
    ------
    ValueError
        If it is the source itself, it is there already, or its folder is not there.
    """
    if source is not None and output.resolve() == source.resolve():
        raise ValueError(f"{output} is the file that is read")
    if not force and os.path.lexists(output):
        raise ValueError(f"{output} is there already: --force replaces it")
    if not output.parent.is_dir():
        raise ValueError(f"{output}: there is no folder {output.parent}")


def output_file(output: Path, *, force: bool) -> os.PathLike[str]:
    """Where a command writes what `check_output_file` allowed: another may have come meanwhile.

    Parameters
    ----------
    output : pathlib.Path
    force : bool
        Whether it may replace another file.

    Returns
    -------
    path-like
        For `morphogen.keyword.atomic_file.replace_file`.
    """
    from morphogen.keyword.atomic_file import NewFile

    return output if force else NewFile(output)


def check_input() -> None:
    """Refuse to read a standard input that is not there.

    Raises
    ------
    OSError
        If it is missing or closed.
    """
    if sys.stdin is None or sys.stdin.closed:
        raise OSError(f"the {STDIN} is closed")


def check_output() -> None:
    """Refuse to work for a standard output that is not there.

    Raises
    ------
    OSError
        If it is missing or closed.
    """
    if isinstance(sys.stdout, _Missing):
        raise OSError(f"the {STDOUT} is closed")


def complain(message: str) -> None:
    """Print a line for people to the standard error, if anybody reads it.

    Parameters
    ----------
    message : str
    """
    try:
        print(f"morphogen: {message}", file=sys.stderr, flush=True)
    except OSError:
        _leave(sys.stderr)


def finish() -> None:
    """Write what is left. Python would do it at the exit, and change the exit code if that fails.

    Raises
    ------
    OSError
        As for `writing`.
    """
    try:
        sys.stderr.flush()
    except OSError:
        _leave(sys.stderr)
    write("")


def _leave(stream: TextIO) -> None:
    """Let all that is still to be written to a broken stream go nowhere."""
    with suppress(OSError):  # io.UnsupportedOperation is one
        descriptor = stream.fileno()
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, descriptor)
        os.close(null)
        stream.flush()
