# Made by tools/make_stubs.py from the module's source.
"""Distributed point functions: Gen, Eval and EvalFull of key format v1 (docs/protocol.md).

The construction is that of Boyle, Gilboa and Ishai, "Function Secret Sharing: Improvements and
Extensions" (CCS 2016), with early termination at leaves of 512 bits. The pseudo-random generator is
the ChaCha20 block function of RFC 8439.
"""

from typing import SupportsIndex

import numpy as np
import numpy.typing as npt
from typing_extensions import Buffer

MAX_PAGES: int

def gen(
    index: SupportsIndex, num_pages: SupportsIndex, *, entropy: Buffer | None = None
) -> tuple[bytes, bytes]:
    """Make the pair of keys that selects one page (Gen).

    Parameters
    ----------
    index : int
        The page to select, 0 <= index < num_pages. Neither key alone tells anything about it.
    num_pages : int
        Pages in the table, 1 to 2**40.
    entropy : bytes-like of 48 bytes, optional
        seed0 | seed1 | salt, for tests with known results. By default it comes from the operating
        system. Never use the same bytes for two pairs.

    Returns
    -------
    tuple of (bytes, bytes)
        The keys of party 0 and party 1, ``key_size(num_pages)`` bytes each. Whoever sees both knows
        the index.

    Raises
    ------
    TypeError
        If an argument is not of the type above.
    ValueError
        If a number is out of range, or entropy has another length or two equal seeds.

    Notes
    -----
    Neither branches on nor indexes by the index or the entropy, once their range has been checked.
    """

def key_size(num_pages: SupportsIndex) -> int:
    """Size of one key for a table of ``num_pages`` pages.

    Parameters
    ----------
    num_pages : int
        1 to 2**40.

    Returns
    -------
    int
        Bytes: 112 + 16 * max(0, ceil(log2(num_pages)) - 9).
    """

def eval_full(
    key: Buffer, num_pages: SupportsIndex, *, instruction_set: str | None = None
) -> npt.NDArray[np.uint8]:
    """The selection bits of all pages under one key (EvalFull).

    Parameters
    ----------
    key : bytes-like
        A key of either party, made for ``num_pages`` pages.
    num_pages : int
        1 to 2**40.
    instruction_set : str, optional
        One of ``morphogen.instruction_set.supported()``; by default the widest.

    Returns
    -------
    numpy.ndarray
        uint8 of shape (ceil(num_pages / 8),). Page i is bit ``i % 8`` of byte ``i // 8``, counted
        from the least significant; bits past the last page are zero.

    Raises
    ------
    InvalidKeyError
        If the key does not have the form of key format v1.
    KeyDomainError
        If the key was made for another number of pages.
    """

def eval_at(key: Buffer, index: SupportsIndex, num_pages: SupportsIndex) -> int:
    """The selection bit of one page under one key (Eval).

    Parameters
    ----------
    key : bytes-like
        A key of either party, made for ``num_pages`` pages.
    index : int
        The page to look at, 0 <= index < num_pages; not secret.
    num_pages : int
        1 to 2**40.

    Returns
    -------
    int
        0 or 1.

    Raises
    ------
    InvalidKeyError
        If the key does not have the form of key format v1.
    KeyDomainError
        If the key was made for another number of pages.
    """

def parse_key(key: Buffer) -> tuple[bytes, int, int]:
    """Check a key's form and read its public fields.

    Parameters
    ----------
    key : bytes-like

    Returns
    -------
    tuple of (bytes, int, int)
        The key's bytes, its party (0 or 1) and its n = ceil(log2(num_pages)).

    Raises
    ------
    InvalidKeyError
        If the key does not have the form of key format v1.
    TypeError
        If it is not bytes-like.
    """
