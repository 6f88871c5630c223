from morphogen.kernels cimport HostKernels

cdef const HostKernels* select(name) except NULL
