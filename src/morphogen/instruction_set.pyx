"""The SIMD instruction sets of the host kernels: compiled in, and supported by this machine."""

from morphogen.kernels cimport HostKernels, compiled_kernels, is_supported


def compiled() -> tuple[str, ...]:
    """Names of the instruction sets in this build, the widest first.

    Returns
    -------
    tuple of str
        Such as "avx2"; the last is "baseline", which every machine can run.
    """
    return tuple(kernels.decode() for kernels in _names(False))


def supported() -> tuple[str, ...]:
    """Names of the instruction sets that this machine can run, the widest first.

    Returns
    -------
    tuple of str
        The first is the default. Never empty.
    """
    return tuple(kernels.decode() for kernels in _names(True))


cdef list _names(bint supported_only):
    cdef const HostKernels* const* table = compiled_kernels()
    names = []
    while table[0] != NULL:
        if not supported_only or is_supported(table[0][0]):
            names.append(<bytes>table[0].name)
        table += 1
    return names


cdef const HostKernels* select(name) except NULL:
    """Return the kernels of a set by name; without a name, of the widest set this machine runs."""
    cdef const HostKernels* const* table = compiled_kernels()
    if name is not None and not isinstance(name, str):
        raise TypeError(f"instruction_set must be a str, not {type(name).__name__}")
    while table[0] != NULL:
        if is_supported(table[0][0]) and (name is None or name == (<bytes>table[0].name).decode()):
            return table[0]
        table += 1
    raise ValueError(f"instruction_set must be one of {supported()} here, not {name!r}")
