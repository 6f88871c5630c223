"""The difference of two epochs' pages, by which the answers of one become those of the other.

An answer is a sum of pages, so what a key selects of the difference is the difference of its
answers.
"""

import numpy as np

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport uint8_t

from morphogen.kernels cimport HostKernels, PatchPages, add_selected, kLeafBits
from morphogen.planner cimport KeyPacker

cimport morphogen.instruction_set as _instruction_set


@cython.final
cdef class Patch:
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

    def __cinit__(
        self, indices: npt.NDArray[np.int64], pages: npt.NDArray[np.uint8],
        first_leaf: int = 0,
    ) -> None:
        self._first_leaf = first_leaf
        differ = pages.any(axis=1)
        if not differ.all():
            indices, pages = indices[differ], pages[differ]
        self.indices = self._indices = indices
        self.pages = self._pages = pages

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
        indices = np.union1d(self.indices, after.indices)
        pages = np.zeros((len(indices), self._pages.shape[1]), dtype=np.uint8)
        pages[np.searchsorted(indices, self.indices)] = self.pages
        pages[np.searchsorted(indices, after.indices)] ^= after.pages
        return Patch(indices, pages, self._first_leaf)

    def words(self) -> int:
        """XOR of the pages' bytes, each padded with zeros to whole little-endian 64-bit words."""
        size = self._pages.shape[1]
        total = np.zeros(-(-size // 8) * 8, dtype=np.uint8)
        np.bitwise_xor.reduce(self.pages, axis=0, out=total[:size])
        return int(np.bitwise_xor.reduce(total.view("<u8")))

    cdef int add(self, KeyPacker packer, uint8_t[:, :, ::1] out) except -1:
        """Add to each answer of the packed batch what its key selects."""
        cdef const HostKernels* kernels = _instruction_set.select(None)
        cdef PatchPages patch
        cdef Py_ssize_t query, key
        cdef const uint8_t* keys
        patch.first_leaf = self._first_leaf
        patch.count = self._indices.shape[0]
        patch.page_size = self._pages.shape[1]
        if patch.count == 0:
            return 0
        patch.indices = &self._indices[0]
        patch.pages = &self._pages[0, 0]
        for query in range(packer.query_count):
            keys = packer.chunk_keys(query)
            with nogil:
                for key in range(packer.keys_per_query):
                    add_selected(patch, kernels[0], keys + key * packer.key_size,
                                 &out[query, key, 0])
            # A long batch must heed Ctrl-C.
            PyErr_CheckSignals()
        return 0


def difference(
    before: PageMatrix, after: PageMatrix, indices: npt.NDArray[np.int64]
) -> Patch:
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
    pages = _rows(before, indices)
    pages ^= _rows(after, indices)
    return Patch(indices, pages, before.first // kLeafBits)


def _rows(pages, indices):
    body = pages.body
    inside = np.searchsorted(indices, len(body))
    rows = np.empty((len(indices), pages.page_size), dtype=np.uint8)
    rows[:inside] = body[indices[:inside]]
    if inside < len(indices):
        rows[inside] = pages.tail
    return rows
