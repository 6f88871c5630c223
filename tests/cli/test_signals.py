"""A signal that ends a command lets it clean up first."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from ended_command import WORDS, end_command
from morphogen.cli.signals import EndedBySignal, cleaning_up

ENDING = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
# The command, held when all is written but not yet in its place.
HELD = """
import os, signal, sys
from morphogen.cli import main
def hold(descriptor):
    print("held", flush=True)
    while True:
        signal.pause()
os.fsync = hold
sys.exit(main(sys.argv[1:]))
"""
each_signal = pytest.mark.parametrize("number", ENDING, ids=lambda number: number.name)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Python's own, whatever runs these tests."""
    before = [signal.signal(number, signal.SIG_DFL) for number in ENDING]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in zip(ENDING, before, strict=True):
        signal.signal(number, handler)


@each_signal
def test_a_build_that_is_ended_leaves_nothing(number: signal.Signals, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("key\na\nb\n")
    (tmp_path / "old").write_bytes(b"as it was")
    command = ["table", "build", "rows.csv", "--key", "key", "-o", "old", "--force"]

    def is_writing() -> None:
        assert len(list(tmp_path.glob(".*.tmp"))) == 1

    end_command(HELD, command, number, tmp_path, before=is_writing)
    assert {path.name for path in tmp_path.iterdir()} == {"rows.csv", "old"}
    assert (tmp_path / "old").read_bytes() == b"as it was"


def under(action: Callable[[], object]) -> None:
    with cleaning_up():
        action()


@each_signal
def test_a_signal_is_an_error_where_it_comes(number: signal.Signals) -> None:
    with pytest.raises(EndedBySignal, match=f"^{WORDS[number]}$") as caught:
        under(lambda: signal.raise_signal(number))
    assert caught.value.exit_code == 128 + number
    assert isinstance(caught.value, KeyboardInterrupt)  # which cleaning up waits for


def test_the_handlers_of_before_come_back() -> None:
    before = [signal.getsignal(number) for number in ENDING]
    under(lambda: None)
    with pytest.raises(EndedBySignal):
        under(lambda: signal.raise_signal(signal.SIGTERM))
    assert [signal.getsignal(number) for number in ENDING] == before


@pytest.mark.parametrize(("first", "other"), [ENDING[1:], ENDING[:0:-1]], ids=["TERM", "HUP"])
def test_the_other_signal_of_a_supervisor_does_not_end_the_cleaning_up(
    first: signal.Signals, other: signal.Signals
) -> None:
    steps = []

    def ended_twice() -> None:
        try:
            signal.raise_signal(first)
        finally:
            signal.raise_signal(other)
            steps.append("cleaned up")

    with pytest.raises(EndedBySignal, match=first.name):
        under(ended_twice)
    assert steps == ["cleaned up"]


def test_both_signals_of_a_supervisor_may_come_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    both, complaints = {signal.SIGTERM, signal.SIGHUP}, list[object]()
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)

    def end() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, both)
        for number in both:
            signal.raise_signal(number)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, both)

    with pytest.raises(EndedBySignal):
        under(end)
    assert complaints == []


@each_signal
def test_a_signal_that_a_finalizer_lost_can_be_sent_again(number: signal.Signals) -> None:
    lost: list[str] = []

    def lose_one() -> None:
        with suppress(EndedBySignal):
            signal.raise_signal(number)
        lost.append(number.name)
        signal.raise_signal(number)

    with pytest.raises(EndedBySignal):
        under(lose_one)
    assert lost == [number.name]


def test_an_ignored_signal_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    under(lambda: signal.raise_signal(signal.SIGHUP))
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_a_program_s_own_handler_stays() -> None:
    seen = []
    signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    under(lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert seen == [signal.SIGTERM]


def test_another_thread_than_the_main_one_sets_no_handlers() -> None:
    failed = []

    def run() -> None:
        try:
            under(lambda: None)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert failed == []
