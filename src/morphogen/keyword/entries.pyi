# Made by tools/release/make_stubs.py from the module's source.
"""The entries of a keyword table: rows, one for each fragment of a row's value.

Section 12 of docs/protocol.md defines every byte.
"""

import numpy as np
import numpy.typing as npt

from morphogen.keyword.rows import Rows

class Entries:
    """The entries of rows.

    Parameters
    ----------
    rows : Rows
        They must stay as they are: nothing may be added to them, nor may they be emptied.
    kept : numpy.ndarray or None
        uint32: the numbers of the rows that count; None for all.
    value_size : int
        Bytes of a value that an entry holds.
    count : int
        Entries in all, as `plan` counted them.

    Attributes
    ----------
    count : int
        As given.
    rows : Rows
        As given.

    Raises
    ------
    ValueError
        If there is another number of entries.
    """

    @property
    def count(self) -> int: ...
    @property
    def rows(self) -> Rows: ...
    def __init__(
        self,
        rows: Rows,
        kept: npt.NDArray[np.uint32] | None,
        value_size: int,
        count: int,
    ) -> None: ...
    def set_seed(self, seed: bytes) -> None:
        """Let the entries be hashed with a table's seed.

        Parameters
        ----------
        seed : bytes
            16 bytes.

        Raises
        ------
        ValueError
            If it has another length.
        """

MAX_ENTRIES: int

def blake2b(message: bytes, digest_size: int, key: bytes, salt: bytes, person: bytes) -> bytes:
    """BLAKE2b (RFC 7693) of a message, as `hashlib.blake2b` has it: tests compare both.

    Parameters
    ----------
    message : bytes
        Of any length.
    digest_size : int
        1 to 64.
    key : bytes
        Up to 64.
    salt, person : bytes
        16 each.

    Returns
    -------
    bytes
        The digest.

    Raises
    ------
    ValueError
        If an argument is out of its range.
    """
