"""The form of keys (docs/protocol.md, section 4): what is checked before one is used."""

from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport uint8_t, uint64_t

from morphogen.checks import as_int, check_range
from morphogen.errors import InvalidKeyError, KeyDomainError
from morphogen.kernels cimport (
    KeyFault,
    find_key_fault,
    kLogPagesOffset,
    kMaxLogPages,
    kPartyOffset,
    key_bytes,
    log_pages,
)

MAX_PAGES = 2 ** 40


cdef bytes as_key_bytes(key):
    if type(key) is bytes:
        return <bytes>key
    try:
        with memoryview(key) as view:
            return view.tobytes()
    except TypeError:
        raise TypeError(f"a key must be bytes-like, not {type(key).__name__}") from None


cdef bytes check_key(key, uint64_t num_pages):
    cdef bytes held = as_key_bytes(key)
    cdef const uint8_t* data = <const uint8_t*>PyBytes_AS_STRING(held)
    cdef KeyFault fault = find_key_fault(data, len(held))
    if fault != KeyFault.none:
        raise_key_fault(held, fault)
    cdef int n = data[kLogPagesOffset]
    if n != log_pages(num_pages):
        raise_key_domain(n, num_pages)
    return held


cdef int raise_key_domain(int n, uint64_t num_pages) except -1:
    raise KeyDomainError(
        f"the key is for n = {n}, that is {_page_range(n)} pages, but the table has {num_pages} "
        f"pages, n = {log_pages(num_pages)}"
    )


cdef str _page_range(n):
    # n is a Python int, since 2**40 does not fit a C int.
    return "1" if n == 0 else "2" if n == 1 else f"{(1 << (n - 1)) + 1} to {1 << n}"


cdef int raise_key_fault(bytes key, KeyFault fault) except -1:
    """Raise an error that tells what is wrong with a key. Shows public header fields only."""
    cdef const uint8_t* data = <const uint8_t*>PyBytes_AS_STRING(key)
    cdef int n
    if fault == KeyFault.length:
        if len(key) < key_bytes(0):
            raise InvalidKeyError(f"a key has at least {key_bytes(0)} bytes, this one {len(key)}")
        n = data[kLogPagesOffset]
        raise InvalidKeyError(f"a key with n = {n} has {key_bytes(n)} bytes, this one {len(key)}")
    if fault == KeyFault.magic:
        raise InvalidKeyError(f"a key starts with b'MGK1', this one with {key[:4]!r}")
    if fault == KeyFault.party:
        raise InvalidKeyError(f"a key's party is 0 or 1, this one's {data[kPartyOffset]}")
    if fault == KeyFault.log_pages:
        n = data[kLogPagesOffset]
        raise InvalidKeyError(f"a key's n is at most {kMaxLogPages}, this one's {n}")
    if fault == KeyFault.reserved:
        raise InvalidKeyError(f"a key's reserved bytes are 00 00, this one's {key[6:8].hex(' ')}")
    raise InvalidKeyError(
        f"a key with n = {data[kLogPagesOffset]} has control corrections for "
        f"{max(0, data[kLogPagesOffset] - 9)} levels, this one has bits beyond them"
    )


cdef uint64_t check_num_pages(num_pages) except 0:
    # A function of Python is called for no number that is an int in range.
    value = num_pages if type(num_pages) is int else as_int("num_pages", num_pages)
    if not 1 <= value <= MAX_PAGES:
        check_range("num_pages", value, 1, MAX_PAGES)
    return value


cdef uint64_t check_index(index, uint64_t num_pages) except? 0:
    value = index if type(index) is int else as_int("index", index)
    if not 0 <= value < num_pages:
        check_range("index", value, 0, num_pages - 1)
    return value
