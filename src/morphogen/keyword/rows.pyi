# Made by tools/release/make_stubs.py from the module's source.
"""The rows of a keyword table in native memory, near their own size."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

class Rows:
    """Keys with their values, counted from 0 in the order in which they were added.

    A row takes its own bytes, 1 to 10 for each of both sizes, and 8 for its place.

    Attributes
    ----------
    count : int
        Rows that were added.
    """

    @property
    def count(self) -> int: ...
    def memory(self) -> int:
        """Bytes that the rows take.

        Returns
        -------
        int
        """
    def add_many(self, keys: Sequence[bytes | str], values: Sequence[bytes | str]) -> None:
        """Add rows: all of them, or where one is refused, none.

        Parameters
        ----------
        keys, values : sequence of bytes or str
            As many values as keys.

        Raises
        ------
        TypeError
            If a key or a value is neither bytes nor str.
        ValueError
            If there are not as many values as keys, or a text has lone surrogates.
        TableBuildError
            If a value is longer than a slot can say.
        MemoryError
            If there is no memory for the rows.
        MorphogenError
            If the rows are being read, as by a table that is built of them.
        """
    def __enter__(self) -> Rows:
        """Keep the rows as they are: nothing is added until `__exit__`."""
    def __exit__(self, *exception: object) -> None: ...
    def value_sizes(self, out: npt.NDArray[np.uint32], first: int) -> None:
        """Write the sizes of consecutive rows' values.

        Parameters
        ----------
        out : numpy.ndarray
            uint32, as many as there are rows to look at.
        first : int
            The first row.

        Raises
        ------
        ValueError
            If there are not so many rows.
        """

MAX_ROWS: int
MAX_VALUE_SIZE: int
