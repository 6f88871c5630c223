# A page kernel answers a chunk of up to so many keys by one launch.
cimport cython
from libc.stdint cimport uint64_t

from morphogen.kernels cimport ChunkJob

from morphogen.engine.cuda._driver cimport Kernel


@cython.final
cdef class PageKernel:
    cdef Kernel kernel
    cdef readonly int keys               # at most
    cdef readonly object grid
    cdef unsigned int threads
    cdef unsigned int blocks
    cdef unsigned int _tile_vectors      # at most
    cdef int _resident                   # blocks of a multiprocessor at a time
    cdef ChunkJob _shape                 # only the fields of the grid

    cdef void shape(self, ChunkJob* job) noexcept nogil
