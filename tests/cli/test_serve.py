"""The service amid clients that go away or send without end, and its metrics and health."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import pytest

import morphogen.service.run as serving
import morphogen.wire as wire
from morphogen.cli import main
from morphogen.service.config import ClusterConfig
from morphogen.service.process import ServerProcess
from morphogen.wire import JSON, MSGPACK, QUERY_PATH, SINGLE_PATH
from naive import random_pages
from refusal import refusal
from served_table import (
    PAGE_SIZE,
    PAGES,
    PROBLEM,
    SECONDS,
    LiveApp,
    ask,
    problem,
    some_queries,
)

CLUSTER = ("--cluster", "ray", "--shards", "4")


@pytest.fixture(scope="module")
def app() -> Iterator[LiveApp]:
    with LiveApp(random_pages(PAGES, PAGE_SIZE)) as live:
        yield live


@pytest.fixture
def impatient() -> Iterator[LiveApp]:
    with LiveApp(random_pages(PAGES, PAGE_SIZE), drain_seconds=0.01) as live:
        yield live


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False, timeout=SECONDS) as client:
        yield client


def connect(app: LiveApp, *headers: str) -> socket.socket:
    """A connection on which a request has begun: its body is up to the test."""
    lines = (f"POST {QUERY_PATH} HTTP/1.1", "Host: x", *headers, "", "")
    connection = socket.create_connection(app.listener.getsockname(), SECONDS)
    connection.sendall("\r\n".join(lines).encode())
    return connection


def requests_counted(http: httpx.Client, app: LiveApp, status: int) -> float:
    http.get(app.url + "/health/live")
    return sum(number for (_, said), number in app.metrics.requests.items() if said == str(status))


def send_often(connection: socket.socket, piece: bytes) -> None:
    for _ in range(10_000):
        connection.sendall(piece)


# Clients that do not keep to the rules


def test_who_sends_without_end_is_cut_off(app: LiveApp) -> None:
    piece = b"10000\r\n" + b" " * 65536 + b"\r\n"
    with (
        connect(app, f"Content-Type: {JSON}", "Transfer-Encoding: chunked") as connection,
        pytest.raises(ConnectionError),
    ):
        send_often(connection, piece)


def test_an_announced_body_that_is_too_large_is_refused_and_cut_off(impatient: LiveApp) -> None:
    with connect(impatient, f"Content-Type: {JSON}", "Content-Length: 100000000000") as connection:
        connection.sendall(b" " * 1000)
        with connection.makefile("rb") as answer:
            head, _, body = answer.read().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in head.lower()
    assert json.loads(body)["status"] == 413


def test_who_asks_before_sending_hears_of_the_wrong_content_type_at_once(app: LiveApp) -> None:
    with (
        connect(
            app, "Content-Type: text/plain", "Content-Length: 1000", "Expect: 100-continue"
        ) as connection,
        connection.makefile("rb") as answer,
    ):
        assert answer.readline().startswith(b"HTTP/1.1 415 ")


def test_a_refusal_before_the_end_of_a_body_leaves_the_connection_usable() -> None:
    patient = LiveApp(random_pages(PAGES, PAGE_SIZE))  # the body has the time that it takes
    with patient as app, httpx.Client(trust_env=False, timeout=SECONDS) as http:
        for _ in range(3):
            response = ask(http, app.url, b" " * 30_000, "text/plain")  # less than is read on
            problem(response, 415, "Content-Type")
            assert "connection" not in response.headers


def test_a_client_that_goes_away_is_no_failure_of_the_server(
    app: LiveApp, http: httpx.Client
) -> None:
    for number in range(1, 4):
        with connect(app, f"Content-Type: {JSON}", "Content-Length: 1000") as connection:
            connection.sendall(b"{")
        # Each round is a request over a socket, and the server has one loop for all.
        assert any(requests_counted(http, app, 499) == number for _ in range(1000))
    assert requests_counted(http, app, 500) == 0


@pytest.mark.parametrize("digits", [20, 4299, 4301, 30_000])
@pytest.mark.parametrize("name", ["epoch_id", "num_pages"])
def test_a_number_without_end_is_refused_and_not_said_again(
    app: LiveApp, http: httpx.Client, name: str, digits: int
) -> None:
    body = wire.encode_request(some_queries(1), content_type=JSON)
    longer = body[:-1] + f', "{name}": {"7" * digits}}}'.encode()
    response = ask(http, app.url, longer, JSON)
    assert "777" not in problem(response, 400, name)["detail"]


@pytest.mark.parametrize("attempt", range(3))
def test_a_server_told_to_stop_as_soon_as_it_is_known_stops(tmp_path: Path, attempt: int) -> None:
    path = tmp_path / "pages.bin"
    path.write_bytes(bytes(1000))
    with ServerProcess(path, 0, ("--page-size", "64", "--device", "cpu")) as server:
        server.process.terminate()  # its log says the port: it may not yet run
        assert server.process.wait(SECONDS) == 0


@pytest.mark.parametrize("threads", [1, 4])
def test_a_pass_has_the_threads_that_were_asked_for(tmp_path: Path, threads: int) -> None:
    path = tmp_path / "pages.bin"
    path.write_bytes(bytes(1000))

    def count(*options: str) -> int:
        with ServerProcess(path, 0, ("--page-size", "64", "--device", "cpu", *options)) as server:
            return len(list(Path(f"/proc/{server.process.pid}/task").iterdir()))

    assert count("--threads", str(threads + 3)) - count("--threads", str(threads)) == 3


def test_a_number_of_threads_that_cannot_be_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "pages.bin"
    path.write_bytes(bytes(1000))
    told = refusal(capsys, path, "--party", 0, "--device", "cpu", "--threads", 0)
    assert told == "threads must be in 1..1024, not 0"


# The OpenAPI document


@pytest.fixture(scope="module")
def document(app: LiveApp, http: httpx.Client) -> dict[str, Any]:
    found: dict[str, Any] = http.get(app.url + "/schema/openapi.json").json()
    return found


def described(document: dict[str, Any], response: httpx.Response) -> Any:
    """The schema of just this answer: path, method, status, content type."""
    request = response.request
    operation = document["paths"][request.url.path][request.method.lower()]
    kind = response.headers["Content-Type"].partition(";")[0]
    return operation["responses"][str(response.status_code)]["content"][kind]["schema"]


def check(document: dict[str, Any], response: httpx.Response, status: int) -> None:
    assert response.status_code == status
    jsonschema_rs.validate(described(document, response), response.json())


@pytest.mark.parametrize("path", ["/epoch", "/health", "/health/live", "/health/ready"])
def test_what_is_got_is_as_described(
    app: LiveApp, http: httpx.Client, document: dict[str, Any], path: str
) -> None:
    response = http.get(app.url + path)
    check(document, response, 200)
    assert set(described(document, response)["properties"]) == set(response.json())


def test_requests_and_answers_are_as_described(
    app: LiveApp, http: httpx.Client, document: dict[str, Any]
) -> None:
    batch = json.loads(wire.encode_request(some_queries(32), content_type=JSON))
    for path, body in ((QUERY_PATH, batch), (SINGLE_PATH, batch["queries"][0])):
        content = document["paths"][path]["post"]["requestBody"]["content"]
        assert set(content) == {JSON, MSGPACK}
        for more in ({}, {"epoch_id": None}, {"epoch_id": 5, "num_pages": PAGES}):
            whole = body | more
            jsonschema_rs.validate(content[JSON]["schema"], whole)
            check(document, ask(http, app.url, json.dumps(whole).encode(), JSON, path), 200)
        for status, wrong in ((400, body | {"x": 1}), (400, {}), (409, body | {"epoch_id": 4})):
            response = ask(http, app.url, json.dumps(wrong).encode(), JSON, path)
            check(document, response, status)
            assert response.headers["Content-Type"] == PROBLEM
            if status == 400:
                assert not jsonschema_rs.is_valid(content[JSON]["schema"], wrong)


def test_not_ready_is_as_described(http: httpx.Client) -> None:
    with LiveApp(random_pages(PAGES, PAGE_SIZE)) as app:
        document = http.get(app.url + "/schema/openapi.json").json()
        app.batcher.close()
        for path in ("/health", "/health/ready"):
            check(document, http.get(app.url + path), 503)


def test_options_reach_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[serving.ServerConfig] = []
    monkeypatch.setattr(serving, "serve", lambda config, progress: seen.append(config))
    options = ["--log-level", "error", "--page-size", "1k"]
    assert main(["serve", "pages", "--party", "1", "--port", "9", *options]) == 0
    (config,) = seen
    assert (config.path, config.party, config.port) == (Path("pages"), 1, 9)
    assert (config.log_level, config.page_size) == ("error", 1024)
    assert (config.paths, config.epoch) == ({"": Path("pages")}, None)
    assert (config.watch, config.owner) == (None, None)


def test_options_of_epochs_and_tables_reach_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[serving.ServerConfig] = []
    monkeypatch.setattr(serving, "serve", lambda config, progress: seen.append(config))
    options = ["--watch", "2.5", "--owner", "ab" * 32, "--epoch", "7"]
    tables = ["--table", "one=a/b=c", "--table", "two.2=d"]
    assert main(["serve", "--party", "1", "--port", "9", *options, *tables]) == 0
    (config,) = seen
    assert config.paths == {"one": Path("a/b=c"), "two.2": Path("d")}
    assert (config.watch, config.owner, config.epoch) == (2.5, bytes.fromhex("ab" * 32), 7)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "give one table's path, or tables"),
        (["pages", "--table", "a=b"], "give one table's path, or tables"),
        (
            ["--table", "a=b", "--table", "a=c"],
            "each --table must have a name of its own, not 'a' twice",
        ),
        (["--table", "a"], "must be NAME=PATH, not 'a'"),
        (["--table", "=b"], "must be NAME=PATH"),
        (["--table", "a/b=c"], "a table's name must be"),
        (["pages", "--watch", "0"], "watch must be"),
        (
            ["pages", "--owner", "xy"],
            "owner must be 64 hexadecimal digits, not 2 characters with 'x' among them",
        ),
        (["pages", "--owner", "ab" * 31], "owner must be 64 hexadecimal digits, not 62"),
        (["pages", "--owner", "ab " * 32], "owner must be 64 hexadecimal digits, not 96"),
        (["pages", "--owner", ""], "owner must be 64 hexadecimal digits, not 0"),
        (["pages", "--epoch", "-1"], "epoch must be in"),
    ],
)
def test_options_of_epochs_and_tables_that_do_not_fit_are_refused(
    options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in refusal(capsys, "--party", 0, *options)


def test_options_of_a_cluster_reach_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[serving.ServerConfig] = []
    monkeypatch.setattr(serving, "serve", lambda config, progress: seen.append(config))
    few = ["serve", "pages", "--party", "1", "--port", "9", "--cluster", "ray", "--shards", "4"]
    more = ["--replicas", "2", "--address", "one:6379", "--shard-timeout", "3", "--hedge", "0.5"]
    for options in ([], more):
        assert main([*few, *options]) == 0
    assert [config.cluster for config in seen] == [
        ClusterConfig(shards=4),
        ClusterConfig(shards=4, replicas=2, address="one:6379", timeout=3, hedge=0.5),
    ]
    assert main([*few[:-4], "--threads", "1"]) == 0
    assert seen[-1].cluster is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["pages", "--shards", "4"], "--shards is for a cluster: give --cluster ray, too"),
        (["pages", "--hedge", "1"], "--hedge is for a cluster"),
        (["pages", "--shard-timeout", "1"], "--shard-timeout is for a cluster"),
        (["pages", "--cluster", "ray"], "--cluster ray needs --shards"),
        (["pages", "--cluster", "dask", "--shards", "4"], "invalid choice: 'dask'"),
        (["-", "--cluster", "ray", "--shards", "4"], "a file that every host can open"),
        (["pages", "--cluster", "ray", "--shards", "0"], "shards must be in 1..4096, not 0"),
        (["pages", *CLUSTER, "--replicas", "0"], "replicas must be in 1..64, not 0"),
        (["pages", *CLUSTER, "--address", ""], "address must be 'local', or HOST:PORT"),
        (["pages", *CLUSTER, "--shard-timeout", "0"], "shard_timeout must be above 0 seconds"),
        (["pages", *CLUSTER, "--replicas", "2", "--hedge", "-1"], "hedge must be above 0"),
        (["pages", *CLUSTER, "--hedge", "1"], "hedge needs 2 replicas or more, not 1"),
        (
            ["pages", *CLUSTER, "--replicas", "2", "--hedge", "2", "--shard-timeout", "1"],
            "hedge must be below the timeout of shards, 1.0 s, not 2.0 s",
        ),
    ],
)
def test_options_of_a_cluster_that_do_not_fit_are_refused(
    options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in refusal(capsys, "--party", 0, *options)


def test_a_level_that_the_log_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match="must be one of info, warning, error, not 'loud'"):
        serving.ServerConfig(path=Path("pages"), party=0, log_level="loud")
