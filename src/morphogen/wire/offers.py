"""The epochs of a server: written into one description, and read out of it."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from morphogen.wire.forms import EpochInfo, TableInfo


def with_epochs(infos: Sequence[TableInfo]) -> TableInfo:
    """Describe a server of several epochs.

    Parameters
    ----------
    infos : sequence of TableInfo
        The description of each epoch, the current one first.

    Returns
    -------
    TableInfo
        That of the current epoch, with all of them as its epochs.
    """
    return replace(infos[0], epochs=[_as_epoch(info) for info in infos])


def offers(info: TableInfo) -> list[TableInfo]:
    """What a server offers: a description for each epoch that it answers for.

    Parameters
    ----------
    info : TableInfo
        Of the server.

    Returns
    -------
    list of TableInfo
        Without epochs, the highest epoch first, one for each. Of a server that says none, that of
        its current epoch. Of two under one number the first counts, above all the current one.
    """
    offered = {info.epoch_id: replace(info, epochs=None)}
    for epoch in info.epochs or ():
        fields = {name: getattr(epoch, name) for name in EpochInfo.__struct_fields__}
        offered.setdefault(epoch.epoch_id, replace(info, epochs=None, **fields))
    return [offered[number] for number in sorted(offered, reverse=True)]


def _as_epoch(info: TableInfo) -> EpochInfo:
    return EpochInfo(**{name: getattr(info, name) for name in EpochInfo.__struct_fields__})
