from morphogen.kernels cimport HostKernels

cdef const HostKernels* select(str name) except NULL
