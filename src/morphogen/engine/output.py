"""The array of a caller into which a batch is answered."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from morphogen.pages import PageMatrix, check_array


def check_out(
    out: npt.NDArray[np.uint8], shape: tuple[int, int, int], pages: PageMatrix | None
) -> npt.NDArray[np.uint8]:
    """Refuse an array into which a batch cannot be answered.

    Parameters
    ----------
    out : numpy.ndarray
        What a caller gave.
    shape : tuple of int
        That of the answers.
    pages : PageMatrix or None
        The pages that are read meanwhile.

    Returns
    -------
    numpy.ndarray
        The same.

    Raises
    ------
    TypeError, ValueError
        If it has the wrong type or shape, is strided or read-only, or shares the pages' memory.
    """
    check_array("out", out, shape)
    if not out.flags.c_contiguous:
        raise ValueError(f"out must be C-contiguous, not strided by {out.strides}")
    if not out.flags.writeable:
        raise ValueError("out must be writeable, not read-only")
    for part in () if pages is None else (pages.body, pages.tail):
        if part is not None and np.may_share_memory(out, part):
            raise ValueError("out must not lie in the memory of the pages")
    return out
