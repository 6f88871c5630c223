"""The rows of a keyword table in native memory, near their own size."""

cimport cython

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_Check, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from cpython.sequence cimport PySequence_Fast, PySequence_Fast_GET_ITEM, PySequence_Fast_GET_SIZE
from cpython.unicode cimport PyUnicode_Check
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy

from morphogen.errors import MorphogenError, TableBuildError


cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL

cdef enum:
    SIZE_BYTES = 10  # the most that a size takes
    STEP = 1 << 20  # bytes that are copied between two looks for an interrupt
    ROW_COST = 128  # bytes that might be copied in the time of all else that a row takes

# Rows are counted in 32 bits, and 0 stands for none.
MAX_ROWS = 2**32 - 2
MAX_VALUE_SIZE = 2**32 - 2  # its length plus 1 has 4 bytes


@cython.final
cdef class Rows:
    """Keys with their values, counted from 0 in the order in which they were added.

    A row takes its own bytes, 1 to 10 for each of both sizes, and 8 for its place.

    Attributes
    ----------
    count : int
        Rows that were added.
    """

    def __dealloc__(self):
        free(self._bytes)
        free(self._starts)

    def memory(self) -> int:
        """Bytes that the rows take.

        Returns
        -------
        int
        """
        return self._used + 8 * self.count

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
        for given in (keys, values):
            if isinstance(given, (bytes, str)):
                raise TypeError(
                    f"keys and values must be sequences of bytes or str, not {type(given).__name__}"
                )
        cdef object key_row = PySequence_Fast(keys, "keys must be a sequence")
        cdef object value_row = PySequence_Fast(values, "values must be a sequence")
        cdef Py_ssize_t count = PySequence_Fast_GET_SIZE(key_row), position
        cdef size_t used = self._used, before = self.count, look = used + STEP
        if self._adding or self._readers:
            raise MorphogenError("nothing can be added while a table is built or entries are added")
        if PySequence_Fast_GET_SIZE(value_row) != count:
            raise ValueError(
                f"there must be a value for each of {count} keys, not "
                f"{PySequence_Fast_GET_SIZE(value_row)}"
            )
        self._adding = True
        try:
            for position in range(count):
                if self._used + ROW_COST * <size_t>position >= look:
                    look = self._used + ROW_COST * <size_t>position + STEP
                    PyErr_CheckSignals()
                # A signal's handler is any code.
                if (
                    PySequence_Fast_GET_SIZE(key_row) != count
                    or PySequence_Fast_GET_SIZE(value_row) != count
                ):
                    raise ValueError("keys and values must not change while they are added")
                self._append(
                    <object>PySequence_Fast_GET_ITEM(key_row, position),
                    <object>PySequence_Fast_GET_ITEM(value_row, position),
                )
        except BaseException:
            self._used = used
            self.count = before
            raise
        finally:
            self._adding = False

    def __enter__(self) -> Rows:
        """Keep the rows as they are: nothing is added until `__exit__`."""
        if self._adding:
            raise MorphogenError("no table can be built while entries are added")
        self._readers += 1
        return self

    def __exit__(self, *exception: object) -> None:
        self._readers -= 1

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
        cdef uint32_t[::1] sizes = out
        cdef size_t at, count = sizes.shape[0]
        if not 0 <= first <= self.count or count > self.count - first:
            raise ValueError(f"first must leave {count} of {self.count} rows, not {first}")
        cdef const uint64_t* starts = self._starts + <size_t>first
        with self, nogil:
            for at in range(count):
                sizes[at] = <uint32_t>read_row(self._bytes + starts[at]).value_size

    cdef int _append(self, object key, object value) except -1:
        cdef const char* key_bytes
        cdef const char* value_bytes
        cdef Py_ssize_t key_size, value_size
        cdef uint8_t* at
        key_bytes = self._bytes_of("key", key, &key_size)
        value_bytes = self._bytes_of("value", value, &value_size)
        if self.count == <size_t>MAX_ROWS:
            raise TableBuildError(f"a table is built of at most {MAX_ROWS} entries")
        if <size_t>value_size > <size_t>MAX_VALUE_SIZE:
            raise TableBuildError(
                f"entry {self.count + 1}: a value has at most {MAX_VALUE_SIZE} bytes, not "
                f"{value_size}",
                (self.count + 1,),
            )
        self._reserve(2 * SIZE_BYTES + <size_t>key_size + <size_t>value_size)
        at = self._bytes + self._used
        at = write_size(at, key_size)
        at = write_size(at, value_size)
        memcpy(at, key_bytes, key_size)
        memcpy(at + key_size, value_bytes, value_size)
        self._starts[self.count] = self._used
        self._used = (at - self._bytes) + key_size + value_size
        self.count += 1
        return 0

    cdef const char* _bytes_of(self, str what, object given, Py_ssize_t* size) except NULL:
        if PyBytes_Check(given):
            size[0] = PyBytes_GET_SIZE(given)
            return PyBytes_AS_STRING(given)
        if PyUnicode_Check(given):
            try:
                return PyUnicode_AsUTF8AndSize(given, size)
            except UnicodeEncodeError as error:
                raise ValueError(
                    f"entry {self.count + 1}: its {what} is text with a lone surrogate, at "
                    f"{error.start}"
                ) from None
        raise TypeError(
            f"entry {self.count + 1}: a {what} must be bytes or str, not {type(given).__name__}"
        )

    cdef int _reserve(self, size_t more) except -1:
        cdef void* moved
        cdef size_t capacity
        if self._capacity - self._used < more:
            # The C library moves large blocks by their page tables, which copies nothing; what
            # was not written yet takes no memory.
            capacity = self._used + more + self._capacity // 8 + (1 << 12)
            moved = realloc(self._bytes, capacity)
            if moved == NULL:
                raise MemoryError(f"no memory for {capacity} bytes of entries")
            self._bytes = <uint8_t*>moved
            self._capacity = capacity
        if self._starts_capacity == self.count:
            capacity = self.count + self.count // 8 + (1 << 9)
            moved = realloc(self._starts, capacity * sizeof(uint64_t))
            if moved == NULL:
                raise MemoryError(f"no memory for the places of {capacity} entries")
            self._starts = <uint64_t*>moved
            self._starts_capacity = capacity
        return 0


cdef uint8_t* write_size(uint8_t* at, size_t size) noexcept nogil:
    while size >= 128:
        at[0] = <uint8_t>(size | 128)
        size >>= 7
        at += 1
    at[0] = <uint8_t>size
    return at + 1


cdef int tell(object progress, size_t done, size_t total) except -1:
    """Report progress, and let an interrupt through."""
    PyErr_CheckSignals()
    if progress is not None:
        progress(done, total)
    return 0
