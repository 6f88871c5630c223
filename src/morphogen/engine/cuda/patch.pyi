# Made by tools/release/make_stubs.py from the module's source.
"""The difference of two epochs' pages, by which the answers of one become those of the other.

An answer is a sum of pages, so what a key selects of the difference is the difference of its
answers.
"""

import numpy as np
import numpy.typing as npt

from morphogen.pages import PageMatrix

class Patch:
    """Pages that differ, and how.

    Parameters
    ----------
    indices : numpy.ndarray
        int64, ascending. Those of pages that do not differ are dropped.
    pages : numpy.ndarray
        uint8 of shape (indices, page_size): the XOR of both epochs' bytes.
    first_leaf : int, optional
        The leaf of keys' trees from whose first page on the indices are counted.
    """

    @property
    def indices(self) -> object: ...
    @property
    def pages(self) -> object: ...
    def __init__(
        self,
        indices: npt.NDArray[np.int64],
        pages: npt.NDArray[np.uint8],
        first_leaf: int = 0,
    ) -> None: ...
    def merged(self, after: Patch) -> Patch:
        """Both differences, one after the other.

        Parameters
        ----------
        after : Patch
            Of the same pages of the table.

        Returns
        -------
        Patch
        """
    def words(self) -> int:
        """XOR of the pages' bytes, each padded with zeros to whole little-endian 64-bit words."""

def difference(before: PageMatrix, after: PageMatrix, indices: npt.NDArray[np.int64]) -> Patch:
    """What makes the pages of one epoch those of another.

    Parameters
    ----------
    before, after : PageMatrix
        The same pages of the table.
    indices : numpy.ndarray
        int64, ascending: the pages that may differ.

    Returns
    -------
    Patch
    """
