# Only for Cython modules of this repository: an installation does not have the headers.
from morphogen.kernels cimport HostKernels, ReadOrder

cdef const HostKernels* select(name) except NULL
cdef ReadOrder read_order() noexcept
