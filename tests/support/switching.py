"""A served table that a test moves from epoch to epoch, and requests under way meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

import morphogen as mg
import morphogen.wire as wire
from held_engine import SECONDS
from live_tables import HeldGeneration, LiveTables, publish
from morphogen.service import Generations
from morphogen.wire import MSGPACK
from naive import naive_answers, random_pages, random_rows
from served_table import ask

PAGES, SIZE = 60, 16


def generation(epoch: int, pages: int = PAGES, **options: Any) -> HeldGeneration:
    return HeldGeneration(random_pages(pages, SIZE, epoch), epoch, **options)


def queries(total: int, pages: int = PAGES, party: int = 0) -> list[mg.Query]:
    return mg.make_queries(random_rows(total, 3, pages), pages)[party]


class Switching(LiveTables):
    """One table, of which epoch 5 is the first."""

    def __init__(self, first: HeldGeneration | None = None, keep: int = 2) -> None:
        self.first = first or generation(5)
        self.generations = Generations(self.first, keep)
        super().__init__({"": self.generations})

    def publish(self, *published: HeldGeneration) -> None:
        for one in published:
            publish(self.generations, one)


@pytest.fixture
def live() -> Iterator[Switching]:
    with Switching() as app:
        yield app


class Asking(threading.Thread):
    """A request on its way, on a thread and a connection of its own."""

    def __init__(self, url: str, sent: list[mg.Query], epoch: int | None) -> None:
        super().__init__()
        self.url, self.sent, self.epoch = url, sent, epoch
        self.response: httpx.Response
        self.start()

    def run(self) -> None:
        body = wire.encode_request(self.sent, epoch_id=self.epoch)
        with httpx.Client(trust_env=False, timeout=SECONDS) as client:
            self.response = ask(client, self.url, body, MSGPACK)

    def answer(self) -> httpx.Response:
        self.join(SECONDS)
        return self.response


def check(response: httpx.Response, sent: list[mg.Query], of: HeldGeneration, now: int) -> None:
    """Check that a response is the right one of a generation, while an epoch is current."""
    assert response.status_code == 200, response.text
    kind = response.headers["Content-Type"]
    got = wire.decode_response(response.content, kind, of.info, len(sent))
    assert (got.epoch_id, got.num_pages, got.digest) == (
        of.info.epoch_id,
        of.info.num_pages,
        of.info.digest,
    )
    np.testing.assert_array_equal(got.pages, naive_answers(of.table, sent))
    assert response.headers["Morphogen-Epoch"] == str(now)
