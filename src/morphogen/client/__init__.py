"""The client: it reads pages from two servers, and neither learns which."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Self, SupportsIndex

import numpy as np
import numpy.typing as npt

from morphogen.client.aio import AsyncClient as AsyncClient
from morphogen.client.loop import LoopThread
from morphogen.wire import TableInfo


class Client:
    """A client of two servers. Use it in a ``with`` block, or close it; threads may share it.

    Parameters
    ----------
    urls : sequence of str
        The two servers, ``https://host[:port][/path]``, in any order.
    timeout : float, optional
        Seconds for one message to one server: all attempts, the waits between, down to the last
        byte of the answer.
    retries : int, optional
        How often the same bytes are sent to the same server again after a lost connection, or when
        it is busy.
    backoff : float, optional
        Seconds before the first retry, on average; twice as many before each next.
    ca_file : path-like, optional
        Certificates of the authorities to trust, PEM, instead of the usual ones.
    insecure : bool, optional
        Allow ``http`` to other machines than this. Whoever sees the network then sees both keys,
        and with them which page is read.

    Raises
    ------
    TypeError, ValueError
        If the URLs are not those of two servers to which keys may be sent, or a number is out of
        range.
    OSError
        If ca_file cannot be read.
    EpochMismatchError, TableMismatchError, ServerError, DeadlineError
        See `AsyncClient.connect`: both servers are asked for their table at once.

    Notes
    -----
    What the servers see does not depend on which pages or keys are asked for. It does depend on how
    many, and when: see docs/protocol.md.

    Examples
    --------
    With the URLs of two servers that hold one table of 700 pages of 48 bytes:

    >>> import morphogen as mg
    >>> with mg.Client([url0, url1]) as client:
    ...     pages = client.get([3, 5, 7, 3])
    >>> pages.shape
    (4, 48)
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        timeout: float = 10.0,
        retries: int = 3,
        backoff: float = 0.1,
        ca_file: str | os.PathLike[str] | None = None,
        insecure: bool = False,
    ) -> None:
        self._client = AsyncClient(
            urls,
            timeout=timeout,
            retries=retries,
            backoff=backoff,
            ca_file=ca_file,
            insecure=insecure,
        )
        self._loop = LoopThread()
        try:
            self._loop.run(self._client.connect())
        except BaseException:
            self.close()
            raise

    @property
    def info(self) -> TableInfo:
        """What the first URL's server said of the table when it was last asked."""
        return self._client.info

    def get(self, indices: Iterable[SupportsIndex]) -> npt.NDArray[np.uint8]:
        """Read pages, all of one epoch.

        Parameters
        ----------
        indices : iterable of int
            The pages, each 0 <= index < num_pages. They may repeat.

        Returns
        -------
        numpy.ndarray
            uint8 of shape (indices, page_size), in their order.

        Raises
        ------
        TypeError, ValueError
            If an index is no int or out of range.
        EpochMismatchError, TableMismatchError, ServerError, DeadlineError
            See `AsyncClient.connect`.
        MorphogenError
            If the client is closed, or belongs to the parent of this process.
        """
        return self._loop.run(self._client.get(indices))

    def lookup(self, key: bytes) -> bytes | None:
        """Look one key up: always one query of three keys, whether or not the key exists.

        Parameters
        ----------
        key : bytes
            The key, as the table's builder gave it.

        Returns
        -------
        bytes or None
            Its value; None if the table has no such key.

        Raises
        ------
        TypeError
            If key is not bytes.
        TableMismatchError
            If the servers' table is not a keyword table, or they disagree about it.
        EpochMismatchError, ServerError, DeadlineError, MorphogenError
            As from `get`.
        """
        return self._loop.run(self._client.lookup(key))

    def lookup_many(self, keys: Iterable[bytes]) -> list[bytes | None]:
        """Look keys up, all in one epoch: one query of three keys for each.

        Parameters
        ----------
        keys : iterable of bytes
            The keys. They may repeat.

        Returns
        -------
        list of (bytes or None)
            The values in the order of the keys; None where the table has no such key.

        Raises
        ------
        TypeError, TableMismatchError, EpochMismatchError
            As from `lookup`.
        ServerError, DeadlineError, MorphogenError
            As from `lookup`.
        """
        return self._loop.run(self._client.lookup_many(keys))

    def close(self) -> None:
        """Close the connections. May be called again."""
        self._loop.close(self._client.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return repr(self._client).replace("AsyncClient", "Client", 1)
