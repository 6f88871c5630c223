"""What a path offers to a server: the file of a table, a link to one, or a folder of epochs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from morphogen.epochs.delta import DeltaHeader, read_delta_header
from morphogen.epochs.manifest import Manifest, read_manifest
from morphogen.epochs.names import epoch_of_name
from morphogen.errors import MorphogenError, SourceError
from morphogen.keyword.file import read_header

TABLE, DELTA, MANIFEST = ".table", ".delta", ".manifest"  # names of files in a folder of epochs
_Header = TypeVar("_Header")
# Of each file its name, device, inode, size and time of the last change.
Stamp = tuple[tuple[str, int, int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Standing:
    """What is served now.

    Parameters
    ----------
    epoch : int
        Version of the table.
    root : bytes or None
        Of authenticated pages.
    """

    epoch: int
    root: bytes | None


@dataclass(frozen=True, slots=True)
class Offer:
    """A way to an epoch.

    Parameters
    ----------
    path : pathlib.Path
        The last file of the way.
    epoch : int or None
        None if neither a manifest nor the file's name tells it.
    base : pathlib.Path or None
        A table's file, or one of pages; None for the pages that are served now.
    deltas : tuple of pathlib.Path
        To be applied one after the other.
    manifest : Manifest or None
        What the table's owner says of the epoch.
    """

    path: Path
    epoch: int | None
    base: Path | None
    deltas: tuple[Path, ...] = ()
    manifest: Manifest | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that are read for it."""
        return self.deltas if self.base is None else (self.base, *self.deltas)

    @property
    def activate_at(self) -> int:
        """When it is to be served, in Unix seconds; 0 for at once."""
        return 0 if self.manifest is None else self.manifest.activate_at


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that a path offers and no server can take.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    reason : str
        What is wrong with it.
    """

    path: Path
    reason: str


@dataclass(frozen=True, slots=True)
class Outlook:
    """All that a path offers.

    Parameters
    ----------
    offers : list of Offer
        The highest epoch first. Of a folder all are above the epoch that is served.
    faults : list of Fault
        Files that would lead on, if they were whole.
    """

    offers: list[Offer]
    faults: list[Fault] = field(default_factory=list)


def stamp(path: Path) -> Stamp:
    """Tell one state of what a path offers from another, without reading files.

    Parameters
    ----------
    path : pathlib.Path
        A file, a link or a folder, which need not be there.

    Returns
    -------
    Stamp
        Equal as long as nothing was written or replaced.
    """
    if path.is_dir():
        files: Iterable[Path] = _files(path, TABLE, DELTA, MANIFEST)
    else:
        file, _ = _resolve(path)
        files = (file, file.with_suffix(MANIFEST))
    return stamp_of(files)


def stamp_of(files: Iterable[Path]) -> Stamp:
    """Tell one state of files from another, without reading them.

    Parameters
    ----------
    files : iterable of pathlib.Path
        Those that are not there are left out.

    Returns
    -------
    Stamp
        Equal as long as none was written or replaced.
    """
    found = []
    for file in files:
        try:
            state = file.stat()
        except OSError:  # it may have gone meanwhile
            continue
        size, changed = state.st_size, state.st_mtime_ns
        found.append((str(file), state.st_dev, state.st_ino, size, changed))
    return tuple(found)


def _resolve(path: Path) -> tuple[Path, int | None]:
    """The file to which links lead now, and the epoch that its name tells.

    Both are of one moment: somebody may let a link lead elsewhere. A pipe's copy has no name, and
    is opened by the link.
    """
    resolved = Path(os.path.realpath(path))
    return resolved if resolved.exists() else path, epoch_of_name(resolved)


def look(path: Path, standing: Standing | None) -> Outlook:
    """Find what a path offers, by names and headers: no page is read.

    Parameters
    ----------
    path : pathlib.Path
        A file, a link or a folder.
    standing : Standing or None
        What is served now; None at the start of a server.

    Returns
    -------
    Outlook
        Of a file always one offer, whatever is served.

    Raises
    ------
    ManifestError
        If the manifest beside a file is none.
    OSError
        If the folder, or a file's manifest, cannot be read.
    SourceError
        If there is no epoch in a folder with which a server could start.
    """
    if not path.is_dir():
        file, epoch = _resolve(path)
        manifest = _manifest_beside(file)
        epoch = epoch if manifest is None else manifest.epoch
        return Outlook([Offer(file, epoch, file, manifest=manifest)])
    outlook = _Folder(path, standing).outlook()
    if standing is None and not outlook.offers:
        wrong = "".join(f"; {fault.reason}" for fault in outlook.faults)
        raise SourceError(
            f"there is no table with an epoch in the folder {path}, such as words-7{TABLE}{wrong}"
        )
    return outlook


@dataclass(frozen=True, slots=True, order=True)
class _Way:
    """A way to a node of a folder's graph; the better one is less."""

    tables: int  # read whole
    pages: int  # changed by deltas
    path: Path
    base: Path | None
    deltas: tuple[Path, ...] = ()


