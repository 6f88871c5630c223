"""The epoch that a file's name tells."""

from __future__ import annotations

import os
import re
from pathlib import Path

from morphogen.epochs.delta_header import check_epochs
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


def epochs_between(
    old: str | os.PathLike[str],
    new: str | os.PathLike[str],
    from_epoch: int | None = None,
    to_epoch: int | None = None,
) -> tuple[int, int]:
    """Tell between which epochs the delta of two files is.

    Parameters
    ----------
    old, new : path-like
        The files of the tables. A link has the name of what it leads to.
    from_epoch, to_epoch : int, optional
        Versions of the tables, by default those of the files' names; without a number in its name,
        the old one is the one before the new one.

    Returns
    -------
    tuple of int
        Both versions.

    Raises
    ------
    ValueError
        If nothing tells the new one, or it is not above the old one.
    """
    to = epoch_of_name(os.path.realpath(new)) if to_epoch is None else to_epoch
    if to is None:
        raise ValueError(f"{os.fspath(new)} has no number at the end of its name: give --epoch")
    before = epoch_of_name(os.path.realpath(old)) if from_epoch is None else from_epoch
    if before is None:
        before = max(0, to - 1)
    check_epochs(before, to)
    return before, to
