# Made by tools/release/make_stubs.py from the module's source.
"""The hashes of leaves, of nodes and of paths: SHA-256 by the processor's own instructions.

Two pages or nodes are hashed at once, since each waits for its own last step. Without such
instructions four are, in the lanes of a vector. What a client waits for after it has waited for
servers is one call here: then little code has to come from memory.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from typing_extensions import Buffer

def kernels() -> tuple[str, ...]:
    """Names of the ways to hash that this machine has, the fastest first.

    Returns
    -------
    tuple of str
        Such as "sha-ni"; the last is "portable".
    """

def use_kernel(name: str | None = None) -> None:
    """Hash in one of these ways from now on, for tests and measurements.

    Parameters
    ----------
    name : str, optional
        One of `kernels()`; without it the fastest.

    Raises
    ------
    ValueError
        If this machine has none of that name.
    """

def sha256(message: bytes) -> bytes:
    """SHA-256 (FIPS 180-4) of a message, as `hashlib.sha256` has it: tests compare both.

    Parameters
    ----------
    message : bytes
        Of any length.

    Returns
    -------
    bytes
        32 bytes.
    """

def hash_path(index: int, page: Buffer, content_size: int) -> bytes:
    """Return the node that a page leads to, by its content and by each sibling behind that.

    Parameters
    ----------
    index : int
        The page's, below 2**64.
    page : bytes-like
        The content and the siblings, the lowest first.
    content_size : int
        Bytes of the content.

    Returns
    -------
    bytes
        32 bytes.

    Raises
    ------
    ValueError
        If behind the content are no whole siblings.
    """

def lead_to_cap(
    pages: Buffer, page_size: int, asked: Sequence[int], cap: Buffer, content_size: int
) -> bool:
    """Tell whether all pages lead to their nodes of a cap.

    All are hashed, whatever the others are.

    Parameters
    ----------
    pages : bytes-like
        A page for each index, and what may follow.
    page_size : int
        Bytes of a page.
    asked : sequence of int
        The index that each was asked for.
    cap : bytes-like
        The cap's nodes.
    content_size : int
        Bytes of a page's content; siblings are behind it.

    Returns
    -------
    bool
        True for no pages, too.

    Raises
    ------
    ValueError
        If there are fewer pages, an index lies outside of the cap, or behind a page's content are
        no whole siblings.
    """

def hash_leaves(contents: npt.NDArray[np.uint8], first: int = 0) -> npt.NDArray[np.uint8]:
    """Return the leaves of pages from the index ``first`` on.

    Parameters
    ----------
    contents : numpy.ndarray
        uint8 (pages, content_size), anywhere in memory.
    first : int, optional
        The index of the first page.

    Returns
    -------
    numpy.ndarray
        uint8 (pages, 32).
    """

def hash_pairs(level: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return the parents of an even number of nodes.

    Parameters
    ----------
    level : numpy.ndarray
        uint8 (nodes, 32).

    Returns
    -------
    numpy.ndarray
        uint8 (nodes / 2, 32).

    Raises
    ------
    ValueError
        If the number is odd, or a node has other than 32 bytes.
    """

def climb(level: npt.NDArray[np.uint8], levels: int) -> npt.NDArray[np.uint8]:
    """Return the nodes so many levels above; a node that covers no page is zero.

    Parameters
    ----------
    level : numpy.ndarray
        uint8 (nodes, 32).
    levels : int
        0 or more.

    Returns
    -------
    numpy.ndarray
        uint8 (nodes, 32); for no levels the array that was given.

    Raises
    ------
    ValueError
        If a node has other than 32 bytes.
    """
