"""Micro-batch planning, and packing of a batch's keys into one aligned buffer.

The planner knows nothing of devices: an engine takes ranges from here, and reads the packed keys
in place.
"""

cimport cython

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t
from libc.stdlib cimport free
from libc.string cimport memcpy

from morphogen.checks import as_int, check_range

from morphogen.key_format cimport (
    as_key_bytes,
    check_num_pages,
    raise_key_domain,
    raise_key_fault,
)
from morphogen.kernels cimport (
    KeyFault,
    find_key_fault,
    kLogPagesOffset,
    kPartyOffset,
    key_bytes,
    log_pages,
)


cdef extern from "Python.h":
    const Py_ssize_t PY_SSIZE_T_MAX

cdef extern from "stdlib.h" nogil:
    void* aligned_alloc(size_t alignment, size_t size)

cdef enum:
    # A whole cache line. Kernels need 16 bytes.
    KEY_ALIGN = 64

DEFAULT_MICRO_BATCH = 2
MAX_KEYS_PER_QUERY = 3


def micro_batch_ranges(
    total_queries: SupportsIndex, max_micro_batch: SupportsIndex = DEFAULT_MICRO_BATCH
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
    cdef Py_ssize_t total = _size("total_queries", total_queries, 0)
    cdef Py_ssize_t cap = _size("max_micro_batch", max_micro_batch, 1)
    cdef Py_ssize_t start = 0, stop
    ranges = []
    while start < total:
        stop = chunk_stop(start, total, cap)
        ranges.append((start, stop))
        start = stop
    return ranges


cdef Py_ssize_t chunk_stop(Py_ssize_t start, Py_ssize_t total, Py_ssize_t cap) noexcept nogil:
    """Return the end of the chunk that begins at ``start``."""
    return total if total - start < cap else start + cap


cdef Py_ssize_t _size(str name, value, Py_ssize_t least) except -1:
    # A function of Python is called for no number that is an int in range.
    number = value if type(value) is int else as_int(name, value)
    if not least <= number <= PY_SSIZE_T_MAX:
        check_range(name, number, least, PY_SSIZE_T_MAX)
    return number


@cython.final
cdef class KeyPacker:
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

    def __cinit__(self, num_pages: SupportsIndex) -> None:
        self.num_pages = check_num_pages(num_pages)
        self._log_pages = log_pages(self.num_pages)
        self.key_size = key_bytes(self._log_pages)
        self.party = -1

    def __dealloc__(self):
        free(self._keys)

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
        if not isinstance(queries, list):
            raise TypeError(f"queries must be a list of Query, not {type(queries).__name__}")
        self.pack_batch(queries)

    def packed(self) -> bytes:
        """The packed keys of the last batch.

        Returns
        -------
        bytes
            A copy, ``query_count * keys_per_query * key_size`` bytes.
        """
        cdef Py_ssize_t size = self.query_count * self.keys_per_query * self.key_size
        return (<const char*>self._keys)[:size] if size else b""

    cdef int _reserve(self, Py_ssize_t size) except -1:
        cdef Py_ssize_t capacity = (size + KEY_ALIGN - 1) // KEY_ALIGN * KEY_ALIGN
        if size <= self._capacity:
            return 0
        free(self._keys)
        self._capacity = 0
        self._keys = <uint8_t*>aligned_alloc(KEY_ALIGN, capacity)
        if self._keys == NULL:
            raise MemoryError(f"no memory for {capacity} bytes of keys")
        self._capacity = capacity
        return 0

    cdef int pack_batch(self, list queries) except -1:
        cdef Py_ssize_t total = len(queries), per_query = 0, position = 0, size
        cdef Py_ssize_t offset = 0
        cdef int parties = 0  # bit 0 for party 0, bit 1 for party 1
        cdef tuple keys
        cdef bytes key
        cdef const uint8_t* data
        cdef KeyFault fault
        self.query_count = 0
        self.party = -1
        self.keys_per_query = MAX_KEYS_PER_QUERY
        for position in range(total):
            if len(queries) != total:
                # A subclass of Query may have a property `keys`, which runs any code.
                raise ValueError(
                    f"queries had {total} entries and has {len(queries)} now: it must not change "
                    "while it is packed"
                )
            query = queries[position]
            # Look at the attribute, not at the class: the packer stands below Query.
            held = getattr(query, "keys", None)
            if type(held) is not tuple:
                raise TypeError(
                    f"queries[{position}] must be a Query with its keys, not "
                    f"{type(query).__name__}"
                )
            keys = <tuple>held
            if position == 0:
                per_query = len(keys)
                if not 1 <= per_query <= MAX_KEYS_PER_QUERY:
                    raise ValueError(
                        f"a query has 1 to {MAX_KEYS_PER_QUERY} keys, not {per_query}"
                    )
                self._reserve(total * per_query * self.key_size)
            elif len(keys) != per_query:
                raise ValueError(
                    f"all queries of a batch have the same number of keys: queries[0] has "
                    f"{per_query}, queries[{position}] has {len(keys)}"
                )
            for item in keys:
                key = as_key_bytes(item)
                data = <const uint8_t*>PyBytes_AS_STRING(key)
                size = PyBytes_GET_SIZE(key)
                fault = find_key_fault(data, size)
                if fault != KeyFault.none:
                    raise_key_fault(key, fault)
                if data[kLogPagesOffset] != self._log_pages:
                    raise_key_domain(data[kLogPagesOffset], self.num_pages)
                memcpy(self._keys + offset, data, self.key_size)
                offset += self.key_size
                parties |= 1 << data[kPartyOffset]
        self.query_count = total
        self.party = parties - 1 if parties in (1, 2) else -1
        if total:
            self.keys_per_query = per_query
        return 0

    cdef const uint8_t* chunk_keys(self, Py_ssize_t first_query) noexcept nogil:
        """Return the packed keys of the chunk that begins at a query."""
        return self._keys + first_query * self.keys_per_query * self.key_size
