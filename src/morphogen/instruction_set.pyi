# Made by tools/release/make_stubs.py from the module's source.
"""Which SIMD instruction sets the host kernels were built for, and which this machine runs."""

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
        The first is the one that is used unless another is asked for. Never empty.
    """
