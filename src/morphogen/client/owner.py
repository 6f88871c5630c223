"""The owner of a table, whose manifests vouch for its roots, and what was seen of them."""

from __future__ import annotations

import time
from collections.abc import Callable

from morphogen.checks import needs_extra
from morphogen.client.queue import Infos
from morphogen.epochs.manifest import Manifest, parse_manifest
from morphogen.errors import ManifestError, TableMismatchError
from morphogen.wire import TableInfo


class Owner:
    """A table's owner, as a client knows it.

    Parameters
    ----------
    key : bytes
        The public key, 32 bytes.
    clock : callable, optional
        The time in Unix seconds.

    Raises
    ------
    ModuleNotFoundError
        If the extra ``sign`` is missing.
    """

    def __init__(self, key: bytes, clock: Callable[[], float] = time.time) -> None:
        with needs_extra("sign", "a client with an owner"):
            import cryptography.hazmat.primitives.asymmetric.ed25519  # noqa: F401
        self._key = key
        self._clock = clock
        self._last: Manifest | None = None

    def accept(self, infos: Infos) -> Manifest:
        """Take the owner's manifest of an epoch, whichever server has it.

        One is enough, since nobody else can make it: when the owner signs an epoch again, for
        longer, one operator may have the new manifest before the other.

        Parameters
        ----------
        infos : tuple of (TableInfo, TableInfo)
            What each server says of the epoch. Their roots are equal.

        Returns
        -------
        Manifest
            The one that lasts longest.

        Raises
        ------
        TableMismatchError
            If neither has one, or it is another owner's, is about another epoch, root or table,
            has expired, or is older than one that was taken before.
        """
        read = [self._read(info) for info in infos]
        taken = [manifest for manifest in read if isinstance(manifest, Manifest)]
        if not taken:
            raise TableMismatchError(
                f"the owner does not vouch for the servers' table of epoch {infos[0].epoch_id}: "
                f"the manifest of the first server {read[0]}, that of the second {read[1]}"
            )
        self._last = max(taken, key=lambda manifest: manifest.expires or float("inf"))
        return self._last

    def has_expired(self, manifest: Manifest | None) -> bool:
        """Whether a manifest counts no more."""
        return manifest is not None and 0 < manifest.expires <= self._clock()

    def _read(self, info: TableInfo) -> Manifest | str:
        """The manifest that a server states, or what is wrong with it.

        Not the words of `ManifestError`, which repeat what the server wrote.
        """
        if info.manifest is None:
            return "is missing"
        try:
            manifest = parse_manifest(bytes.fromhex(info.manifest))
        except ManifestError:
            return "is malformed"
        if manifest.owner != self._key:
            return "is by another owner"
        if manifest.root.hex() != info.root:
            return "is about another root"
        if manifest.epoch != info.epoch_id:
            return "is about another epoch"
        try:
            manifest.verify(self._key, now=0)
        except ManifestError:
            return "has a wrong signature"
        if self.has_expired(manifest):
            return "has expired"
        if self._last is not None and manifest.table_id != self._last.table_id:
            return "is about another table than before"
        if self._last is not None and manifest.epoch < self._last.epoch:
            return "is older than one before"
        return manifest
