# Made by tools/release/make_stubs.py from the module's source.
"""The SIMD instruction sets of the host kernels: compiled in, and supported by this machine."""

def compiled() -> tuple[str, ...]:
    """Names of the instruction sets in this build, the widest first.

    Returns
    -------
    tuple of str
        Such as "avx2"; the last is "baseline", which every machine can run.
    """

def supported() -> tuple[str, ...]:
    """Names of the instruction sets that this machine can run, the widest first.

    Returns
    -------
    tuple of str
        The first is the default. Never empty.
    """
