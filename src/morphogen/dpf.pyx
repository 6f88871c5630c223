"""Distributed point functions: Gen, Eval and EvalFull of key format v1 (docs/protocol.md).

The construction is that of Boyle, Gilboa and Ishai, "Function Secret Sharing: Improvements and
Extensions" (CCS 2016), with early termination at leaves of 512 bits. The pseudo-random generator is
the ChaCha20 block function of RFC 8439.
"""

import os

from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint64_t

import numpy as np

cimport morphogen.instruction_set as _instruction_set
from morphogen.checks import as_int, check_range
from morphogen.kernels cimport (
    HostKernels,
    KeyFault,
    KeyPair,
    eval_at as _eval_at,
    find_key_fault,
    kEntropyBytes,
    kGenPairs,
    kLeafBits,
    kLeafBytes,
    kLogPagesOffset,
    kPartyOffset,
    key_bytes,
    log_pages,
    restrict_key,
    seeds_are_equal,
)
from morphogen.key_format cimport (
    as_key_bytes,
    check_index,
    check_key,
    check_num_pages,
    raise_key_fault,
)

import morphogen.key_format as _key_format

MAX_PAGES = _key_format.MAX_PAGES
PAGES_PER_LEAF = kLeafBits

# An expansion of few pages takes less time than to look these up in their module.
cdef object _empty = np.empty
cdef object _uint8 = np.dtype(np.uint8)


def gen(
    index: SupportsIndex, num_pages: SupportsIndex, *, entropy: Buffer | None = None,
    instruction_set: str | None = None,
) -> tuple[bytes, bytes]:
    """Make the pair of keys that selects one page (Gen).

    Parameters
    ----------
    index : int
        The page to select, 0 <= index < num_pages. Neither key alone tells anything about it.
    num_pages : int
        Pages in the table, 1 to 2**40.
    entropy : bytes-like of 48 bytes, optional
        seed0 | seed1 | salt, for tests with known results. By default it comes from the operating
        system. Never use the same bytes for two pairs.
    instruction_set : str, optional
        One of ``morphogen.instruction_set.supported()``; by default the widest. The keys are the
        same.

    Returns
    -------
    tuple of (bytes, bytes)
        The keys of party 0 and party 1, ``key_size(num_pages)`` bytes each. Both keys together
        show the index.

    Raises
    ------
    TypeError
        If an argument is not of the type above.
    ValueError
        If a number is out of range, entropy has another length or two equal seeds, or this machine
        does not have the instruction set.

    Notes
    -----
    Gen of Boyle, Gilboa and Ishai (CCS 2016), with early termination: a leaf covers 512 pages. The
    generator is the block function of ChaCha20 (RFC 8439). docs/protocol.md defines every byte.

    Gen neither branches on nor indexes by the index or the entropy, once their range has been
    checked.

    Examples
    --------
    >>> import morphogen as mg
    >>> key0, key1 = mg.dpf.gen(5, num_pages=1000)
    >>> len(key0) == len(key1) == mg.dpf.key_size(1000)
    True
    >>> [mg.dpf.eval_at(key0, at, 1000) ^ mg.dpf.eval_at(key1, at, 1000) for at in range(4, 7)]
    [0, 1, 0]
    """
    cdef uint64_t pages = check_num_pages(num_pages)
    cdef int n = log_pages(pages)
    cdef uint64_t page = check_index(index, pages)
    cdef const HostKernels* kernels = _instruction_set.select(instruction_set)
    cdef bytes secret = _entropy(entropy, 1)
    cdef KeyPair pair
    keys = _new_pair(&pair, page, n, <const uint8_t*>PyBytes_AS_STRING(secret))
    kernels.generate(&pair, 1, n)
    return keys


def gen_many(
    indices: Iterable[SupportsIndex], num_pages: SupportsIndex, *, entropy: Buffer | None = None,
    instruction_set: str | None = None,
) -> tuple[list[bytes], list[bytes]]:
    """Make a pair of keys for each of several pages, in less time than `gen` takes one by one.

    Parameters
    ----------
    indices : iterable of int
        The pages to select, each 0 <= index < num_pages. They may repeat.
    num_pages : int
        Pages in the table, 1 to 2**40.
    entropy, instruction_set : optional
        As for `gen`, with 48 bytes of entropy for each pair.

    Returns
    -------
    tuple of (list of bytes, list of bytes)
        The keys of party 0 and of party 1, in the order of the indices; they equal those of `gen`.

    Raises
    ------
    TypeError, ValueError
        As `gen` raises them, before any key is made.
    """
    cdef uint64_t pages = check_num_pages(num_pages)
    cdef int n = log_pages(pages)
    cdef list asked = [check_index(index, pages) for index in indices]
    cdef const HostKernels* kernels = _instruction_set.select(instruction_set)
    cdef Py_ssize_t count = len(asked), first, at
    cdef bytes secret = _entropy(entropy, count)
    cdef const uint8_t* data = <const uint8_t*>PyBytes_AS_STRING(secret)
    cdef KeyPair[kGenPairs] group
    cdef list keys0 = [], keys1 = []
    for first in range(0, count, kGenPairs):
        for at in range(first, min(first + kGenPairs, count)):
            key0, key1 = _new_pair(&group[at - first], asked[at], n, data + at * kEntropyBytes)
            keys0.append(key0)
            keys1.append(key1)
        kernels.generate(group, <int>min(kGenPairs, count - first), n)
    return keys0, keys1


