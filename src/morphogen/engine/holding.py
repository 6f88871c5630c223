"""Engines that hold their pages themselves, and how these change."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, SupportsIndex, TypeVar

import numpy as np
import numpy.typing as npt

from morphogen.engine.base import Engine
from morphogen.pages import PageMatrix, check_changes, check_epoch

Taken = TypeVar("Taken")


class HoldingEngine(Engine):
    """An engine that holds its pages itself, and not in shards: its parameters are `Engine`'s."""

    def replace_pages(
        self,
        indices: Iterable[SupportsIndex] | npt.NDArray[np.integer[Any]],
        pages: npt.NDArray[np.uint8],
        epoch: SupportsIndex,
    ) -> None:
        """As `Engine.replace_pages` says."""
        self._change(indices, pages, epoch, self._replace)

    def next_epoch(
        self,
        indices: Iterable[SupportsIndex] | npt.NDArray[np.integer[Any]],
        pages: npt.NDArray[np.uint8],
        epoch: SupportsIndex,
    ) -> Engine:
        """As `Engine.next_epoch` says."""
        return self._change(indices, pages, epoch, self._open_next)

    def _change(
        self,
        indices: Iterable[SupportsIndex] | npt.NDArray[np.integer[Any]],
        pages: npt.NDArray[np.uint8],
        epoch: SupportsIndex,
        take: Callable[[PageMatrix, npt.NDArray[np.int64]], Taken],
    ) -> Taken:
        self.check_usable()
        self._calls.check_free()
        number = check_epoch(epoch)
        changed = check_changes(indices, pages, self.pages.num_pages, self._table.page_size)
        while True:
            before = self.pages
            if number == before.epoch:
                raise ValueError(f"epoch must be another than that of the pages, {number}")
            # Beside other calls: this may copy a whole table.
            after = before.with_changes(changed, pages, number)
            with self._calls.alone():
                self._check_open()
                if self._pages is not before:
                    continue  # another thread has replaced pages: change its pages
                try:
                    return take(after, changed)
                finally:
                    self._end_call()

    @abstractmethod
    def _replace(self, pages: PageMatrix, indices: npt.NDArray[np.int64]) -> None:
        """Make these `_pages`, which differ from them at these indices, or fail and change nothing.

        `_table` changes with them. No interrupt may come between what this changes.
        """

    @abstractmethod
    def _open_next(self, pages: PageMatrix, indices: npt.NDArray[np.int64]) -> Engine:
        """Open an engine over these, which differ at these indices, and leave this one as it is."""
