"""Which table may take the place of the one that is served, and for which its owner stands."""

from __future__ import annotations

import time
from pathlib import Path

from morphogen.epochs.manifest import Manifest, parse_manifest
from morphogen.errors import ManifestError, SourceError
from morphogen.service.generations import Generation
from morphogen.service.table import PagesFile
from morphogen.wire import TableInfo


def check_shape(file: PagesFile, info: TableInfo) -> None:
    """Refuse a table that clients of the one that is served could not read in the same way.

    Parameters
    ----------
    file : PagesFile
        The table's.
    info : TableInfo
        Of what is served.

    Raises
    ------
    SourceError
        If its pages have another size, or are of another kind.
    """
    for name, theirs, ours in (
        ("bytes a page", file.pages.page_size, info.page_size),
        ("a keyword table", file.layout is not None, info.table is not None),
        ("authenticated pages", file.root is not None, info.root is not None),
    ):
        if theirs != ours:
            raise other_shape(name, theirs, ours)


def other_shape(name: str, theirs: object, ours: object) -> SourceError:
    """The error of a table of another shape."""
    return SourceError(f"it is of another shape than what is served: {name}: {theirs}, not {ours}")


def older(path: Path, epoch: int, served: int) -> SourceError:
    """The error of a table that comes too late."""
    if epoch == served:
        return SourceError(f"{path} has other pages than the epoch {served} that is served")
    return SourceError(f"{path} is older than what is served: epoch {epoch}, not above {served}")


def check_manifest(
    manifest: Manifest | None,
    owner: bytes | None,
    root: bytes | None,
    current: Generation | None = None,
) -> None:
    """Refuse an epoch for which the owner does not stand.

    Parameters
    ----------
    manifest : Manifest or None
        The epoch's.
    owner : bytes or None
        Who has to have signed it; None for anybody, or nobody.
    root : bytes or None
        Of the epoch's pages, if they are authenticated.
    current : Generation, optional
        What is served.

    Raises
    ------
    ManifestError
        If it is missing, by another owner, about another root or table, or has expired.
    """
    if manifest is None:
        if owner is not None:
            raise ManifestError("there is no manifest by the owner beside it")
        return
    if root is None:
        raise ManifestError("a manifest is about the root of a table, and these pages have none")
    if owner is not None:
        manifest.verify(owner, root)
    elif manifest.root != root:
        raise ManifestError(
            f"the manifest is about the root {manifest.root.hex()}, not {root.hex()}"
        )
    elif manifest.expires and time.time() >= manifest.expires:
        raise ManifestError(f"the manifest expired at {manifest.expires} (Unix seconds)")
    if current is not None and current.manifest is not None:
        table = parse_manifest(current.manifest).table_id
        if manifest.table_id != table:
            raise ManifestError(
                f"the manifest is about the table {manifest.table_id.hex()}, not {table.hex()}, "
                "which is served"
            )