class _Folder:
    """A folder of epochs: a graph, whose nodes are epochs with a root, and whose edges deltas."""

    def __init__(self, folder: Path, standing: Standing | None) -> None:
        self._served = -1 if standing is None else standing.epoch
        self._faults: list[Fault] = []
        self._ways: dict[tuple[int, bytes | None], _Way] = {}
        self._manifests: dict[tuple[int, bytes | None], Manifest] = {}
        if standing is not None and standing.root is not None:
            self._ways[standing.epoch, standing.root] = _Way(0, 0, folder, None)
        for path in _files(folder, TABLE):
            self._add_table(path)
        self._add_deltas(_files(folder, DELTA))

    def outlook(self) -> Outlook:
        """All that is above the epoch that is served."""
        offers = []
        above = {epoch for epoch, _ in self._ways if epoch > self._served}
        for epoch in sorted(above, reverse=True):
            nodes = [node for node in self._ways if node[0] == epoch]
            way = self._ways[nodes[0]]
            if len(nodes) > 1:
                reason = f"there are {len(nodes)} tables of the epoch {epoch} with other roots"
                self._faults.append(Fault(way.path, reason))
                continue
            manifest = self._manifests.get(nodes[0])
            offers.append(Offer(way.path, epoch, way.base, way.deltas, manifest))
        return Outlook(offers, self._faults)

    def _add_table(self, path: Path) -> None:
        found = self._read(path, read_header)
        if found is None:
            return
        header, manifest = found
        epoch = epoch_of_name(path) if manifest is None else manifest.epoch
        if epoch is not None:
            self._add((epoch, header.root), _Way(1, 0, path, path), manifest)

    def _add_deltas(self, paths: list[Path]) -> None:
        read = [(path, found) for path in paths if (found := self._read(path, read_delta_header))]
        # Each leads up: by the time that one is looked at, the best way to its beginning is known.
        read.sort(key=lambda item: item[1][0].from_epoch)
        unreached: list[tuple[Path, DeltaHeader]] = []
        for path, (header, manifest) in read:
            way = self._ways.get((header.from_epoch, header.root_before))
            if way is None:
                unreached.append((path, header))
                continue
            pages = way.pages + header.count
            longer = _Way(way.tables, pages, path, way.base, (*way.deltas, path))
            self._add((header.to_epoch, header.root_after), longer, manifest)
        highest = max((epoch for epoch, _ in self._ways), default=-1)
        for path, header in unreached:
            if header.to_epoch > max(highest, self._served):
                reason = (
                    f"{path} leads from epoch {header.from_epoch} with the root "
                    f"{header.root_before.hex()} to {header.to_epoch}: no table here is that one"
                )
                self._faults.append(Fault(path, reason))

    def _add(self, node: tuple[int, bytes | None], way: _Way, manifest: Manifest | None) -> None:
        if node not in self._ways or way < self._ways[node]:
            self._ways[node] = way
        if manifest is not None:
            self._manifests.setdefault(node, manifest)

    def _read(
        self, path: Path, read: Callable[[Path], _Header]
    ) -> tuple[_Header, Manifest | None] | None:
        """A file's header and its manifest; a fault if one is broken and would lead on."""
        try:
            return read(path), _manifest_beside(path)
        except (MorphogenError, OSError) as error:
            epoch = epoch_of_name(path)
            if epoch is None or epoch > self._served:
                self._faults.append(Fault(path, str(error)))
            return None


def _manifest_beside(path: Path) -> Manifest | None:
    beside = path.with_suffix(MANIFEST)
    return read_manifest(beside) if beside.exists() else None


def _files(folder: Path, *suffixes: str) -> list[Path]:
    """The files of a folder that are no others' temporary ones, in the order of their names."""
    return sorted(
        entry
        for entry in folder.iterdir()
        if entry.suffix in suffixes and not entry.name.startswith(".")
    )
