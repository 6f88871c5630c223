"""The service: real processes, real sockets, every status with its problem document."""

from __future__ import annotations

import json
import random
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
import schemathesis
import trustme
import uvicorn
from hypothesis import HealthCheck, Phase, given, settings
from prometheus_client.parser import text_string_to_metric_families

import morphogen as mg
from conftest import Bytes, naive_answers, open_engine, random_rows, random_table
from held_engine import HeldEngine
from morphogen import server as serving, wire
from morphogen.cli import main
from morphogen.keyword import build
from morphogen.server_process import ServerProcess
from morphogen.service import create_app, describe_table
from morphogen.table_file import write_table
from morphogen.wire import JSON, MSGPACK, QUERY_PATH, SINGLE_PATH

PAGES, PAGE_SIZE = 700, 48
EPOCH = 5
SECONDS = 30
PROBLEM = "application/problem+json"


@pytest.fixture(scope="module")
def table() -> Bytes:
    return random_table(PAGES, PAGE_SIZE)


@pytest.fixture(scope="module")
def file(table: Bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("service") / "pages.bin"
    table.tofile(path)
    return path


OPTIONS = ("--page-size", str(PAGE_SIZE), "--epoch", str(EPOCH), "--device", "cpu")


@pytest.fixture(scope="module")
def servers(file: Path) -> Iterator[list[ServerProcess]]:
    with ServerProcess(file, 0, OPTIONS) as zero, ServerProcess(file, 1, OPTIONS) as one:
        yield [zero, one]


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False, timeout=SECONDS) as client:
        yield client


def some_queries(total: int, party: int = 0, seed: int = 0) -> list[mg.Query]:
    return mg.make_queries(random_rows(total, 3, PAGES, seed), PAGES)[party]


def ask(http: httpx.Client, url: str, body: Any, kind: str, path: str = QUERY_PATH) -> Any:
    return http.post(url + path, content=body, headers={"Content-Type": kind})


def problem(response: httpx.Response, status: int, field: str = "") -> dict[str, Any]:
    """A problem document, checked."""
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == PROBLEM
    document: dict[str, Any] = response.json()
    assert document["status"] == status
    assert document["title"]
    assert document["detail"]
    assert document.get("field", "") == field
    return document


class LiveApp:
    """The application on a socket in this process, over an engine that a test can hold."""

    def __init__(self, table: Bytes, *, max_wait: float = SECONDS, **options: Any) -> None:
        self.engine = HeldEngine(open_engine(mg.PageMatrix(table, EPOCH), threads=1), 2)
        self.batcher = mg.MicroBatcher(self.engine, **options)
        app = create_app(self.batcher, describe_table(self.engine, 0), max_wait=max_wait)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        config = uvicorn.Config(app, lifespan="on", log_config=None, access_log=False)
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, args=([self.listener],))
        self.thread.start()

    def __enter__(self) -> LiveApp:
        return self

    def __exit__(self, *_: object) -> None:
        self.engine.held.set()
        self.server.should_exit = True
        self.thread.join(SECONDS)
        self.listener.close()
        self.batcher.close()
        self.engine.close()


@pytest.fixture
def live(table: Bytes) -> Iterator[LiveApp]:
    with LiveApp(table, max_queued=4) as app:
        yield app


# Answers


@pytest.mark.parametrize("kind", [JSON, MSGPACK])
@pytest.mark.parametrize("total", [1, 2, 5, 32])
def test_both_servers_answers_give_the_pages(
    servers: list[ServerProcess], http: httpx.Client, table: Bytes, kind: str, total: int
) -> None:
    rows = random_rows(total, 3, PAGES)
    pages = []
    for server, queries in zip(servers, mg.make_queries(rows, PAGES), strict=True):
        info = wire.decode_info(http.get(server.url + "/epoch").content)
        response = ask(http, server.url, wire.encode_request(queries, content_type=kind), kind)
        assert response.status_code == 200
        assert response.headers["Content-Type"] == kind
        decoded = wire.decode_response(response.content, kind, info, total)
        np.testing.assert_array_equal(decoded.pages, naive_answers(table, queries))
        assert (decoded.epoch_id, decoded.num_pages, decoded.digest) == (EPOCH, PAGES, info.digest)
        pages.append(decoded.pages)
    np.testing.assert_array_equal(pages[0] ^ pages[1], table[rows])


