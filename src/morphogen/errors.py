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


class ShardUnavailableError(MorphogenError):
    """A range of pages had no answer in time, so that there is none to the query."""


class ShardMismatchError(MorphogenError):
    """A shard has another version or another range of the table than it was asked for."""


class OverloadedError(MorphogenError):
    """More work is waiting than may wait."""


class BatcherClosedError(MorphogenError):
    """A batcher was used after it was closed, or in a forked child of its process."""


class DeadlineError(MorphogenError, TimeoutError):
    """A query waited longer than it was allowed to."""


class WireError(MorphogenError, ValueError):
    """A request or a response does not have the form of the protocol.

    Parameters
    ----------
    message : str
        The fault. It never shows the bytes of a key or of a page.
    field : str, optional
        The place of the fault, such as "queries[3].keys[1]".
    """

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class ServerError(MorphogenError):
    """A server failed, could not be reached, or sent an answer that no server may send."""


class TableMismatchError(MorphogenError):
    """Two servers disagree about the table, or it is not the one that the client knows."""


class IntegrityError(MorphogenError):
    """A page is not the one that the table's root vouches for.

    It names no page, key, position or server: what is wrong may depend on what was asked.
    """


class TableFileError(MorphogenError, ValueError):
    """A file is not a whole, unaltered keyword table."""


class DeltaError(MorphogenError, ValueError):
    """A file is not a whole, unaltered delta, or not one of this table."""


class ManifestError(MorphogenError, ValueError):
    """A manifest is not whole, not by the owner that is trusted, or counts no more."""


class SourceError(MorphogenError, ValueError):
    """A path offers no table that a server can serve, or serve next."""


class TableBuildError(MorphogenError, ValueError):
    """A keyword table cannot be made of these entries.

    Parameters
    ----------
    message : str
        The fault. It never shows a key or a value.
    entries : tuple of int, optional
        The entries that it is about, counted from 1 in the order in which they were added.
    """

    def __init__(self, message: str, entries: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.entries = entries
