"""The client for programs without an event loop: it reads pages privately from two servers."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import NoReturn, Self, SupportsIndex

import numpy as np
import numpy.typing as npt

from morphogen.client.aio import AsyncClient as AsyncClient
from morphogen.client.credentials import Authorities, Certificates, Headers
from morphogen.client.loop import LoopThread
from morphogen.client.rules import RETRIES
from morphogen.wire import TableInfo


class Client:
    """A client of two servers. Use it in a ``with`` block, or close it; threads may share it.

    It asks both servers at once what pages they have, as `AsyncClient.connect` does.

    Examples
    --------
    With the URLs of two servers that hold the same 700 pages of 48 bytes:

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
        retries: int = RETRIES,
        backoff: float = 0.1,
        ca_file: Authorities = None,
        headers: Headers = None,
        certificates: Certificates = None,
        insecure: bool = False,
        root: bytes | str | None = None,
        verify: bool | None = None,
        owner: bytes | str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        self._client = AsyncClient(
            urls,
            timeout=timeout,
            retries=retries,
            backoff=backoff,
            ca_file=ca_file,
            headers=headers,
            certificates=certificates,
            insecure=insecure,
            root=root,
            verify=verify,
            owner=owner,
            cache_dir=cache_dir,
        )
        self._loop = LoopThread(self._client.close)
        try:
            self._loop.run(self._client.connect)
        except BaseException:
            self.close()
            raise

    @property
    def info(self) -> TableInfo:
        """The description of the epoch that is read, as the first URL's server gave it."""
        return self._client.info

    @property
    def authenticated(self) -> bool:
        """Whether each page is checked against the root of the table."""
        return self._client.authenticated

    @property
    def root(self) -> bytes | None:
        """The root that each page is checked against."""
        return self._client.root

    def get(self, indices: Iterable[SupportsIndex]) -> npt.NDArray[np.uint8]:
        """Read pages, all of one epoch."""
        return self._loop.run(lambda: self._client.get(indices))

    def lookup(self, key: bytes) -> bytes | None:
        """Look one key up."""
        return self._loop.run(lambda: self._client.lookup(key))

    def lookup_many(self, keys: Iterable[bytes]) -> list[bytes | None]:
        """Look keys up, all in one epoch."""
        return self._loop.run(lambda: self._client.lookup_many(keys))

    def close(self) -> None:
        """Close the connections."""
        self._loop.close()

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
        # A copy would share the connections and the thread.
        raise TypeError("a client cannot be copied or pickled: make one where it is used")

    def __repr__(self) -> str:
        return repr(self._client).replace("AsyncClient", "Client", 1)


def _take_docstrings() -> None:
    """Give this client the parameters and the methods' docstrings of the other, in full."""
    for name in ("info", "authenticated", "root", "get", "lookup", "lookup_many", "close"):
        vars(Client)[name].__doc__ = vars(AsyncClient)[name].__doc__
    if Client.__doc__ and AsyncClient.__doc__:  # python -OO has no docstrings
        summary, heading, examples = inspect.cleandoc(Client.__doc__).partition("Examples\n")
        sections = inspect.cleandoc(AsyncClient.__doc__).partition("Parameters\n")
        Client.__doc__ = f"{summary}{sections[1]}{sections[2]}\n\n{heading}{examples}"


_take_docstrings()
