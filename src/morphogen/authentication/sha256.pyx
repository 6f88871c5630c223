"""The hashes of leaves, of nodes and of paths: SHA-256 by the processor's own instructions.

Two pages or nodes are hashed at once, since each waits for its own last step. Without such
instructions four are, in the lanes of a vector. What a client waits for after it has waited for
servers is one call here: then little code has to come from memory.
"""

import numpy as np

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint64_t

cimport morphogen.kernels as _native
from morphogen.kernels cimport ShaKernel, compiled_sha_kernels, is_sha_supported, kShaBytes

cdef enum:
    # From so many bytes on others may have the interpreter meanwhile. To take it again can take
    # much longer than to hash less.
    LONG = 1 << 16
    SOME = 32  # indices that need no memory of their own

cdef const ShaKernel* _kernel = NULL


def kernels() -> tuple[str, ...]:
    """Names of the ways to hash that this machine has, the fastest first.

    Returns
    -------
    tuple of str
        Such as "sha-ni"; the last is "portable".
    """
    cdef const ShaKernel* const* each = compiled_sha_kernels()
    names = []
    while each[0] != NULL:
        if is_sha_supported(each[0][0]):
            names.append((<bytes>each[0].name).decode())
        each += 1
    return tuple(names)


def use_kernel(name: str | None = None) -> None:
    """Hash in one of these ways from now on, for tests and measurements.

    Parameters
    ----------
    name : str, optional
        One of `kernels()`; without it the fastest.

    Raises
    ------
    ValueError
        If this machine has none of that name.
    """
    global _kernel
    cdef const ShaKernel* const* each = compiled_sha_kernels()
    while each[0] != NULL:
        if is_sha_supported(each[0][0]) and name in (None, (<bytes>each[0].name).decode()):
            _kernel = each[0]
            return
        each += 1
    raise ValueError(f"a kernel must be one of {kernels()} here, not {name!r}")


use_kernel()


def sha256(message: bytes) -> bytes:
    """SHA-256 (FIPS 180-4) of a message, as `hashlib.sha256` has it: tests compare both.

    Parameters
    ----------
    message : bytes
        Of any length.

    Returns
    -------
    bytes
        32 bytes.
    """
    cdef uint8_t digest[kShaBytes]
    _native.sha256(_kernel[0], message, len(message), digest)
    return (<const char*>digest)[:kShaBytes]


def hash_path(index: int, page: Buffer, content_size: int) -> bytes:
    """Return the node that a page leads to, by its content and by each sibling behind that.

    Parameters
    ----------
    index : int
        The page's, below 2**64.
    page : bytes-like
        The content and the siblings, the lowest first.
    content_size : int
        Bytes of the content.

    Returns
    -------
    bytes
        32 bytes.

    Raises
    ------
    ValueError
        If behind the content are no whole siblings.
    """
    cdef uint8_t node[kShaBytes]
    cdef uint64_t at = index
    cdef size_t size = content_size
    cdef Py_buffer view
    PyObject_GetBuffer(page, &view, PyBUF_SIMPLE)
    try:
        check_siblings(view.len, size)
        _native.hash_path(_kernel[0], <const uint8_t*>view.buf, view.len, size, at, node)
    finally:
        PyBuffer_Release(&view)
    return (<const char*>node)[:kShaBytes]