@pytest.mark.parametrize("kind", [JSON, MSGPACK])
def test_one_query(
    servers: list[ServerProcess], http: httpx.Client, table: Bytes, kind: str
) -> None:
    (query,) = some_queries(1)
    keys = [key if kind == MSGPACK else "0x" + key.hex() for key in query.keys]
    whole = {"keys": keys, "epoch_id": EPOCH, "num_pages": PAGES}
    codec: Any = msgspec.json if kind == JSON else msgspec.msgpack
    response = ask(http, servers[0].url, codec.encode(whole), kind, SINGLE_PATH)
    body = codec.decode(response.content)
    assert set(body) == {"epoch_id", "num_pages", "digest", "pages"}
    got = [bytes.fromhex(page[2:]) if kind == JSON else page for page in body["pages"]]
    assert got == [page.tobytes() for page in naive_answers(table, [query])[0]]


def test_the_table_is_described(
    servers: list[ServerProcess], http: httpx.Client, table: Bytes
) -> None:
    for party, server in enumerate(servers):
        assert http.get(server.url + "/epoch").json() == {
            "party": party,
            "epoch_id": EPOCH,
            "num_pages": PAGES,
            "page_size": PAGE_SIZE,
            "keys_per_query": 3,
            "format_version": 1,
            "digest": sha256(table.tobytes()).hexdigest(),
            "device": "cpu",
            "table": None,
        }


def test_a_short_last_page_is_part_of_the_digest(tmp_path: Path, http: httpx.Client) -> None:
    path = tmp_path / "odd.bin"
    path.write_bytes(b"x" * 100)
    with ServerProcess(path, 1, ("--page-size", "64", "--keys-per-query", "1")) as server:
        info = http.get(server.url + "/epoch").json()
        assert (info["num_pages"], info["keys_per_query"]) == (2, 1)
        assert info["digest"] == sha256(b"x" * 100 + bytes(28)).hexdigest()
        query = mg.make_query([1], 2)[1]
        body = wire.encode_request([query], content_type=JSON)
        assert ask(http, server.url, body, JSON).status_code == 200


def test_live_and_ready(servers: list[ServerProcess], http: httpx.Client) -> None:
    assert http.get(servers[0].url + "/health").json() == {"live": True, "ready": True}
    assert http.get(servers[0].url + "/health/live").json() == {"live": True}
    assert http.get(servers[0].url + "/health/ready").json() == {"ready": True}


def test_live_but_not_ready_once_the_batcher_is_closed(live: LiveApp, http: httpx.Client) -> None:
    live.batcher.close()
    assert http.get(live.url + "/health/live").status_code == 200
    for path in ("/health", "/health/ready"):
        response = http.get(live.url + path)
        assert response.status_code == 503
        assert response.json()["ready"] is False
    body = wire.encode_request(some_queries(1))
    assert "shutting down" in problem(ask(http, live.url, body, MSGPACK), 503)["detail"]


# Refusals


