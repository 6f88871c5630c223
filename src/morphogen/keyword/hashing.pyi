# Made by tools/release/make_stubs.py from the module's source.
"""The hashes of a keyword table's entries, and the keys that are there twice."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from morphogen.keyword.entries import Entries

def hash_entries(
    entries: Entries,
    num_pages: int,
    candidates: npt.NDArray[np.uint32],
    dropped: npt.NDArray[np.uint8] | None = None,
    *,
    last: bool = False,
    mask: int = 18446744073709551615,
    progress: Callable[[int, int], object] | None = None,
) -> tuple[int, int] | bool:
    """Hash all keys, and look for two that are equal.

    Parameters
    ----------
    entries : Entries
        With the seed set.
    num_pages : int
        Pages in the table, 1 to 2**32.
    candidates : numpy.ndarray
        uint32 (count, 3): receives the candidates of each entry.
    dropped : numpy.ndarray, optional
        uint8, one for each of all rows: receives a 1 for each row whose key another row has.
        Without it, such a row ends the work.
    last : bool, optional
        Whether the last row of a key stays, not the first.
    mask : int, optional
        For tests: the bits of both halves of a check that are compared.
    progress : callable, optional
        Called with the entries that are hashed, and all of them.

    Returns
    -------
    bool or tuple of (int, int)
        False if two keys have the same check, so that this seed will not do. The numbers of two
        rows with the same key if nothing is dropped; else True.

    Raises
    ------
    ValueError
        If an array has another shape, or num_pages is out of range.
    MemoryError
        If there is no memory for the comparison.
    """
