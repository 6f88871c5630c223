"""A table that goes on from epoch to epoch in this process, and what is logged of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest

import morphogen as mg
from epoch_files import point, sealed_pages, write_epoch
from morphogen.service.generations import Generations
from morphogen.service.loading import Loader
from morphogen.service.metrics import Metrics
from morphogen.service.opening import Opener, ProcessOpener
from morphogen.service.succession import Succession
from morphogen.service.worker import Worker
from naive import Bytes, naive_answers

Line = dict[str, Any]


@pytest.fixture
def lines() -> Iterator[list[Line]]:
    """Return what is logged."""
    logged: list[Line] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            fields = getattr(record, "fields", {})
            logged.append({"event": record.getMessage(), **fields})

    logger, keep = logging.getLogger("morphogen.service"), Keep()
    before = logger.level
    logger.addHandler(keep)
    logger.setLevel(logging.INFO)
    yield logged
    logger.removeHandler(keep)
    logger.setLevel(before)


class Live:
    """A table that is served, at a time that the test sets."""

    def __init__(
        self, path: Path, device: str = "cpu", *, opener: Opener | None = None, **options: Any
    ) -> None:
        if opener is None:
            opener = ProcessOpener(device, 1 if device == "cpu" else None)
        loader = Loader(party=0, opener=opener, **options)
        start = loader.start(path)
        self.faults = start.faults
        self.now = 1000.0
        self.generations = Generations(start.generation)
        self.metrics = Metrics()
        self.metrics.tables = {"": self.generations}
        self.metrics.openers[""] = opener
        self.worker = Worker()
        self.succession = Succession(
            "words",
            path,
            self.generations,
            loader=loader,
            metrics=self.metrics,
            worker=self.worker,
            start=start,
            clock=lambda: self.now,
        )

    def hang_up(self) -> None:
        asyncio.run(self.succession.take_up(asked=True))

    def look(self) -> bool:
        return asyncio.run(self.succession.has_changed())

    def pass_time(self, now: float) -> None:
        self.now = now
        asyncio.run(self.succession.activate())

    @property
    def epochs(self) -> list[int]:
        return [generation.info.epoch_id for generation in self.generations.held]

    def check(self, epoch: int, pages: Bytes | None = None) -> None:
        """An epoch is answered for, from its own pages."""
        pages = sealed_pages(epoch) if pages is None else pages
        queries = mg.make_queries([[epoch % len(pages), 7 * epoch % len(pages), 3]], len(pages))[0]
        answer = self.generations.pick(epoch).batcher.submit(queries[0]).result()
        assert answer.epoch == epoch
        np.testing.assert_array_equal(answer.pages, naive_answers(pages, queries))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.generations.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the epoch 7 of a table, and a link to it."""
    write_epoch(tmp_path / "words-7.table", 7)
    point(tmp_path / "current", tmp_path / "words-7.table")
    return tmp_path


def lead(folder: Path, name: str) -> None:
    point(folder / "current", folder / name)