def lead_to_cap(
    pages: Buffer, page_size: int, asked: Sequence[int], cap: Buffer, content_size: int
) -> bool:
    """Tell whether all pages lead to their nodes of a cap.

    All are hashed, whatever the others are.

    Parameters
    ----------
    pages : bytes-like
        A page for each index, and what may follow.
    page_size : int
        Bytes of a page.
    asked : sequence of int
        The index that each was asked for.
    cap : bytes-like
        The cap's nodes.
    content_size : int
        Bytes of a page's content; siblings are behind it.

    Returns
    -------
    bool
        True for no pages, too.

    Raises
    ------
    ValueError
        If there are fewer pages, an index lies outside of the cap, or behind a page's content are
        no whole siblings.
    """
    cdef uint64_t some[SOME]
    cdef uint64_t[::1] more
    cdef uint64_t* indices = some
    cdef size_t count = len(asked), size = page_size, content = content_size, number, levels
    cdef Py_buffer page_view, cap_view
    cdef bint right
    check_siblings(size, content)
    levels = (size - content) // kShaBytes
    if count > SOME:
        more = np.empty(count, dtype=np.uint64)
        indices = &more[0]
    for number in range(count):
        indices[number] = asked[number]
    PyObject_GetBuffer(pages, &page_view, PyBUF_SIMPLE)
    try:
        PyObject_GetBuffer(cap, &cap_view, PyBUF_SIMPLE)
        try:
            if size and count > <size_t>page_view.len // size:
                raise ValueError(f"{count} pages of {size} bytes are not in {page_view.len}")
            for number in range(count):
                if levels >= 64 or indices[number] >> levels >= <size_t>cap_view.len // kShaBytes:
                    raise ValueError("an index lies outside of the cap")
            if count * size < LONG:
                right = _native.lead_to_cap(
                    _kernel[0], <const uint8_t*>page_view.buf, size, content, indices, count,
                    <const uint8_t*>cap_view.buf,
                )
            else:
                with nogil:
                    right = _native.lead_to_cap(
                        _kernel[0], <const uint8_t*>page_view.buf, size, content, indices, count,
                        <const uint8_t*>cap_view.buf,
                    )
        finally:
            PyBuffer_Release(&cap_view)
    finally:
        PyBuffer_Release(&page_view)
    return right


def hash_leaves(
    contents: npt.NDArray[np.uint8], first: int = 0
) -> npt.NDArray[np.uint8]:
    """Return the leaves of pages from the index ``first`` on.

    Parameters
    ----------
    contents : numpy.ndarray
        uint8 (pages, content_size), anywhere in memory.
    first : int, optional
        The index of the first page.

    Returns
    -------
    numpy.ndarray
        uint8 (pages, 32).
    """
    cdef const uint8_t[:, :] view = contents
    if view.strides[1] != 1 and view.shape[1] > 1:
        view = np.ascontiguousarray(contents)
    leaves = np.empty((view.shape[0], kShaBytes), dtype=np.uint8)
    cdef uint8_t[:, ::1] out = leaves
    cdef uint64_t index = first
    if view.shape[0]:
        with nogil:
            _native.hash_leaves(
                _kernel[0], index, &view[0, 0] if view.shape[1] else NULL, view.strides[0],
                view.shape[0], view.shape[1], &out[0, 0],
            )
    return leaves


def hash_pairs(level: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return the parents of an even number of nodes.

    Parameters
    ----------
    level : numpy.ndarray
        uint8 (nodes, 32).

    Returns
    -------
    numpy.ndarray
        uint8 (nodes / 2, 32).

    Raises
    ------
    ValueError
        If the number is odd, or a node has other than 32 bytes.
    """
    cdef const uint8_t[:, ::1] nodes = np.ascontiguousarray(level)
    if nodes.shape[0] % 2 or nodes.shape[1] != kShaBytes:
        raise ValueError(f"level must have an even number of {kShaBytes} bytes, not {level.shape}")
    parents = np.empty((nodes.shape[0] // 2, kShaBytes), dtype=np.uint8)
    cdef uint8_t[:, ::1] out = parents
    if out.shape[0]:
        with nogil:
            _native.hash_pairs(_kernel[0], &nodes[0, 0], out.shape[0], &out[0, 0])
    return parents


def climb(level: npt.NDArray[np.uint8], levels: int) -> npt.NDArray[np.uint8]:
    """Return the nodes so many levels above; a node that covers no page is zero.

    Parameters
    ----------
    level : numpy.ndarray
        uint8 (nodes, 32).
    levels : int
        0 or more.

    Returns
    -------
    numpy.ndarray
        uint8 (nodes, 32); for no levels the array that was given.

    Raises
    ------
    ValueError
        If a node has other than 32 bytes.
    """
    cdef unsigned int above = levels
    if above == 0:
        return level
    if level.ndim != 2 or level.shape[1] != kShaBytes:
        raise ValueError(f"level must have shape (nodes, {kShaBytes}), not {level.shape}")
    nodes = np.empty((len(level) + 1, kShaBytes), dtype=np.uint8)
    nodes[:-1] = level
    cdef uint8_t[:, ::1] view = nodes
    cdef size_t count = view.shape[0] - 1
    with nogil:
        count = _native.climb(_kernel[0], &view[0, 0], count, above)
    return nodes[:count].copy()


cdef int check_siblings(size_t size, size_t content_size) except -1:
    if content_size > size or (size - content_size) % kShaBytes:
        raise ValueError(
            f"behind a content of {content_size} bytes a page of {size} has no whole siblings"
        )
    return 0
