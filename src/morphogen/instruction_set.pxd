# Only for Cython modules of this repository: an installation does not have the headers.
from morphogen.kernels cimport HostKernels

cdef const HostKernels* select(name) except NULL
