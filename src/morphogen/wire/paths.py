"""The paths of a server, and the header of its answers."""

from __future__ import annotations

import re

QUERY_PATH = "/query/page/gpu/batch"  #: The path for a batch.
SINGLE_PATH = "/query/page/gpu"  #: The path for one query.
EPOCH_PATH = "/epoch"  #: The path for the description of the pages.
EPOCH_HEADER = "Morphogen-Epoch"  #: The header that tells a server's current epoch.

_TABLE_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


def cap_path(epoch: int | str) -> str:
    """The path of the cap of an epoch's authenticated pages.

    Parameters
    ----------
    epoch : int or str
        The epoch's number, or what stands for it in a template of paths.

    Returns
    -------
    str
        It begins with a slash.
    """
    return f"{EPOCH_PATH}/{epoch}/cap"


def table_path(name: str) -> str:
    """What stands before all paths of a table.

    Parameters
    ----------
    name : str
        The table's: 1 to 64 letters and digits of ASCII, dots, underscores and hyphens. "" for the
        table of the plain paths.

    Returns
    -------
    str
        "/t/NAME", or "" for the plain paths.

    Raises
    ------
    ValueError
        If a table cannot have that name. Nor can it be "." or "..", which programs take out of
        paths.
    """
    if not name:
        return ""
    if not _TABLE_NAME.fullmatch(name) or name in (".", ".."):
        raise ValueError(
            "a table's name must be 1 to 64 of A-Z, a-z, 0-9, '.', '_' and '-', and not '.' or "
            f"'..', not {name[:80]!r}"
        )
    return f"/t/{name}"
