"""The entries of a keyword table: rows, one for each fragment of a row's value.

Section 12 of docs/protocol.md defines every byte.
"""

cimport cython

import numpy as np

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memset

from morphogen.kernels cimport Blake2b
from morphogen.keyword.rows cimport Row, Rows, read_row, tell

cdef enum:
    ROWS = 1 << 16  # that are read between two looks for an interrupt

cdef bytes _PERSON = b"morphogen/kw/v1\0"
MAX_ENTRIES = 2**32 - 2


@cython.final
cdef class Entries:
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

    def __cinit__(
        self,
        rows: Rows,
        kept: npt.NDArray[np.uint32] | None,
        value_size: int,
        count: int,
    ) -> None:
        cdef const uint32_t[::1] kept_view
        with rows:  # a number of rows that stays
            self.rows = rows
            self._value_size = value_size
            self._used = self.rows.count
            if kept is not None:
                kept_view = kept
                self._kept = kept
                if kept_view.shape[0]:
                    self._row_of = &kept_view[0]
                    if np.max(kept) >= self._used:
                        raise ValueError(f"kept must be below {self._used}, not {np.max(kept)}")
                self._used = kept_view.shape[0]
            if count < self._used or count > <size_t>MAX_ENTRIES:
                raise ValueError(f"count must be {self._used} to {MAX_ENTRIES}, not {count}")
            self.count = count
            if count != self._used:
                self._number_fragments()

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
        cdef const uint8_t* key = seed
        cdef const uint8_t* person = _PERSON
        cdef uint8_t salt[16]
        cdef int fragment
        if len(seed) != 16:
            raise ValueError(f"seed must have 16 bytes, not {len(seed)}")
        memset(salt, 0, sizeof(salt))
        for fragment in range(FRAGMENTS):
            salt[0] = fragment
            self._hashes[fragment] = Blake2b(DIGEST_BYTES, key, 16, salt, person)

    cdef int _number_fragments(self) except -1:
        cdef uint32_t[::1] row_of = np.empty(self.count, dtype=np.uint32)
        cdef size_t number, row, more, first, at = 0
        for first in range(0, self._used, ROWS):
            tell(None, first, self._used)
            with nogil:
                for number in range(first, min(first + ROWS, self._used)):
                    row = number if self._row_of == NULL else self._row_of[number]
                    more = fragments_of(
                        read_row(self.rows._bytes + self.rows._starts[row]), self._value_size
                    )
                    if more > self.count - at:
                        more = self.count - at
                    while more:
                        row_of[at] = <uint32_t>row
                        at += 1
                        more -= 1
        if at != self.count:
            raise ValueError(f"count must be {at}, that of the entries, not {self.count}")
        self._kept = row_of.base
        self._row_of = &row_of[0]
        self._several = True
        return 0

    cdef EntryTable table(self) noexcept:
        cdef EntryTable table
        table.bytes = self.rows._bytes
        table.starts = self.rows._starts
        table.row_of = self._row_of
        table.several = self._several
        table.count = self.count
        table.value_size = self._value_size
        table.hashes = self._hashes
        return table


cdef int check_entries(object entries) except -1:
    if not isinstance(entries, Entries):
        raise TypeError(f"entries must be Entries, not {type(entries).__name__}")
    return 0


cdef size_t fragments_of(Row row, size_t value_size) noexcept nogil:
    if value_size == 0 or row.value_size == 0:
        return 1
    return (row.value_size - 1) // value_size + 1


def blake2b(
    message: bytes, digest_size: int, key: bytes, salt: bytes, person: bytes
) -> bytes:
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
    cdef uint8_t digest[64]
    cdef Blake2b hash
    if not 1 <= digest_size <= 64 or len(key) > 64 or len(salt) != 16 or len(person) != 16:
        raise ValueError("digest_size, key, salt or person is out of its range")
    hash = Blake2b(digest_size, key, len(key), salt, person)
    hash.hash(message, len(message), digest)
    return (<const char*>digest)[:digest_size]