@pytest.mark.parametrize(
    ("body", "kind", "status", "field"),
    [
        (b"", JSON, 400, ""),
        (b"{", JSON, 400, ""),
        (b"\xff", JSON, 400, ""),
        (b"", MSGPACK, 400, ""),
        (b"\xc1", MSGPACK, 400, ""),
        (b"[]", JSON, 400, ""),
        (b'{"queries": []}', JSON, 400, "queries"),
        (b'{"queries": [{"keys": ["0x"]}]}', JSON, 400, "queries[0].keys"),
        (b'{"queries": [{"keys": ["0x", "0x", "0x"]}]}', JSON, 400, "queries[0].keys[0]"),
        (wire.encode_request(some_queries(33)), MSGPACK, 413, "queries"),
        (b" " * 200_000, JSON, 413, ""),
        (wire.encode_request(some_queries(1)), "text/plain", 415, "Content-Type"),
        (wire.encode_request(some_queries(2, party=1)), MSGPACK, 409, "queries[0].keys[0]"),
        (
            wire.encode_request([mg.make_query([1, 2, 3], 9000)[0]]),
            MSGPACK,
            409,
            "queries[0].keys[0]",
        ),
        (wire.encode_request(some_queries(1), epoch_id=4), MSGPACK, 409, "epoch_id"),
        (wire.encode_request(some_queries(1), num_pages=701), MSGPACK, 409, "num_pages"),
    ],
)
def test_what_is_refused(
    servers: list[ServerProcess],
    http: httpx.Client,
    body: bytes,
    kind: str,
    status: int,
    field: str,
) -> None:
    problem(ask(http, servers[0].url, body, kind), status, field)


def test_paths_and_methods_that_are_not_there(
    servers: list[ServerProcess], http: httpx.Client
) -> None:
    problem(http.get(servers[0].url + "/nothing"), 404)
    problem(http.get(servers[0].url + QUERY_PATH), 405)
    problem(http.post(servers[0].url + "/epoch"), 405)


def test_a_chunked_body_without_end_is_cut(servers: list[ServerProcess]) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(1000):
            yield b" " * 10_000

    with httpx.Client(trust_env=False, timeout=SECONDS) as http:
        try:
            response = ask(http, servers[0].url, endless(), JSON)
        except (httpx.WriteError, httpx.RemoteProtocolError):
            return  # the server had closed before all was sent
        problem(response, 413)


@pytest.mark.parametrize("kind", [JSON, MSGPACK])
def test_mutated_bodies_never_make_the_server_fail(
    servers: list[ServerProcess], http: httpx.Client, kind: str
) -> None:
    _mutate(servers[0], http, kind, 250)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [JSON, MSGPACK])
def test_ten_thousand_mutated_bodies(
    servers: list[ServerProcess], http: httpx.Client, kind: str
) -> None:
    _mutate(servers[0], http, kind, 5000)


def _mutate(server: ServerProcess, http: httpx.Client, kind: str, count: int) -> None:
    choice = random.Random(kind)
    whole = wire.encode_request(some_queries(2), epoch_id=EPOCH, content_type=kind)
    for _ in range(count):
        body = bytearray(whole)
        for _ in range(choice.randint(1, 4)):
            at = choice.randrange(len(body))
            match choice.randrange(3):
                case 0:
                    body[at] = choice.randrange(256)
                case 1:
                    del body[at : at + choice.randint(1, 9)]
                case _:
                    body[at:at] = choice.randbytes(choice.randint(1, 9))
        response = ask(http, server.url, bytes(body), kind)
        if response.status_code != 200:
            assert response.status_code in (400, 409, 413)
            problem(response, response.status_code, response.json().get("field", ""))
    body = wire.encode_request(some_queries(1), content_type=kind)
    assert ask(http, server.url, body, kind).status_code == 200


