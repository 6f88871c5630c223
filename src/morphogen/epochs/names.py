"""The epoch that a file's name tells."""

from __future__ import annotations

import os
import re
from pathlib import Path

from morphogen.pages import MAX_EPOCH

_NUMBER = re.compile(r"(?:.*[-_.])?([0-9]+)", re.DOTALL)


def epoch_of_name(path: str | os.PathLike[str]) -> int | None:
    """Tell a table's epoch by the name of its file.

    Parameters
    ----------
    path : path-like
        The file, which need not be there.

    Returns
    -------
    int or None
        The number at the end of the name without its suffix, which is all of it or stands behind a
        hyphen, an underscore or a point: 7 for ``words-7.table`` and ``7.table``. None for a name
        without one, such as ``pages4096.bin``, and for a number above 2**63 - 1.

    Examples
    --------
    >>> from morphogen.epochs.names import epoch_of_name
    >>> epoch_of_name("tables/words-7.table")
    7
    """
    found = _NUMBER.fullmatch(Path(path).stem)
    if found is None:
        return None
    digits = found[1].lstrip("0") or "0"
    # int() refuses thousands of digits, which a name may well have.
    if len(digits) > len(str(MAX_EPOCH)) or int(digits) > MAX_EPOCH:
        return None
    return int(digits)
