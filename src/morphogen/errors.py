"""The errors that morphogen raises."""

from __future__ import annotations


class MorphogenError(Exception):
    """Root of all errors of this library."""


class InvalidKeyError(MorphogenError, ValueError):
    """A DPF key does not have the form of key format v1."""


class DomainMismatchError(MorphogenError, ValueError):
    """Two things that should belong to one table have different sizes."""


class KeyDomainError(DomainMismatchError, InvalidKeyError):
    """A well-formed key was made for another number of pages."""


class EpochMismatchError(MorphogenError):
    """Two answers come from different versions of the table."""


class EngineClosedError(MorphogenError):
    """An engine was used after it was closed, or in a forked child of the process it belongs to."""


class DeviceError(MorphogenError):
    """A device failed while it worked."""


class DeviceUnavailableError(DeviceError):
    """The device that was asked for cannot be used here."""


class DeviceOutOfMemoryError(DeviceError, MemoryError):
    """The device has too little memory for the table."""


class OverloadedError(MorphogenError):
    """More work is waiting than may wait."""
