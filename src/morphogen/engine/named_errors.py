"""Errors of one of several devices, which say of which."""

from __future__ import annotations

from typing import TypeVar

from morphogen.errors import DeviceError

Error = TypeVar("Error", bound=BaseException)


def named_error(device: str, error: Error) -> Error:
    """The same error with the name of the device that raised it.

    Parameters
    ----------
    device : str
        "cuda:1".
    error : BaseException
        What it raised.

    Returns
    -------
    BaseException
        Another of the same type if it is a `DeviceError` that does not name the device, else the
        same.
    """
    if not isinstance(error, DeviceError) or device in str(error):
        return error
    named = type(error)(f"{device}: {error}")
    named.__cause__ = error
    return named