def test_what_the_openapi_document_allows_never_makes_the_server_fail(
    servers: list[ServerProcess],
) -> None:
    schema = schemathesis.openapi.from_url(servers[0].url + "/schema/openapi.json")
    operations = {result.ok().label for result in schema.get_all_operations()}
    assert {f"POST {QUERY_PATH}", f"POST {SINGLE_PATH}", "GET /epoch", "GET /metrics"} <= operations

    for result in schema.get_all_operations():
        operation = result.ok()

        @settings(
            max_examples=25,
            deadline=None,
            database=None,
            phases=(Phase.explicit, Phase.generate),
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def call(case: Any) -> None:
            case.call_and_validate(checks=[schemathesis.checks.not_a_server_error])

        call()


# Load


def test_small_answers_do_not_wait_for_acknowledgements(tmp_path: Path) -> None:
    with serving._bind(serving.ServerConfig(path=tmp_path, party=0)) as listener:
        assert listener.proto == socket.IPPROTO_TCP  # else asyncio leaves Nagle's algorithm on
        with socket.create_connection(listener.getsockname(), SECONDS):
            accepted, _ = listener.accept()
            with accepted:
                assert accepted.proto == socket.IPPROTO_TCP


def test_more_than_may_wait_is_told_to_come_back(live: LiveApp, http: httpx.Client) -> None:
    live.engine.held.clear()
    body = wire.encode_request(some_queries(1))
    with ThreadPoolExecutor(2) as pool, httpx.Client(trust_env=False, timeout=SECONDS) as other:
        first = pool.submit(ask, other, live.url, body, MSGPACK)
        assert live.engine.begun.acquire(timeout=SECONDS)
        response = ask(http, live.url, wire.encode_request(some_queries(5)), MSGPACK)
        assert "5 more cannot" in problem(response, 429)["detail"]
        assert int(response.headers["Retry-After"]) >= 1
        live.engine.held.set()
        assert first.result(SECONDS).status_code == 200


def test_who_waits_for_too_long_is_told_so(table: Bytes, http: httpx.Client) -> None:
    body = wire.encode_request(some_queries(1))
    with LiveApp(table, max_wait=0.01) as live:
        live.engine.held.clear()
        (first,) = live.batcher.submit_many(some_queries(1))
        assert live.engine.begun.acquire(timeout=SECONDS)
        response = ask(http, live.url, body, MSGPACK)
        assert "waited" in problem(response, 503)["detail"]
        assert int(response.headers["Retry-After"]) >= 1
        live.engine.held.set()
        assert first.result(SECONDS).pages.any()


def test_requests_share_chunks(live: LiveApp, table: Bytes) -> None:
    live.engine.held.clear()
    callers = 4

    def one(seed: int) -> None:
        queries = some_queries(1, seed=seed)
        with httpx.Client(trust_env=False, timeout=SECONDS) as http:
            response = ask(http, live.url, wire.encode_request(queries), MSGPACK)
        info = describe_table(live.engine, 0)
        got = wire.decode_response(response.content, MSGPACK, info, 1)
        np.testing.assert_array_equal(got.pages, naive_answers(table, queries))

    with ThreadPoolExecutor(callers) as pool:
        first = pool.submit(one, 0)
        assert live.engine.begun.acquire(timeout=SECONDS)
        others = [pool.submit(one, seed) for seed in range(1, callers)]
        while live.batcher.statistics().queued < callers - 1:
            threading.Event().wait(0.001)
        live.engine.held.set()
        for done in (first, *others):
            done.result(SECONDS)
    assert live.engine.chunks == [1, 2, 1]


def test_a_client_that_goes_away_harms_nobody(live: LiveApp, http: httpx.Client) -> None:
    live.engine.held.clear()
    body = wire.encode_request(some_queries(1))
    head = (
        f"POST {QUERY_PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: {MSGPACK}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    address = live.listener.getsockname()
    with socket.create_connection(address, SECONDS) as gone:
        gone.sendall(head.encode() + body)
        assert live.engine.begun.acquire(timeout=SECONDS)
    with socket.create_connection(address, SECONDS) as gone:
        gone.sendall(head.encode() + body[:10])
    live.engine.held.set()
    assert ask(http, live.url, body, MSGPACK).status_code == 200


def test_an_engine_that_fails_is_a_problem_that_says_no_more(
    live: LiveApp, http: httpx.Client
) -> None:
    body = wire.encode_request(some_queries(1))
    live.engine.error = mg.DeviceError("secret detail")
    assert "secret" not in str(problem(ask(http, live.url, body, MSGPACK), 503))
    live.engine.error = RuntimeError("secret detail")
    assert "secret" not in str(problem(ask(http, live.url, body, MSGPACK), 500))
    live.engine.error = None
    assert ask(http, live.url, body, MSGPACK).status_code == 200


# Metrics and log


def test_metrics(live: LiveApp, http: httpx.Client) -> None:
    for total in (1, 3):
        ask(http, live.url, wire.encode_request(some_queries(total)), MSGPACK)
    ask(http, live.url, b"", MSGPACK)
    http.get(live.url + "/anything/at/all")
    text = http.get(live.url + "/metrics").text
    samples = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["morphogen_queries_total", ("outcome", "answered")] == 4
    assert samples["morphogen_chunk_size_bucket", ("le", "1.0")] == 2
    assert samples["morphogen_chunk_size_bucket", ("le", "2.0")] == 3
    assert samples["morphogen_chunk_size_sum",] == 4
    assert samples["morphogen_epoch",] == EPOCH
    assert samples["morphogen_queue_depth",] == 0
    assert samples["morphogen_server_info", ("device", "cpu"), ("party", "0")] == 1
    for phase, count in (("decode", 2), ("answer", 2), ("encode", 2)):
        assert samples["morphogen_phase_seconds_count", ("phase", phase)] == count
    for path, status, count in (
        (QUERY_PATH, "200", 2),
        (QUERY_PATH, "400", 1),
        ("other", "404", 1),
    ):
        key = ("morphogen_requests_total", ("path", path), ("status", status))
        assert samples[key] == count


def test_the_log_is_structured_and_holds_no_keys(file: Path, http: httpx.Client) -> None:
    with ServerProcess(file, 0, OPTIONS) as server:
        queries = some_queries(2)
        body = wire.encode_request(queries, content_type=JSON)
        ask(http, server.url, body, JSON)
        ask(http, server.url, body[:-9], JSON)
        http.get(f"{server.url}/x?{queries[0].keys[0].hex()}")
    assert server.stop() == 0
    events = [json.loads(line) for line in server.log]
    assert [event["event"] for event in events] == ["started", *["request"] * 3, "stopped"]
    started, answered, refused, lost, stopped = events
    assert started["url"] == server.url
    assert (answered["path"], answered["status"], answered["queries"]) == (QUERY_PATH, 200, 2)
    assert refused["status"] == 400
    assert (lost["path"], lost["status"]) == ("other", 404)
    assert stopped["answered"] == 2
    text = "\n".join(server.log)
    for key in (key for query in queries for key in query.keys):
        for at in range(16, len(key) - 8):
            assert key[at : at + 8].hex() not in text


# The end


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_what_was_accepted_is_answered_before_the_end(file: Path, stop: signal.Signals) -> None:
    body = wire.encode_request(some_queries(2))
    with ServerProcess(file, 0, OPTIONS) as server:
        url = httpx.URL(server.url)
        assert url.port is not None
        with socket.create_connection((url.host, url.port), SECONDS) as connection:
            connection.sendall(
                f"POST {QUERY_PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: {MSGPACK}\r\n"
                f"Content-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n".encode()
            )
            assert connection.recv(1000).startswith(b"HTTP/1.1 100 ")
            server.process.send_signal(stop)
            while True:  # until it listens no more
                try:
                    socket.create_connection((url.host, url.port), SECONDS).close()
                except ConnectionError:
                    break
            connection.sendall(body)
            with connection.makefile("rb") as answer:
                assert answer.readline().startswith(b"HTTP/1.1 200 ")
                assert len(answer.read()) > 6 * PAGE_SIZE
        code = server.process.wait(SECONDS)
    last = [json.loads(line) for line in server.log if line.startswith("{")][-1]
    assert (last["event"], last["answered"]) == ("stopped", 2)
    assert code == (0 if stop == signal.SIGTERM else 130)


def run_serve(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "morphogen", "serve", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--party", 2, "--port", 0], "invalid choice: 2"),
        (["--port", 0], "required: --party"),
        (["--party", 0, "--port", 65536], "port must be in 0..65535, not 65536"),
        (["--party", 0, "--port", 0, "--host", "0.0.0.0"], "0.0.0.0 is not loopback"),
        (["--party", 0, "--port", 0, "--host", "::"], ":: is not loopback"),
        (["--party", 0, "--port", 0, "--tls-cert", "x"], "its key go together"),
        (
            ["--party", 0, "--port", 0, "--tls-cert", "missing", "--tls-key", "missing"],
            "missing: No such file",
        ),
        (["--party", 0, "--port", 0, "--keys-per-query", 4], "must be in 1..3, not 4"),
        (
            ["--party", 0, "--port", 0, "--max-queued", 0],
            "max_queued must be at least 32, the queries of one request, not 0",
        ),
        (["--party", 0, "--port", 0, "--max-wait", 0], "max_wait must be above 0 seconds, not 0"),
        (["--party", 0, "--port", 0, "--max-micro-batch", 99], "must be in 1..32 on cpu, not 99"),
        (["--party", 0, "--port", 0, "--epoch", -1], "epoch must be in 0.."),
        (["--party", 0, "--port", 0, "--device", "tpu"], "not 'tpu'"),
    ],
)
def test_what_is_refused_before_anything_is_served(
    file: Path, arguments: list[object], words: str
) -> None:
    run = run_serve(file, "--page-size", PAGE_SIZE, *arguments)
    assert run.returncode == 2
    assert words in run.stderr
    assert "Traceback" not in run.stderr


def test_a_port_that_is_taken(file: Path, servers: list[ServerProcess]) -> None:
    port = httpx.URL(servers[0].url).port
    run = run_serve(file, "--party", 0, "--port", port)
    assert run.returncode == 2
    assert re.search(rf"cannot listen on 127\.0\.0\.1:{port}: .*in use", run.stderr)


def test_a_file_that_is_missing_or_empty(tmp_path: Path) -> None:
    assert "No such file" in run_serve(tmp_path / "no", "--party", 0, "--port", 0).stderr
    (tmp_path / "empty").touch()
    assert "has 0" in run_serve(tmp_path / "empty", "--party", 0, "--port", 0).stderr


# TLS


def test_tls(file: Path, tmp_path: Path, table: Bytes) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(cert, append=True)
    certificate.private_key_pem.write_to_path(key)
    options = (*OPTIONS, "--tls-cert", str(cert), "--tls-key", str(key))
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    queries = some_queries(1)
    with ServerProcess(file, 0, options) as server:
        assert server.url.startswith("https://")
        with httpx.Client(trust_env=False, verify=trusting, timeout=SECONDS) as http:
            info = wire.decode_info(http.get(server.url + "/epoch").content)
            response = ask(http, server.url, wire.encode_request(queries), MSGPACK)
            got = wire.decode_response(response.content, MSGPACK, info, 1)
            np.testing.assert_array_equal(got.pages, naive_answers(table, queries))
        with (
            httpx.Client(trust_env=False, timeout=SECONDS) as stranger,
            pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"),
        ):
            stranger.get(server.url + "/epoch")
    mixed = run_serve(
        file, "--party", 0, "--port", 0, "--tls-cert", cert, "--tls-key", cert, "--page-size", 48
    )
    assert mixed.returncode == 2
    assert "not a certificate and its key" in mixed.stderr


# Keyword tables


def test_a_keyword_table_says_its_layout(tmp_path: Path, http: httpx.Client) -> None:
    path = tmp_path / "words.table"
    pages, layout = build([(b"one", b"1"), (b"two", b"2")], page_size=128)
    write_table(path, pages, layout)
    with ServerProcess(path, 0, ("--epoch", "3")) as server:
        info = http.get(server.url + "/epoch").json()
    assert info["table"] == layout.as_dict()
    assert (info["num_pages"], info["page_size"], info["epoch_id"]) == (*pages.shape, 3)
    assert info["digest"] == sha256(pages.tobytes()).hexdigest()
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    run = run_serve(path, "--party", 0, "--port", 0)
    assert run.returncode == 2
    assert "was altered: its pages do not have their SHA-256" in run.stderr


def test_extras_that_are_missing_are_named(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "morphogen.server", raising=False)
    assert main(["serve", str(file), "--party", "0", "--port", "0"]) == 2
    assert "uvicorn is not installed: install morphogen with" in capsys.readouterr().err
