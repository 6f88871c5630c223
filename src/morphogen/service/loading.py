"""An epoch on its way to be served: read and verified, then opened by an engine."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

import morphogen.wire as wire
from morphogen.authentication.hashing import HASH_BYTES
from morphogen.authentication.tree import Tree
from morphogen.batcher import MAX_QUEUED, MicroBatcher
from morphogen.checks import needs_extra
from morphogen.engine.base import Engine
from morphogen.epochs.apply import apply_delta
from morphogen.epochs.delta import open_delta
from morphogen.errors import ManifestError, MorphogenError, SourceError
from morphogen.keyword.layout import TableLayout
from morphogen.progress import Progress
from morphogen.service.admission import check_manifest, check_shape, older, other_shape
from morphogen.service.comparing import differing_pages
from morphogen.service.generations import Generation
from morphogen.service.opening import Opened, Opener, Prepared, ProcessOpener
from morphogen.service.source import Fault, Offer, Stamp, look, stamp
from morphogen.service.table import PagesFile, describe_table


@dataclass(frozen=True, slots=True, eq=False)
class Start:
    """What a server begins with.

    Parameters
    ----------
    generation : Generation
    state : Stamp
        Of the path, from before it was read.
    faults : list of Fault
        What of the path cannot be served.
    more : bool
        Whether the path has epochs whose time has not come.
    """

    generation: Generation
    state: Stamp
    faults: list[Fault]
    more: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Loader:
    """Makes generations of what paths offer, all with the same options.

    Parameters
    ----------
    party : int
        0 or 1.
    page_size : int or None
        Of a file of pages.
    keys_per_query : int
        1 to 3.
    epoch : int or None
        Of the first generation, whatever names and manifests say.
    opener : Opener
        Opens the engines; by default in this process, on a GPU if there is one.
    max_micro_batch, max_queued, max_queued_per_client : int or None
        As `MicroBatcher` takes them.
    owner : bytes or None
        Ed25519 public key: only what its manifests name is loaded.

    Raises
    ------
    ModuleNotFoundError
        If there is an owner, and the extra ``sign`` is missing.
    ValueError
        If the owner's key is none.
    """

    party: int
    page_size: int | None = None
    keys_per_query: int = 3
    epoch: int | None = None
    opener: Opener = field(default_factory=ProcessOpener)
    max_micro_batch: int | None = None
    max_queued: int = MAX_QUEUED
    max_queued_per_client: int | None = None
    owner: bytes | None = None

    def __post_init__(self) -> None:
        if self.owner is not None:
            with needs_extra("sign", "an owner's manifest"):
                from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
            Ed25519PublicKey.from_public_bytes(self.owner)

    def start(self, path: Path, progress: Progress | None = None) -> Start:
        """Load what a server begins with: the highest epoch whose time has come.

        Parameters
        ----------
        path : pathlib.Path
            A file, a link or a folder.
        progress : callable, optional
            Called while pages are read, with the bytes done and those in all.

        Returns
        -------
        Start

        Raises
        ------
        MorphogenError, OSError, ValueError
            If there is nothing that can be served, for the reason of the highest epoch.
        """
        if self.epoch is not None and path.is_dir():
            raise ValueError(f"{path} is a folder, whose files say their epochs: give none")
        state = stamp(path)
        outlook = look(path, None)
        now = time.time()
        later = [offer for offer in outlook.offers if offer.activate_at > now]
        # Where nothing else is there, better what the other server will have soon.
        later.sort(key=lambda offer: offer.activate_at)
        offers = [offer for offer in outlook.offers if offer not in later] + later
        faults, errors = list(outlook.faults), list[Exception]()
        for offer in offers:
            try:
                generation = self.first(offer, progress)
            except ManifestError as error:
                errors.append(ManifestError(f"{offer.path}: {error}"))
                faults.append(Fault(offer.path, str(error)))
            except (MorphogenError, OSError, ValueError) as error:
                errors.append(error)
                faults.append(Fault(offer.path, str(error)))
            else:
                return Start(generation, state, faults, bool(later))
        raise errors[0]

    def first(self, offer: Offer, progress: Progress | None = None) -> Generation:
        """Load an epoch with which a server begins.

        Parameters
        ----------
        offer : Offer
            With a file of its own.
        progress : callable, optional
            Called while pages are read, with the bytes done and those in all.

        Returns
        -------
        Generation

        Raises
        ------
        MorphogenError, OSError, ValueError
            If it is not whole, not the owner's, or does not fit the options or the device.
        """
        epoch = self.epoch if offer.epoch is None or self.epoch is not None else offer.epoch
        if offer.manifest is not None and epoch != offer.manifest.epoch:
            raise ManifestError(
                f"the manifest is about epoch {offer.manifest.epoch}, not {epoch}, as was asked for"
            )
        file = self._file(offer, epoch or 0)
        if offer.deltas:
            return self.open(self._prepared(offer, file, progress))
        # All that can be refused is refused before the pages are read, which may last.
        check_manifest(offer.manifest, self.owner, file.root)
        opened = self.opener.open(file, file.pages, file.root)
        try:
            batcher = self._batcher(opened.engine)
            prepared = self._prepared(offer, file, progress, digest=opened.digest)
            return self._generation(prepared, opened, batcher)
        except BaseException:
            opened.engine.close()
            raise

    def prepare(
        self, offer: Offer, current: Generation, progress: Progress | None = None
    ) -> Prepared | None:
        """Read and verify what may be served next.

        Parameters
        ----------
        offer : Offer
            Of what the path has now.
        current : Generation
            What is served.
        progress : callable, optional
            Called while pages are read, with the bytes done and those in all.

        Returns
        -------
        Prepared or None
            None if these are the pages that are served, under the same number.

        Raises
        ------
        MorphogenError, OSError, ValueError, MemoryError
            If it is not whole, not the owner's, older than what is served, or of another shape.
        """
        info = current.info
        if offer.base is None:
            return self._chained(offer, _served(current), progress, current)
        epoch = info.epoch_id + 1 if offer.epoch is None else offer.epoch
        file = self._file(offer, epoch)
        check_shape(file, info)
        if epoch < info.epoch_id:
            raise older(offer.path, epoch, info.epoch_id)
        # Pages without a root have to be read to know whether they are the same.
        root = None if file.root is None or offer.deltas else file.root.hex()
        if root is not None and self._is_served(offer, root, epoch, info):
            return None
        prepared = self._prepared(offer, file, progress, current)
        if prepared.digest is not None and self._is_served(offer, prepared.digest, epoch, info):
            return None
        if prepared.root is not None and self.opener.verifies:
            return prepared  # nobody here has read it
        assert current.pages is not None
        changed = differing_pages(current.pages, prepared.pages, progress)
        return replace(prepared, changed=changed)

    def _is_served(self, offer: Offer, digest: str, epoch: int, info: wire.TableInfo) -> bool:
        """Whether a digest is that of what is served, under the same number."""
        if digest == info.digest and (offer.epoch is None or epoch == info.epoch_id):
            return True
        if epoch == info.epoch_id:
            raise older(offer.path, epoch, info.epoch_id)
        return False

    def open(self, prepared: Prepared, current: Generation | None = None) -> Generation:
        """Open an engine over prepared pages.

        Parameters
        ----------
        prepared : Prepared
            From `prepare`.
        current : Generation, optional
            What is served, and was when it was prepared: on a GPU the two share their pages.

        Returns
        -------
        Generation

        Raises
        ------
        DeviceError
            If the device fails, or has no room for a table of another shape.
        MemoryError, OSError
            If there is no memory.
        """
        if current is None:
            file = prepared.file
            assert file is not None
            opened = self.opener.open(file, prepared.pages, prepared.root, prepared.beyond)
        else:
            opened = self.opener.open_beside(prepared, current.batcher.engine)
        try:
            if opened.digest not in (None, prepared.digest):
                raise SourceError(
                    f"the pages must have the digest {prepared.digest}, as when they were read, "
                    f"not {opened.digest}: do not write into a file that is served"
                )
            return self._generation(prepared, opened, self._batcher(opened.engine))
        except BaseException:
            opened.engine.close()
            raise

    def _file(self, offer: Offer, epoch: int) -> PagesFile:
        assert offer.base is not None
        return PagesFile(
            offer.base,
            page_size=self.page_size,
            keys_per_query=self.keys_per_query,
            epoch=epoch,
        )

    def _prepared(
        self,
        offer: Offer,
        file: PagesFile,
        progress: Progress | None,
        current: Generation | None = None,
        digest: str | None = None,
    ) -> Prepared:
        """The pages of a file, verified, and changed by deltas.

        Whoever knows the digest has read the pages, and whoever verifies the tree reads them.
        """
        if not offer.deltas:
            check_manifest(offer.manifest, self.owner, file.root, current)
        tree: Tree | None = None
        if file.root is not None and self.opener.verifies:
            tree = file.stated_tree()
        elif digest is None:
            digest, tree = file.read(progress)
        prepared = Prepared(file.pages, digest, tree, file.layout, offer.manifest, file)
        return self._chained(offer, prepared, progress, current) if offer.deltas else prepared

    def _chained(
        self,
        offer: Offer,
        begun: Prepared,
        progress: Progress | None,
        current: Generation | None,
    ) -> Prepared:
        """The pages that deltas make of verified ones."""
        deltas = [open_delta(path, progress) for path in offer.deltas]
        last = deltas[-1].header
        if offer.epoch != last.to_epoch:
            raise SourceError(f"{offer.path} leads to epoch {last.to_epoch}, not {offer.epoch}")
        keys = (last.layout is not None, begun.layout is not None)
        if keys[0] != keys[1]:
            raise other_shape("a keyword table", *keys)
        check_manifest(offer.manifest, self.owner, last.root_after, current)
        pages, tree, changed = begun.pages, begun.tree, []
        for number, delta in enumerate(deltas):
            if progress is not None:
                progress(number, len(deltas))
            assert tree is not None  # only pages with a root are led on by deltas
            applied = apply_delta(pages, tree.cap, tree.root, delta)
            pages, tree = applied.pages, Tree(applied.changed.cap, applied.changed.root)
            changed.append(applied.changed.indices)
        union = np.unique(np.concatenate(changed))
        manifest = offer.manifest
        if begun.file is None:  # made of what is served
            return Prepared(pages, None, tree, last.layout, manifest, changed=union)
        return Prepared(pages, None, tree, last.layout, manifest, begun.file, beyond=union)

    def _batcher(self, engine: Engine) -> MicroBatcher:
        return MicroBatcher(
            engine,
            max_micro_batch=self.max_micro_batch,
            max_queued=self.max_queued,
            max_queued_per_client=self.max_queued_per_client,
        )

    def _generation(self, prepared: Prepared, opened: Opened, batcher: MicroBatcher) -> Generation:
        info = describe_table(
            opened.engine,
            self.party,
            keys_per_query=self.keys_per_query,
            digest=prepared.digest,
            layout=None if prepared.layout is None else prepared.layout.as_dict(),
            tree=prepared.tree,
        )
        raw = None if prepared.manifest is None else prepared.manifest.pack()
        cap = None if prepared.tree is None else prepared.tree.cap.data
        return Generation(info, opened.engine, batcher, cap, raw, opened.pages)


def _served(current: Generation) -> Prepared:
    """What is served, as deltas begin with it."""
    info = current.info
    assert current.pages is not None
    tree = None
    if info.root is not None and current.cap is not None:
        cap = np.frombuffer(current.cap, dtype=np.uint8).reshape(-1, HASH_BYTES)
        tree = Tree(cap, bytes.fromhex(info.root))
    layout = None if info.table is None else TableLayout.from_dict(info.table)
    return Prepared(current.pages, None, tree, layout, None)