cdef tuple _new_pair(KeyPair* pair, uint64_t index, int n, const uint8_t* entropy):
    """Describe a pair to make, and return its keys, which are not written yet."""
    cdef bytes key0 = PyBytes_FromStringAndSize(NULL, key_bytes(n))
    cdef bytes key1 = PyBytes_FromStringAndSize(NULL, key_bytes(n))
    pair.index = index
    pair.entropy = entropy
    pair.keys[0] = <uint8_t*>PyBytes_AS_STRING(key0)
    pair.keys[1] = <uint8_t*>PyBytes_AS_STRING(key1)
    return key0, key1


def key_size(num_pages: SupportsIndex) -> int:
    """Size of one key for a table of ``num_pages`` pages.

    Parameters
    ----------
    num_pages : int
        1 to 2**40.

    Returns
    -------
    int
        Bytes: 112 + 16 * max(0, ceil(log2(num_pages)) - 9).

    Raises
    ------
    TypeError, ValueError
        If num_pages is no int, or out of range.
    """
    return key_bytes(log_pages(check_num_pages(num_pages)))


def eval_full(
    key: Buffer, num_pages: SupportsIndex, *, instruction_set: str | None = None
) -> npt.NDArray[np.uint8]:
    """The selection bits of all pages under one key (EvalFull).

    Parameters
    ----------
    key : bytes-like
        A key of either party, made for ``num_pages`` pages.
    num_pages : int
        1 to 2**40.
    instruction_set : str, optional
        One of ``morphogen.instruction_set.supported()``; by default the widest.

    Returns
    -------
    numpy.ndarray
        uint8 of shape (ceil(num_pages / 8),). Page i is bit ``i % 8`` of byte ``i // 8``, counted
        from the least significant; bits past the last page are zero.

    Raises
    ------
    InvalidKeyError
        If the key does not have the form of key format v1.
    KeyDomainError
        If the key was made for another number of pages.
    TypeError, ValueError
        If an argument has the wrong type, num_pages is out of range, or this machine does not have
        the instruction set.

    Notes
    -----
    EvalFull of Boyle, Gilboa and Ishai (CCS 2016): one walk over the whole tree, one block of
    ChaCha20 (RFC 8439) for each inner node and each leaf of 512 pages.

    Examples
    --------
    >>> import numpy as np
    >>> import morphogen as mg
    >>> key0, key1 = mg.dpf.gen(5, num_pages=1000)
    >>> bits = mg.dpf.eval_full(key0, 1000) ^ mg.dpf.eval_full(key1, 1000)
    >>> bits.shape
    (125,)
    >>> np.flatnonzero(np.unpackbits(bits, bitorder="little"))
    array([5])
    """
    cdef uint64_t pages = check_num_pages(num_pages)
    cdef bytes held = check_key(key, pages)
    cdef const HostKernels* kernels = _instruction_set.select(instruction_set)
    cdef uint64_t leaves = (pages + kLeafBits - 1) // kLeafBits
    cdef uint64_t size = (pages + 7) // 8
    bits = _empty(leaves * kLeafBytes, _uint8)
    cdef const uint8_t* data = <const uint8_t*>PyBytes_AS_STRING(held)
    # A memory view costs more than a leaf.
    cdef Py_buffer buffer
    PyObject_GetBuffer(bits, &buffer, PyBUF_WRITABLE)
    cdef uint8_t* out = <uint8_t*>buffer.buf
    with nogil:
        kernels.expand(data, 0, leaves, out)
    if pages % 8:
        # In C: Python's and numpy's ints branch on a byte of selection bits.
        out[pages // 8] &= <uint8_t>((1 << (pages % 8)) - 1)
    PyBuffer_Release(&buffer)
    return bits if size == leaves * kLeafBytes else bits[:size]


def eval_at(key: Buffer, index: SupportsIndex, num_pages: SupportsIndex) -> int:
    """The selection bit of one page under one key (Eval).

    Parameters
    ----------
    key : bytes-like
        A key of either party, made for ``num_pages`` pages.
    index : int
        The page to look at, 0 <= index < num_pages; not secret.
    num_pages : int
        1 to 2**40.

    Returns
    -------
    int
        0 or 1.

    Raises
    ------
    InvalidKeyError
        If the key does not have the form of key format v1.
    KeyDomainError
        If the key was made for another number of pages.
    TypeError, ValueError
        If an argument has the wrong type, or a number is out of range.

    Notes
    -----
    Eval of Boyle, Gilboa and Ishai (CCS 2016): one path from the root to a leaf.
    """
    cdef uint64_t pages = check_num_pages(num_pages)
    cdef bytes held = check_key(key, pages)
    cdef uint64_t page = check_index(index, pages)
    return _eval_at(<const uint8_t*>PyBytes_AS_STRING(held), page)


def restrict(
    key: Buffer, first: SupportsIndex, count: SupportsIndex, num_pages: SupportsIndex
) -> bytes:
    """Cut a key down to some pages of its table.

    Parameters
    ----------
    key : bytes-like
        A key of either party, made for ``num_pages`` pages.
    first : int
        The first of the pages: a multiple of 512, and of the least power of two that is not below
        count. So they are those below a node of the key's tree, or the first of them. Not secret.
    count : int
        How many, 1 to ``num_pages - first``. Not secret.
    num_pages : int
        1 to 2**40.

    Returns
    -------
    bytes
        A key for ``count`` pages, ``key_size(count)`` bytes: page i of its table is page ``first +
        i`` of the whole one.

    Raises
    ------
    InvalidKeyError
        If the key does not have the form of key format v1.
    KeyDomainError
        If the key was made for another number of pages.
    TypeError, ValueError
        If an argument has the wrong type, a number is out of range, or no node of the tree begins
        at first and covers count pages.

    Notes
    -----
    Below a node a key is a key of a smaller domain: docs/protocol.md, section 6.3. The party byte
    of the new key is the node's control bit, which says nothing of the party: where the hidden
    page is elsewhere, both parties' keys are cut down to the same bytes. It neither branches on nor
    indexes by the key's secrets.

    Examples
    --------
    >>> import morphogen as mg
    >>> keys = [mg.dpf.restrict(key, 512, 300, 1000) for key in mg.dpf.gen(515, num_pages=1000)]
    >>> [mg.dpf.eval_at(keys[0], at, 300) ^ mg.dpf.eval_at(keys[1], at, 300) for at in range(5)]
    [0, 0, 0, 1, 0]
    """
    cdef uint64_t pages = check_num_pages(num_pages)
    cdef bytes held = check_key(key, pages)
    begin, size = as_int("first", first), as_int("count", count)
    check_range("first", begin, 0, pages - 1)
    check_range(f"count of pages from {begin} on", size, 1, pages - begin)
    cdef int n = log_pages(size)
    cdef uint64_t page = begin, unit = max(<uint64_t>kLeafBits, <uint64_t>1 << n)
    if page % unit:
        raise ValueError(f"first must be a multiple of {unit} for {size} pages, not {begin}")
    cdef bytes out = PyBytes_FromStringAndSize(NULL, key_bytes(n))
    restrict_key(
        <const uint8_t*>PyBytes_AS_STRING(held), page, n, <uint8_t*>PyBytes_AS_STRING(out)
    )
    return out


def parse_key(key: Buffer) -> tuple[bytes, int, int]:
    """Check a key's form and read its public fields.

    Parameters
    ----------
    key : bytes-like
        A key of either party, not yet checked.

    Returns
    -------
    tuple of (bytes, int, int)
        The key's bytes, its party (0 or 1) and its n = ceil(log2(num_pages)).

    Raises
    ------
    InvalidKeyError
        If the key does not have the form of key format v1.
    TypeError
        If it is not bytes-like.
    """
    cdef bytes held = as_key_bytes(key)
    cdef const uint8_t* data = <const uint8_t*>PyBytes_AS_STRING(held)
    cdef KeyFault fault = find_key_fault(data, len(held))
    if fault != KeyFault.none:
        raise_key_fault(held, fault)
    return held, data[kPartyOffset], data[kLogPagesOffset]


cdef bytes _entropy(entropy, Py_ssize_t pairs):
    cdef Py_ssize_t size = pairs * kEntropyBytes, at
    cdef bytes secret
    if entropy is None:
        secret = os.urandom(size)
    else:
        try:
            with memoryview(entropy) as view:
                secret = view.tobytes()
        except TypeError:
            raise TypeError(f"entropy must be bytes-like, not {type(entropy).__name__}") from None
        if len(secret) != size:
            raise ValueError(f"entropy must have {size} bytes, not {len(secret)}")
    for at in range(0, size, kEntropyBytes):
        if seeds_are_equal(<const uint8_t*>PyBytes_AS_STRING(secret) + at):
            # Both parties' trees would be equal, and the leaf correction would show the index.
            raise ValueError("entropy must have two different seeds, not two equal ones")
    return secret
