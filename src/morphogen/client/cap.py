"""The cap of an authenticated table: taken once for each root, hashed to it, and kept.

It comes from one server only, and whichever it is: no other cap than the table's own hashes to the
root, which both servers state, and a read needs both of them anyway.
"""

from __future__ import annotations

import asyncio
import logging
import os
import stat
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from morphogen.authentication import num_cap_nodes, root_of_cap
from morphogen.authentication.hashing import HASH_BYTES
from morphogen.checks import named_path
from morphogen.client.rules import table_layout
from morphogen.errors import ServerError, TableMismatchError
from morphogen.wire import TableInfo

Bytes = npt.NDArray[np.uint8]
# Takes the epoch and the exact number of bytes, and gives so many, and the URL of their server.
Fetch = Callable[[int, int], Awaitable[tuple[bytes | bytearray, str]]]

MAX_CAP_BYTES = 1 << 30  # of a table of 2^25 pages without proof levels

_log = logging.getLogger(__name__)


class Caps:
    """The caps of a client: in memory that of the table it reads, in a folder all there were.

    Parameters
    ----------
    folder : path-like or None
        Where caps are kept from one process to the next. It is made if there is none.

    Raises
    ------
    OSError
        If the folder cannot be made.
    TypeError, ValueError
        If folder is no path, or an empty one.
    """

    def __init__(self, folder: str | os.PathLike[str] | None) -> None:
        self._folder = None if folder is None else named_path("cache_dir", folder, "folder")
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
        self._last: tuple[_Claim, Bytes] | None = None

    async def get(self, info: TableInfo, fetch: Fetch) -> Bytes:
        """Take the cap of a table, of which every byte is hashed to the root.

        Parameters
        ----------
        info : TableInfo
            With a root. It was found possible.
        fetch : callable
            Asks a server for the cap.

        Returns
        -------
        numpy.ndarray
            uint8 (nodes, 32), not to be written to.

        Raises
        ------
        ServerError
            If the server's cap is not that of the root.
        TableMismatchError
            If the cap has more than `MAX_CAP_BYTES`, or the keyword layout does not belong to a
            table with a root.
        """
        claim = _Claim.of(info)
        # Not by the root alone: two servers that both lie could state another shape with it.
        if self._last is None or self._last[0] != claim:
            # In a thread: to hash 16 MiB takes half a second, in which the loop has other work.
            cap = await asyncio.to_thread(self._kept, claim)
            if cap is None:
                body, url = await fetch(info.epoch_id, claim.size)
                cap = await asyncio.to_thread(claim.cap, body)
                if cap is None:
                    raise ServerError(f"{url}: its cap is not that of the table's root")
                await asyncio.to_thread(self._keep, claim, body)
            self._last = (claim, cap)
        return self._last[1]

    def _kept(self, claim: _Claim) -> Bytes | None:
        """The cap in the folder. Anybody may have written there: it is checked like a server's."""
        body = self._folder and _read_exactly(self._folder / claim.file_name, claim.size)
        return claim.cap(body) if body else None

    def _keep(self, claim: _Claim, body: bytes | bytearray) -> None:
        if self._folder is not None:
            try:
                _write_whole(self._folder / claim.file_name, body)
            except OSError as error:  # the folder only saves time
                _log.warning("the cap cannot be kept in %s: %s", self._folder, error.strerror)


@dataclass(frozen=True, slots=True)
class _Claim:
    """What the servers state of a table, for which a cap has to be the proof."""

    root: str
    num_pages: int
    page_size: int
    proof_levels: int
    layout: bytes

    @classmethod
    def of(cls, info: TableInfo) -> _Claim:
        assert info.root is not None
        assert info.proof_levels is not None
        layout = _layout_bytes(info)
        claim = cls(info.root, info.num_pages, info.page_size, info.proof_levels, layout)
        if claim.size > MAX_CAP_BYTES:
            raise TableMismatchError(
                f"the table's cap has {claim.size} bytes: a client takes up to {MAX_CAP_BYTES}, "
                "for which the table needs more proof levels"
            )
        return claim

    @property
    def size(self) -> int:
        """Bytes of the cap."""
        return num_cap_nodes(self.num_pages, self.proof_levels) * HASH_BYTES

    @property
    def file_name(self) -> str:
        return f"{self.root}.cap"

    def cap(self, body: bytes | bytearray) -> Bytes | None:
        """The cap that these bytes are, or None if they are not that of the root."""
        if len(body) != self.size:
            return None
        cap = np.frombuffer(body, dtype=np.uint8).reshape(-1, HASH_BYTES)
        cap.flags.writeable = False
        shape = (self.num_pages, self.page_size, self.proof_levels)
        return cap if root_of_cap(cap, *shape, self.layout).hex() == self.root else None


def _layout_bytes(info: TableInfo) -> bytes:
    """The layout as the root vouches for it."""
    if info.table is None:
        return b""
    layout = table_layout(info)
    if layout.version == 1 or layout.proof_levels != info.proof_levels:
        raise TableMismatchError(
            f"the servers' keyword layout has version {layout.version} and {layout.proof_levels} "
            f"proof levels, their table a root and {info.proof_levels}"
        )
    return layout.authenticated_bytes()


def _read_exactly(path: Path, size: int) -> bytes | None:
    """Read a file of this size; None if there is none."""
    with suppress(OSError):
        # Not to wait for whoever may write to a pipe of that name.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            if stat.S_ISREG(found.st_mode) and found.st_size == size:
                return file.read(size)
    return None


def _write_whole(path: Path, content: bytes | bytearray) -> None:
    """Write a file beside its place and give it that. A link in its place is not followed.

    It need not be on the disk before it has its name: whoever reads it checks all of it.
    """
    descriptor, name = tempfile.mkstemp(prefix=".morphogen-", suffix=".tmp", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
