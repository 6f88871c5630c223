"""A server that names a later epoch beside an answer makes a client ask, and nothing else."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace

import pytest

import morphogen.wire as wire
from fake_server import PATIENCE, FakeServer, client, two_servers
from morphogen.client import AsyncClient
from naive import random_pages
from server_faults import Fault, Reply, dropped, instead, problem, stuck

Pair = tuple[FakeServer, FakeServer]
OLD, NEW = (random_pages(50, 96, seed=seed) for seed in (7, 8))


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    pause(monkeypatch, 0)


def pause(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    monkeypatch.setattr("morphogen.client.rules.SECONDS_BETWEEN_NEWS", seconds)


def named(epoch: str | None) -> Fault:
    """Name this epoch beside an answer, or none."""

    def alter(reply: Reply) -> Reply:
        headers = {name: at for name, at in reply.headers.items() if name != wire.EPOCH_HEADER}
        return replace(reply, headers=headers | ({wire.EPOCH_HEADER: epoch} if epoch else {}))

    return alter


def questions(server: FakeServer) -> int:
    return sum(seen.path == wire.EPOCH_PATH for seen in server.seen)


@pytest.mark.parametrize("party", [0, 1])
def test_the_next_read_is_of_the_epoch_that_one_answer_named(party: int) -> None:
    with two_servers(OLD) as servers, client(servers) as reader:
        for server in servers:
            server.publish(NEW, 8)
            server.lie(named(None))
        servers[party].lie(named("8"))
        assert (reader.get([4]) == OLD[[4]]).all()
        assert (reader.get([4]) == NEW[[4]]).all()
        assert reader.info.epoch_id == 8
        assert (reader.get([4]) == NEW[[4]]).all()
        assert [questions(server) for server in servers] == [2, 2]


def test_without_the_header_an_epoch_is_read_until_it_is_refused() -> None:
    with two_servers(OLD) as servers, client(servers) as reader:
        for server in servers:
            server.publish(NEW, 8)
            server.lie(named(None))
        for _ in range(3):
            assert (reader.get([4]) == OLD[[4]]).all()
        assert [questions(server) for server in servers] == [1, 1]
        servers[0].held.pop()
        assert (reader.get([4]) == NEW[[4]]).all()


def test_a_client_asks_once_a_second_at_most_whatever_the_answers_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pause(monkeypatch, 1e9)
    with two_servers(OLD) as servers, client(servers) as reader:
        for server in servers:
            server.lie(named("9"))
        for _ in range(5):
            assert (reader.get([4]) == OLD[[4]]).all()
        assert [questions(server) for server in servers] == [1, 1]


def test_the_epoch_is_kept_while_the_other_server_has_not_got_the_next() -> None:
    with two_servers(OLD) as servers, client(servers) as reader:
        servers[0].publish(NEW, 8)
        for _ in range(4):
            assert (reader.get([4]) == OLD[[4]]).all()
        assert [questions(server) for server in servers] == [4, 4]
        servers[1].publish(NEW, 8)
        assert (reader.get([4]) == NEW[[4]]).all()


@pytest.mark.parametrize("epoch", ["9", "9223372036854775807", "9999999999999999999"])
def test_a_server_that_lies_about_later_epochs_causes_questions_only(epoch: str) -> None:
    with two_servers(OLD) as servers, client(servers) as reader:
        servers[1].lie(named(epoch))
        for _ in range(5):
            assert (reader.get([4]) == OLD[[4]]).all()
        assert [questions(server) for server in servers] == [5, 5]
        servers[1].lie(named(None))  # what it said once is over with the next question
        for _ in range(5):
            assert (reader.get([4]) == OLD[[4]]).all()
        assert [questions(server) for server in servers] == [6, 6]


@pytest.mark.parametrize(
    "epoch",
    ["x", "-1", "+9", "9.0", " ", "0x9", "9 8", "9" * 20, "9" * 5000, "\u00b9", "6", "7", "0"],
)
def test_a_header_that_names_no_later_epoch_is_ignored(epoch: str) -> None:
    with two_servers(OLD) as servers, client(servers) as reader:
        for server in servers:
            server.lie(named(epoch))
        for _ in range(2):
            assert (reader.get([4]) == OLD[[4]]).all()
        assert [questions(server) for server in servers] == [1, 1]


@pytest.mark.parametrize(
    "fault",
    [
        dropped,
        instead(problem(500)),
        instead(Reply(200, {"Content-Type": wire.JSON}, b"[]")),
        instead(Reply(200, {"Content-Type": wire.JSON}, b'"' + b"9" * 70_000)),
    ],
)
def test_a_question_that_fails_does_not_fail_the_read(fault: Fault) -> None:
    with two_servers(OLD) as servers, client(servers, retries=0) as reader:
        servers[1].lie(named("9"))
        servers[1].lie(fault, path=wire.EPOCH_PATH)
        for _ in range(3):
            assert (reader.get([4]) == OLD[[4]]).all()


def test_the_epoch_before_is_read_while_two_tables_have_the_epoch_that_was_named() -> None:
    with two_servers(OLD) as servers, client(servers) as reader:
        for server, table in zip(servers, (NEW, OLD), strict=True):
            server.publish(table, 8)
        for _ in range(3):
            assert (reader.get([4]) == OLD[[4]]).all()


def test_other_tasks_read_on_while_one_asks() -> None:
    async def read(servers: Pair) -> None:
        urls = [server.url for server in servers]
        async with AsyncClient(urls, timeout=PATIENCE, backoff=0) as reader:
            await reader.get([4])
            gate = threading.Event()

            def held(reply: Reply) -> Reply:
                assert gate.wait(PATIENCE)
                return reply

            servers[0].then(held, path=wire.EPOCH_PATH)
            before = len(servers[0].seen)
            asks = asyncio.create_task(reader.get([5]))
            while len(servers[0].seen) == before:
                await asyncio.sleep(0)
            for page in range(3):
                assert (await reader.get([page]) == OLD[[page]]).all()
            assert not asks.done()
            gate.set()
            assert (await asks == NEW[[5]]).all()
            assert (await reader.get([6]) == NEW[[6]]).all()

    with two_servers(OLD) as servers:
        for server in servers:
            server.publish(OLD, 7)
            server.publish(NEW, 8, keep=3)
            server.held.pop()
        servers[1].held[:] = [servers[1].held[1]]

        def follow(reply: Reply) -> Reply:
            servers[1].publish(NEW, 8)
            return reply

        servers[1].then(follow)
        asyncio.run(read(servers))


def test_a_read_that_asks_can_be_cancelled_and_holds_nobody_up() -> None:
    async def read(servers: Pair) -> None:
        urls = [server.url for server in servers]
        async with AsyncClient(urls, timeout=PATIENCE, backoff=0) as reader:
            await reader.get([4])
            servers[0].then(stuck, path=wire.EPOCH_PATH)
            before = len(servers[0].seen)
            asks = asyncio.create_task(reader.get([5]))
            while len(servers[0].seen) == before:
                await asyncio.sleep(0)
            asks.cancel()
            await asyncio.gather(asks, return_exceptions=True)
            assert (await reader.get([6]) == OLD[[6]]).all()

    with two_servers(OLD) as servers:
        servers[0].lie(named("9"))
        asyncio.run(read(servers))


def test_the_news_of_one_loop_does_not_matter_in_the_next() -> None:
    with two_servers(OLD) as servers:
        reader = AsyncClient([server.url for server in servers], timeout=PATIENCE, backoff=0)
        servers[0].lie(named("9"))
        for _ in range(3):
            assert (asyncio.run(reader.get([4])) == OLD[[4]]).all()
        asyncio.run(reader.close())
        assert [questions(server) for server in servers] == [1, 1]
