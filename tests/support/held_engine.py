"""An engine that waits for a test: what concurrent callers meet is then no matter of luck."""

from __future__ import annotations

import threading
from typing import Any

import morphogen as mg
from morphogen.engine.base import Engine
from morphogen.engine.strategy import Choices, Strategy
from naive import Bytes

SECONDS = 30  # no test waits so long but one that has failed


class HeldEngine(Engine):
    """A real engine whose chunks begin when a test says so, and whose calls are kept."""

    def __init__(self, inner: Engine, width: int) -> None:
        default = Strategy(width, lanes=1, graph=False)
        super().__init__(inner.pages, Choices("cpu", default, widest=width))
        self.inner = inner
        self.held = threading.Event()  # set: chunks go through
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

    def read_pages(self) -> int:
        return self.inner.read_pages()

    def _run(self, ranges: list[tuple[int, int]], out: Bytes, strategy: Strategy) -> None:
        raise NotImplementedError

    def _release(self) -> None:
        self.inner.close()

    @property
    def chunks(self) -> list[int]:
        return [len(queries) for queries, _ in self.calls]
