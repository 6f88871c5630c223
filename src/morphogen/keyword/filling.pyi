# Made by tools/release/make_stubs.py from the module's source.
"""The filling of a keyword table's pages with its entries.

Section 12 of docs/protocol.md defines every byte.
"""

import numpy as np
import numpy.typing as npt

from morphogen.keyword.entries import Entries

def fill_pages(
    entries: Entries,
    owners: npt.NDArray[np.uint32],
    slots_per_page: int,
    pages: npt.NDArray[np.uint8],
    first_page: int,
) -> None:
    """Fill consecutive pages with their entries, and all else of them with zeros.

    Parameters
    ----------
    entries : Entries
        With the seed set.
    owners : numpy.ndarray
        uint32: the entry of each slot, plus 1, as `place` gives it.
    slots_per_page : int
        The table's.
    pages : numpy.ndarray
        uint8 (pages, page_size).
    first_page : int
        The place of the first of them in the table.

    Raises
    ------
    ValueError
        If the table has no such pages, or they are too small.
    """
