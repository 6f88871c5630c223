# Made by tools/release/make_stubs.py from the module's source.
"""Micro-batch planning, and packing of a batch's keys into one aligned buffer.

The planner knows nothing of devices: an engine takes ranges from here, and reads the packed keys
in place.
"""

from typing import Any, SupportsIndex

class KeyPacker:
    """Checks the keys of a batch and lays them side by side, ready for a kernel.

    Keys stand in request order, ``key_size`` bytes apart, from a 64-byte aligned address on. The
    buffer grows to the largest batch seen and is used again for every batch.

    Parameters
    ----------
    num_pages : int
        Pages in the table that the keys must be for, 1 to 2**40.

    Attributes
    ----------
    num_pages : int
        As given.
    key_size : int
        Bytes a key, and the distance between packed keys.
    query_count : int
        Queries in the batch last packed, 0 after an error.
    keys_per_query : int
        Keys of each query of that batch, 1 to 3; 3 if the batch was empty.
    party : int
        The party of all keys of that batch, 0 or 1; -1 if it was empty, or had keys of both.

    Raises
    ------
    TypeError, ValueError
        If num_pages is no int, or out of range.

    Notes
    -----
    A packer is not safe for two threads at a time. docs/reference/cython.md describes it at the C
    level.

    Examples
    --------
    >>> import morphogen as mg
    >>> query, _ = mg.make_query([3, 5, 7], num_pages=1000)
    >>> packer = mg.planner.KeyPacker(1000)
    >>> packer.pack([query, query])
    >>> packer.query_count, packer.keys_per_query, packer.key_size
    (2, 3, 128)
    >>> packer.packed() == b"".join(query.keys) * 2
    True
    """

    @property
    def num_pages(self) -> int: ...
    @property
    def key_size(self) -> int: ...
    @property
    def keys_per_query(self) -> int: ...
    @property
    def query_count(self) -> int: ...
    @property
    def party(self) -> int: ...
    def __init__(self, num_pages: SupportsIndex) -> None: ...
    def pack(self, queries: list[Any]) -> None:
        """Check and pack a batch.

        Parameters
        ----------
        queries : list of Query
            All with the same number of keys.

        Raises
        ------
        InvalidKeyError, KeyDomainError
            If a key is malformed, or made for another number of pages.
        TypeError, ValueError
            If queries is not a list of Query, or they differ in their number of keys.
        MemoryError
            If there is no memory for the keys.
        """
    def packed(self) -> bytes:
        """The packed keys of the last batch.

        Returns
        -------
        bytes
            A copy, ``query_count * keys_per_query * key_size`` bytes.
        """

DEFAULT_MICRO_BATCH: int
MAX_KEYS_PER_QUERY: int

def micro_batch_ranges(
    total_queries: SupportsIndex, max_micro_batch: SupportsIndex = 2
) -> list[tuple[int, int]]:
    """Cut a batch into ordered chunks of at most ``max_micro_batch`` queries.

    Parameters
    ----------
    total_queries : int
        Queries in the batch, 0 or more.
    max_micro_batch : int, optional
        The largest chunk, 1 or more; 2 by default, the most a GPU is given in one launch.

    Returns
    -------
    list of (int, int)
        Half-open ranges that cover 0..total_queries in order. All have the full width but the last,
        which may be shorter.

    Raises
    ------
    TypeError, ValueError
        If a number is no int, or out of range.

    Examples
    --------
    >>> import morphogen as mg
    >>> mg.planner.micro_batch_ranges(5)
    [(0, 2), (2, 4), (4, 5)]
    """
