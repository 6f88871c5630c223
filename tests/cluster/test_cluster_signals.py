"""Ray takes SIGTERM for itself while it starts: none is lost, nor its meaning."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from types import FrameType

import pytest

from morphogen.cluster.ray_cluster import _own_signals


class EndedError(Exception):
    """What the process makes of SIGTERM."""


def end(number: int, frame: FrameType | None) -> None:
    raise EndedError


@pytest.fixture(params=[end, signal.SIG_DFL], ids=["own", "default"])
def own(request: pytest.FixtureRequest) -> Iterator[object]:
    before = signal.signal(signal.SIGTERM, request.param)
    yield request.param
    signal.signal(signal.SIGTERM, before)


def start_as_ray_does() -> None:
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(number))


def test_a_signal_that_comes_while_ray_starts_is_left_to_this_process(own: object) -> None:
    expected = EndedError if own is end else SystemExit

    def start_and_end() -> None:
        with _own_signals():
            start_as_ray_does()
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(expected):
        start_and_end()
    assert signal.getsignal(signal.SIGTERM) is own


def test_the_handler_is_this_process_s_own_once_ray_runs(own: object) -> None:
    with _own_signals():
        start_as_ray_does()
    assert signal.getsignal(signal.SIGTERM) is own
