"""A client raises a clear error when servers fail, lie about their pages, or do not agree."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import morphogen.wire as wire
from fake_server import client, keyword_table, two_servers
from morphogen.client.rules import EPOCH_TRIES, MAX_WAIT_SECONDS, RetryPolicy
from morphogen.errors import (
    DeadlineError,
    EpochMismatchError,
    MorphogenError,
    ServerError,
    TableMismatchError,
)
from naive import random_pages
from server_faults import (
    Fault,
    Reply,
    altered_answer,
    altered_pages,
    dropped,
    half,
    instead,
    problem,
    stuck,
)

BUSY = problem(429, Retry_After="0")


def with_body(body: bytes) -> Fault:
    return lambda reply: replace(reply, body=body)


def with_header(name: str, value: str) -> Fault:
    return lambda reply: replace(reply, headers={**reply.headers, name: value})


def cut_short(reply: Reply) -> Reply:
    """A body that is whole by its length, and not by its form."""
    return replace(reply, body=reply.body[:-1])


@pytest.mark.parametrize("fault", [dropped, half, instead(BUSY), instead(problem(503))])
@pytest.mark.parametrize("party", [0, 1])
def test_a_passing_fault_is_got_over(fault: Fault, party: int) -> None:
    with two_servers() as servers, client(servers, retries=2) as reader:
        servers[party].then(fault, fault)
        assert (reader.get([4]) == servers[0].table[[4]]).all()
        assert len(servers[party].batches) == 3
        assert len(servers[1 - party].batches) == 1


@pytest.mark.parametrize(
    ("fault", "message", "attempts"),
    [
        (dropped, "connection lost, 3 times", 3),
        (half, "connection lost, 3 times", 3),
        (instead(BUSY), "429 Too Many Requests", 3),
        (instead(problem(503)), "503 Service Unavailable", 3),
        (instead(problem(500)), "500 Internal Server Error", 1),
        (instead(problem(418)), "418", 1),
        (instead(Reply(299)), "299", 1),
        (instead(problem(400, "queries[3].keys[1]")), r"field queries\[3\]\.keys\[1\]", 1),
        (instead(problem(400, "what the server likes to say")), r"400 Bad Request$", 1),
        (instead(Reply(400, {}, b"[" * 5000)), r"400 Bad Request$", 1),
        (instead(Reply(400, {}, b"x" * 50_000)), r"400 Bad Request$", 1),
        (with_header("Content-Type", "text/html"), "content type must be application/msgpack", 1),
        (with_header("Content-Encoding", "gzip"), "must not be compressed", 1),
        (with_body(b""), "malformed answer", 1),
        (with_body(b"\xc1 garbage"), "malformed answer", 1),
        (with_body(b"x" * 100_000), "more than the .* bytes allowed", 1),
        (cut_short, "malformed answer", 1),
        (altered_answer(results=[]), "malformed answer", 1),
        (altered_answer(results=[{"pages": [b"short"] * 3}]), "malformed answer", 1),
        (altered_answer(results=[{"pages": [bytes(96)] * 2}]), "malformed answer", 1),
    ],
)
@pytest.mark.parametrize("party", [0, 1])
def test_a_lasting_fault_is_an_error_that_names_the_server(
    fault: Fault, message: str, attempts: int, party: int
) -> None:
    with two_servers() as servers, client(servers, retries=2) as reader:
        servers[party].then(*[fault] * attempts)
        with pytest.raises(ServerError, match=message) as failure:
            reader.get([4])
        assert servers[party].url in str(failure.value)
        assert len(servers[party].batches) == attempts
        # The client and the servers are as good as before.
        assert (reader.get([4]) == servers[0].table[[4]]).all()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (altered_answer(num_pages=51), "num_pages is not that of /epoch"),
        (altered_answer(digest="0" * 64), "digest is not that of /epoch"),
    ],
)
def test_an_answer_from_another_table_of_that_epoch_is_refused(fault: Fault, message: str) -> None:
    with two_servers() as servers, client(servers) as reader:
        servers[1].then(fault)
        with pytest.raises(TableMismatchError, match=message):
            reader.get([4])


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(status: int) -> None:
    with two_servers() as servers, client(servers) as reader:
        elsewhere = servers[1].url + wire.QUERY_PATH
        servers[0].then(instead(Reply(status, {"Location": elsewhere})))
        with pytest.raises(ServerError, match="redirects are not followed"):
            reader.get([4])
        assert len(servers[1].batches) == 1


def test_a_server_that_is_gone_is_named() -> None:
    with two_servers() as servers:
        url = servers[1].url
        servers[1].close()
        with pytest.raises(ServerError, match=f"{url}: cannot connect, 2 times"):
            client(servers, retries=1)


@pytest.mark.parametrize("path", [wire.QUERY_PATH, wire.EPOCH_PATH])
def test_a_server_that_stops_in_mid_answer_runs_into_the_deadline(path: str) -> None:
    with two_servers() as servers:
        servers[1].then(stuck, path=path)
        with (
            pytest.raises(DeadlineError, match=r"no whole answer within 0\.2 s") as late,
            client(servers, timeout=0.2) as reader,
        ):
            reader.get([4])
        assert servers[1].url in str(late.value)
        assert isinstance(late.value, TimeoutError)
        with client(servers) as other:
            assert (other.get([4]) == servers[0].table[[4]]).all()


def test_waiting_longer_than_the_deadline_is_not_begun() -> None:
    with two_servers() as servers, client(servers, timeout=4) as reader:
        servers[0].then(instead(problem(429, Retry_After="3600")))
        with pytest.raises(ServerError, match="429"):
            reader.get([4])


def test_a_server_says_how_long_to_wait_within_reason() -> None:
    policy = RetryPolicy(retries=3, backoff=0.1)
    assert policy.wait(0, "2") == 2
    assert policy.wait(0, "999999") == MAX_WAIT_SECONDS
    for attempt in range(4):
        for said in (None, "", "-1", "nan", "Wed, 21 Oct 2026 07:28:00 GMT", "9" * 50):
            assert 0.05 <= policy.wait(attempt, said) / 2**attempt <= 0.15
    assert len({policy.wait(0) for _ in range(20)}) > 1


def test_when_one_server_fails_the_other_is_still_heard_out() -> None:
    with two_servers() as servers, client(servers, retries=3) as reader:
        servers[0].then(instead(problem(500)))
        servers[1].then(dropped, dropped, dropped)
        with pytest.raises(ServerError, match="500"):
            reader.get([4])
        assert len(servers[1].batches) == 4


def test_a_new_epoch_on_both_servers_is_followed() -> None:
    newer = random_pages(50, 96, seed=1)
    with two_servers() as servers, client(servers) as reader:
        for server in servers:
            server.set_table(newer, epoch=8)
        assert (reader.get([4, 9]) == newer[[4, 9]]).all()
        assert reader.info.epoch_id == 8


def test_pages_of_one_get_are_of_one_epoch() -> None:
    newer = random_pages(50, 96, seed=1)
    with two_servers() as servers, client(servers) as reader:

        def change(reply: Reply) -> Reply:
            for server in servers:
                server.set_table(newer, epoch=8)
            return reply

        servers[0].then(change)
        wanted = [4] * 960  # ten messages: the table changes when the first is answered
        assert (reader.get(wanted) == newer[wanted]).all()


def test_a_server_that_follows_late_is_waited_for() -> None:
    newer = random_pages(50, 96, seed=1)
    with two_servers() as servers, client(servers) as reader:
        servers[0].set_table(newer, epoch=8)

        def follow(reply: Reply) -> Reply:
            servers[1].set_table(newer, epoch=8)
            return reply

        servers[1].then(lambda reply: reply, follow, path=wire.EPOCH_PATH)
        assert (reader.get([4]) == newer[[4]]).all()


def test_epochs_that_go_on_to_differ_are_an_error() -> None:
    with two_servers() as servers, client(servers) as reader:
        servers[1].set_table(servers[1].table, epoch=8)
        with pytest.raises(EpochMismatchError, match=f"asked {EPOCH_TRIES} times"):
            reader.get([4])
        with pytest.raises(EpochMismatchError, match=f"{servers[0].url} has 7"):
            client(servers)


def test_an_answer_of_another_epoch_is_not_used() -> None:
    with two_servers() as servers, client(servers) as reader:
        servers[1].then(altered_answer(epoch_id=6))
        assert (reader.get([4]) == servers[0].table[[4]]).all()
        assert len(servers[1].batches) == 2
        servers[1].then(*[altered_answer(epoch_id=6)] * EPOCH_TRIES)
        with pytest.raises(EpochMismatchError, match="answered from another epoch than 7"):
            reader.get([4])


def test_an_index_that_a_smaller_table_lost_is_an_error_only_in_the_end() -> None:
    smaller = random_pages(20, 96)
    with two_servers() as servers, client(servers) as reader:
        for server in servers:
            server.set_table(smaller, epoch=8)
        with pytest.raises(ValueError, match=r"0\.\.19, not 40"):
            reader.get([4, 40])
        assert [len(server.batches) for server in servers] == [2, 2]


@pytest.mark.parametrize(
    ("said", "error", "message"),
    [
        ({"party": 0}, ServerError, "both say that they are party 0"),
        ({"party": 2}, ServerError, r"party must be in 0\.\.1, not 2"),
        ({"num_pages": 0}, ServerError, r"num_pages must be in 1\.\.1099511627776, not 0"),
        ({"page_size": 0}, ServerError, "page_size must be in"),
        ({"keys_per_query": 4}, ServerError, r"keys_per_query must be in 1\.\.3, not 4"),
        ({"format_version": 2}, ServerError, r"format_version must be in 1\.\.1, not 2"),
        ({"epoch_id": -1}, ServerError, r"epoch_id must be in 0\.\.9223372036854775807, not -1"),
        ({"epoch_id": 2**70}, ServerError, r"epoch_id must be in 0\.\.9223372036854775807$"),
        ({"digest": "x"}, ServerError, "digest must be 64 hexadecimal digits"),
        ({"num_pages": 51}, TableMismatchError, "num_pages is 50 and 51"),
        ({"page_size": 95}, TableMismatchError, "page_size is 96 and 95"),
        ({"keys_per_query": 2}, TableMismatchError, "keys_per_query is 3 and 2"),
        ({"digest": "0" * 64}, TableMismatchError, "digest differs"),
        ({"table": {"seed": "00"}}, TableMismatchError, "keyword layout differs"),
    ],
)
def test_servers_that_disagree_about_the_table_are_refused(
    said: dict[str, Any], error: type[MorphogenError], message: str
) -> None:
    with two_servers() as servers:
        servers[1].said = said
        with pytest.raises(error, match=message):
            client(servers)
        assert not servers[0].batches


@pytest.mark.parametrize(
    "fault",
    [
        with_body(b""),
        with_body(b"[]"),
        with_body(b"{}"),
        with_body(b"\xff"),
        with_body(b"[" * 9999),
    ],
)
def test_a_malformed_epoch_is_an_error(fault: Fault) -> None:
    with two_servers() as servers:
        servers[0].then(fault, path=wire.EPOCH_PATH)
        with pytest.raises(ServerError, match="malformed answer about its table"):
            client(servers)


def test_a_table_that_changes_under_its_epoch_is_refused() -> None:
    with two_servers() as servers, client(servers) as reader:
        for server in servers:
            server.set_table(random_pages(50, 96, seed=1))
        servers[0].then(instead(problem(409)))
        with pytest.raises(TableMismatchError):
            reader.get([4])


@pytest.mark.parametrize("change", [{"seed": None}, {"num_pages": 1}, {"page_size": 255}])
def test_a_keyword_layout_that_does_not_fit_is_refused(change: dict[str, Any]) -> None:
    table, layout, _ = keyword_table()
    with two_servers(table, layout={**layout, **change}) as servers, client(servers) as reader:
        with pytest.raises(TableMismatchError, match="layout"):
            reader.lookup(b"key 1")
        assert not servers[0].batches


def test_pages_that_a_server_alters_are_not_caught() -> None:
    # docs/protocol.md, 9.2: what must be right has to be authenticated inside the pages.
    with two_servers() as servers, client(servers) as reader:
        servers[1].then(altered_pages)
        assert (reader.get([4]) == 255 - servers[0].table[[4]]).all()


def test_a_fault_of_one_client_does_not_reach_another() -> None:
    with two_servers() as servers, client(servers) as one, client(servers) as other:
        servers[0].then(instead(problem(500)))
        with pytest.raises(ServerError):
            one.get([4])
        assert (other.get([4]) == servers[0].table[[4]]).all()
