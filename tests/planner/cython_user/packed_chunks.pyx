# cython: language_level=3
"""The packed keys that an engine passes to each launch, chunk by chunk."""

from libc.stdint cimport uint8_t

from morphogen.planner cimport KeyPacker, chunk_stop


def packed_chunks(KeyPacker packer not None, list queries not None, Py_ssize_t width):
    """Pack a batch and return the keys of its chunks: a list of bytes."""
    cdef Py_ssize_t start = 0, stop, size
    cdef const uint8_t* keys
    if width < 1:
        raise ValueError(f"width must be at least 1, not {width}")
    packer.pack_batch(queries)
    chunks = []
    while start < packer.query_count:
        with nogil:
            stop = chunk_stop(start, packer.query_count, width)
            keys = packer.chunk_keys(start)
            size = (stop - start) * packer.keys_per_query * packer.key_size
        chunks.append((<const char*>keys)[:size])
        start = stop
    return chunks
