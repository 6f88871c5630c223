"""How a table that is served goes on to its next epoch, and what of that is told."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic
from typing import TypeVar

from morphogen.errors import MorphogenError
from morphogen.progress import Progress
from morphogen.service.generations import Generations
from morphogen.service.loading import Loader, Start
from morphogen.service.logs import log
from morphogen.service.metrics import Metrics
from morphogen.service.opening import Prepared
from morphogen.service.source import Offer, Outlook, Stamp, Standing, look, stamp, stamp_of
from morphogen.service.worker import StoppedError, Worker

_TOLD = (MorphogenError, OSError, ValueError, MemoryError)
_Seen = TypeVar("_Seen")


@dataclass(frozen=True, slots=True, eq=False)
class _Pending:
    """A verified epoch whose time has not come."""

    offer: Offer
    files: Stamp
    prepared: Prepared


class Succession:
    """The epochs of a table, one after the other, as its path offers them.

    Whatever fails is logged and counted, and changes nothing.

    Parameters
    ----------
    name : str
        The table's; empty for the only one.
    path : pathlib.Path
        A file, a link or a folder.
    generations : Generations
        With the first one.
    loader : Loader
        That made it.
    metrics : Metrics
        Counted in.
    worker : Worker
        For what takes long.
    start : Start
        How it began.
    clock : callable, optional
        The time of day in Unix seconds.
    """

    def __init__(
        self,
        name: str,
        path: Path,
        generations: Generations,
        *,
        loader: Loader,
        metrics: Metrics,
        worker: Worker,
        start: Start,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._name = name
        self._path = path
        self._generations = generations
        self._loader = loader
        self._metrics = metrics
        self._worker = worker
        self._clock = clock
        self._tried = self._seen = start.state
        self._settled = not start.faults and not start.more
        self._more = start.more
        self._pending: _Pending | None = None
        self._refused = 0

    async def begin(self) -> None:
        """Make ready what the path had at the start for a later time.

        Raises
        ------
        StoppedError
            If the server stops.
        """
        if self._more:
            await self.take_up()

    def seconds_left(self) -> float | None:
        """Seconds until an epoch's time comes; None if none waits for it."""
        if self._pending is None:
            return None
        return max(0.0, self._pending.offer.activate_at - self._clock())

    async def has_changed(self) -> bool:
        """Whether the path has something new, which stayed the same since this was last asked.

        What is still being written is not tried, nor what failed and did not change.
        """
        try:
            state = await self._look_at(_stamp)
        except RuntimeError:  # there is no thread to be had now
            return False
        stays, self._seen = state == self._seen, state
        return stays and state != self._tried

    async def take_up(self, *, asked: bool = False) -> None:
        """Take up what the path offers now.

        Parameters
        ----------
        asked : bool, optional
            Whether the operator asked for it, and is told if there is nothing.

        Raises
        ------
        StoppedError
            If the server stops.
        """
        refused, before = self._refused, self._generations.current
        waiting = self._pending
        try:
            state = await self._look_at(_stamp)
            if not self._settled or state != self._tried:
                self._tried = self._seen = state
                await self._advance()
        except StoppedError:
            raise
        except Exception as error:  # a file may hold anything: what is served is served on
            self._refuse(self._path, error)
        self._settled = refused == self._refused
        nothing = self._generations.current is before and self._pending is waiting
        if asked and nothing and self._settled:
            self._metrics.reloads["unchanged"] += 1
            log("reload_unchanged", table=self._name, epoch=before.info.epoch_id)

    async def activate(self) -> None:
        """Serve the epoch whose time has come, if there is one.

        Raises
        ------
        StoppedError
            If the server stops.
        """
        pending = self._pending
        if pending is None or pending.offer.activate_at > self._clock():
            return
        self._pending = None
        started = monotonic()
        try:
            await self._publish(pending.offer, pending.prepared, started)
        except StoppedError:
            raise
        except Exception as error:
            self._refuse(pending.offer.path, error)
        self._settled = False  # others may wait for their time
        await self.take_up()

    async def _advance(self) -> None:
        refused = self._refused
        outlook = await self._outlook()
        for fault in outlook.faults:
            self._refuse(fault.path, fault.reason)
        now = self._clock()
        due = [offer for offer in outlook.offers if offer.activate_at <= now]
        later = [offer for offer in outlook.offers if offer.activate_at > now]
        if await self._publish_first(due) and later:
            # Ways to them may have begun with the epoch that was served before.
            offers = (await self._outlook()).offers
            later = [offer for offer in offers if offer.activate_at > now]
        if later:
            await self._prepare_first(later)
        elif self._pending is not None and refused == self._refused:
            epoch = self._pending.prepared.pages.epoch
            log("reload_withdrawn", table=self._name, epoch=epoch)
            self._pending = None

    async def _outlook(self) -> Outlook:
        info = self._generations.current.info
        root = None if info.root is None else bytes.fromhex(info.root)
        return await self._look_at(lambda path: look(path, Standing(info.epoch_id, root)))

    async def _publish_first(self, offers: Sequence[Offer]) -> bool:
        """Serve the first of these that can be; whether there was one."""
        for offer in offers:
            started = monotonic()
            try:
                prepared = await self._prepare(offer)
                if prepared is None:
                    return False
                await self._publish(offer, prepared, started)
            except StoppedError:
                raise
            except Exception as error:
                self._refuse(offer.path, error)
            else:
                self._pending = None
                return True
        return False

    async def _prepare_first(self, offers: Sequence[Offer]) -> None:
        """Make ready the first of these whose time comes."""
        for offer in sorted(offers, key=lambda offer: (offer.activate_at, -(offer.epoch or 0))):
            started = monotonic()
            try:
                files = await self._worker.run(partial(_stamp_of, offer))
                pending = self._pending
                if pending is not None and (pending.offer, pending.files) == (offer, files):
                    return
                prepared = await self._prepare(offer)
            except StoppedError:
                raise
            except Exception as error:
                self._refuse(offer.path, error)
                continue
            if prepared is not None:
                self._pending = _Pending(offer, files, prepared)
                log(
                    "reload_waits",
                    table=self._name,
                    epoch=prepared.pages.epoch,
                    activate_at=offer.activate_at,
                    pages_changed=prepared.num_changed,
                    seconds=round(monotonic() - started, 3),
                )
                return

    async def _prepare(self, offer: Offer) -> Prepared | None:
        current = self._generations.current
        return await self._worker.run(
            lambda progress: self._loader.prepare(offer, current, progress)
        )

    async def _publish(self, offer: Offer, prepared: Prepared, started: float) -> None:
        current = self._generations.current
        generation = await self._worker.run(lambda _: self._loader.open(prepared, current))
        try:
            if self._worker.stopped:
                raise StoppedError
            await self._generations.publish(generation)
        except BaseException:
            generation.close()
            raise
        self._metrics.reloads["loaded"] += 1
        self._metrics.pages_changed[self._name] += prepared.num_changed
        log(
            "reloaded",
            table=self._name,
            from_epoch=current.info.epoch_id,
            to_epoch=generation.info.epoch_id,
            num_pages=generation.info.num_pages,
            pages_changed=prepared.num_changed,
            digest=generation.info.digest,
            root=generation.info.root,
            seconds=round(monotonic() - started, 3),
        )

    async def _look_at(self, look: Callable[[Path], _Seen]) -> _Seen:
        return await self._worker.run(lambda _: look(self._path))

    def _refuse(self, path: Path, reason: Exception | str) -> None:
        self._refused += 1
        refuse(self._metrics, self._name, path, reason)


def _stamp_of(offer: Offer, _: Progress) -> Stamp:
    return stamp_of(offer.files)


def _stamp(path: Path) -> Stamp:
    try:
        return stamp(path)
    except OSError:  # whoever looks further is told why
        return ()


def refuse(metrics: Metrics, name: str, path: Path, reason: Exception | str) -> None:
    """Log and count something that cannot be served.

    Parameters
    ----------
    metrics : Metrics
    name : str
        The table's.
    path : pathlib.Path
        The file.
    reason : Exception or str
        What is wrong. Of an error that is none of ours its kind is told, and not its message.
    """
    if isinstance(reason, Exception):
        # Its message may be empty: that of a lack of memory often is.
        told = isinstance(reason, _TOLD) and str(reason)
        reason = told or type(reason).__name__
    metrics.reloads["refused"] += 1
    log("reload_refused", logging.WARNING, table=name, path=str(path), reason=reason)
