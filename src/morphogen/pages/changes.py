"""The checks of arrays of pages, of the pages that change, and of the version of a table."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt

from morphogen.checks import as_indices, as_int, check_range

MAX_EPOCH = 2**63 - 1  # a message carries no larger one


def check_epoch(epoch: SupportsIndex) -> int:
    """Refuse a version of a table that no server can announce.

    Parameters
    ----------
    epoch : int
        The version.

    Returns
    -------
    int
        The same as a plain int.

    Raises
    ------
    TypeError, ValueError
        If it is no int, or not in 0..2**63 - 1.
    """
    number = as_int("epoch", epoch)
    check_range("epoch", number, 0, MAX_EPOCH)
    return number


def check_changes(
    indices: Iterable[SupportsIndex] | npt.NDArray[np.integer[Any]],
    pages: npt.NDArray[np.uint8],
    num_pages: int,
    page_size: int,
    *,
    name: str = "pages",
) -> npt.NDArray[np.int64]:
    """Refuse changes that do not fit a table.

    Parameters
    ----------
    indices : iterable of int
        The pages that change.
    pages : numpy.ndarray
        Their new bytes.
    num_pages, page_size : int
        The table's.
    name : str, optional
        That of pages, for the message.

    Returns
    -------
    numpy.ndarray
        int64 of shape (indices,).

    Raises
    ------
    TypeError
        If an index is no int, or pages is no array of uint8.
    ValueError
        If an index is out of range or not above the one before, or pages is not of shape (indices,
        page_size).
    """
    if not isinstance(indices, np.ndarray) or indices.dtype == object:
        listed = as_indices("indices", indices)
        for index in listed:
            check_range("an index", index, 0, num_pages - 1)
        indices = np.array(listed, dtype=np.int64)
    if indices.dtype.kind not in "iu":
        raise TypeError(f"indices must be a sequence of ints, not of {indices.dtype}")
    if indices.ndim != 1:
        raise ValueError(f"indices must have 1 dimension, not {indices.ndim}")
    # As they are: a cast may bring one that is out of range into it.
    for index in (indices.min(), indices.max()) if len(indices) else ():
        check_range("an index", int(index), 0, num_pages - 1)
    found = indices.astype(np.int64)
    if (found[1:] <= found[:-1]).any():
        at = int((found[1:] <= found[:-1]).argmax())
        raise ValueError(f"indices must be ascending, not {found[at]}, then {found[at + 1]}")
    check_array(name, pages, (len(found), page_size))
    return found


def check_array(name: str, array: object, shape: tuple[int, ...] | None = None) -> None:
    """Refuse something other than an array of bytes.

    Parameters
    ----------
    name : str
        The argument's name, for the message.
    array : numpy.ndarray
        The argument.
    shape : tuple of int, optional
        The shape that it must have; by default any.

    Raises
    ------
    TypeError
        If it is not an array of uint8.
    ValueError
        If it has another shape.
    """
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{name} must be a numpy.ndarray, not {type(array).__name__}")
    if array.dtype != np.uint8:
        raise TypeError(f"{name} must have dtype uint8, not {array.dtype}")
    if shape is not None and array.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, not {array.shape}")
