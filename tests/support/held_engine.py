"""An engine that waits for the test, so that concurrent calls meet in a fixed order."""

from __future__ import annotations

import threading
from typing import Any

import morphogen as mg
from morphogen.engine.base import Engine
from morphogen.engine.holding import HoldingEngine
from morphogen.engine.strategy import Choices, Strategy
from naive import Bytes

SECONDS = 30  # only a failed test waits this long


class HeldEngine(HoldingEngine):
    """A real engine that starts its chunks on the test's command, and records its calls."""

    def __init__(
        self, inner: Engine, width: int, keys: int | None = None, max_in_flight: int = 1
    ) -> None:
        default = Strategy(width, lanes=1, graph=False, keys=keys)
        choices = Choices("cpu", default, widest=width)
        super().__init__(inner.table, choices, inner.pages, max_in_flight=max_in_flight)
        self.inner = inner
        self.held = threading.Event()  # while it is set, chunks run
        self.held.set()
        self.begun: threading.Semaphore = threading.Semaphore(0)
        self.calls: list[tuple[list[mg.Query], str]] = []
        self.error: BaseException | None = None

    def answer(self, queries: list[mg.Query], **options: Any) -> mg.Answer:
        self.calls.append((list(queries), threading.current_thread().name))
        self.begun.release()
        assert self.held.wait(SECONDS)
        if self.error is not None:
            raise self.error
        return self.inner.answer(queries, **options)

    def _read(self) -> int:
        return self.inner.read_pages()

    def _run(
        self,
        packer: mg.planner.KeyPacker,
        ranges: list[tuple[int, int]],
        out: Bytes,
        strategy: Strategy,
    ) -> None:
        raise NotImplementedError

    def _replace(self, pages: mg.PageMatrix, indices: Any) -> None:
        raise NotImplementedError

    def _open_next(self, pages: mg.PageMatrix, indices: Any) -> Engine:
        raise NotImplementedError

    def _release(self) -> None:
        self.inner.close()

    @property
    def chunks(self) -> list[int]:
        return [len(queries) for queries, _ in self.calls]
