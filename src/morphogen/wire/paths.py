"""The paths of a server."""

from __future__ import annotations

QUERY_PATH = "/query/page/gpu/batch"  #: The path for a batch.
SINGLE_PATH = "/query/page/gpu"  #: The path for one query.
EPOCH_PATH = "/epoch"  #: The path for the description of the pages.


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
