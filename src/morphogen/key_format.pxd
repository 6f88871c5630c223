# For Cython modules that check keys without going through Python. Only for this repository: an
# installation does not have the headers.
from libc.stdint cimport uint64_t

from morphogen.kernels cimport KeyFault

cdef uint64_t check_num_pages(num_pages) except 0
cdef uint64_t check_index(index, uint64_t num_pages) except? 0
cdef bytes as_key_bytes(key)
cdef bytes check_key(key, uint64_t num_pages)
cdef int raise_key_fault(bytes key, KeyFault fault) except -1
cdef int raise_key_domain(int n, uint64_t num_pages) except -1
