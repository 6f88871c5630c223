"""Write a file whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from morphogen.checks import names_file

# From a file system that has no hard links.
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK})
# From a file system that cannot promise that something is on the disk. Nothing was lost.
_CANNOT_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.ENOSYS})


class NewFile(os.PathLike[str]):
    """A path at which no file may be: `replace_file` refuses one that is there when it ends.

    Parameters
    ----------
    path : path-like
        The path.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.fspath(path)

    def __fspath__(self) -> str:
        return self._path


@contextmanager
def replace_file(path: str | os.PathLike[str], *, mode: int = 0o666) -> Iterator[BinaryIO]:
    """Write a file beside its place, and give it its place once all of it is on the disk.

    A reader of ``path`` finds the old file or the whole new one. An exception, such as that of a
    signal, leaves the old file and nothing else.

    Parameters
    ----------
    path : path-like
        A file that is there is replaced, unless this is a `NewFile`. A link is followed.
    mode : int, optional
        Permissions of the file, less those that the process gives to none; by default those of any
        new file.

    Yields
    ------
    file : binary file
        Open for writing, and empty.

    Raises
    ------
    OSError
        If the file cannot be written, or is a `NewFile` and there. It names ``path``.
    ValueError
        If path is something other than a file.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise ValueError(f"a table is written to a file, which {os.fspath(path)} is not")
    # A name of its own, so that two writers do not meet; and a short one, since the file's own name
    # may be as long as names can be.
    temporary = target.with_name(f".morphogen-{secrets.token_hex(6)}.tmp")
    try:
        with names_file(path, instead_of=temporary):
            descriptor = os.open(
                temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode
            )
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                _sync(file.fileno())
            if isinstance(path, NewFile):
                _rename_to_new(temporary, target)
            else:
                temporary.replace(target)
    except BaseException:
        with suppress(OSError):  # it may never have been made
            temporary.unlink()
        raise
    with names_file(path, instead_of=target.parent):
        _sync_folder(target.parent)


def _rename_to_new(temporary: Path, target: Path) -> None:
    """Give a file a name that nobody has: of two that do so at once, one fails."""
    try:
        try:
            os.link(temporary, target)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            _rename_to_claimed(temporary, target)
        else:
            temporary.unlink()
    except FileExistsError as error:
        raise FileExistsError(error.errno, error.strerror) from None


def _rename_to_claimed(temporary: Path, target: Path) -> None:
    # For a moment a reader finds an empty file.
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        temporary.replace(target)
    except BaseException:
        target.unlink()
        raise


def _sync_folder(folder: Path) -> None:
    """Have the new name on the disk too."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        return  # files may be made in a folder that may not be read
    try:
        _sync(descriptor)
    finally:
        os.close(descriptor)


def _sync(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise
