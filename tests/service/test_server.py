"""The server as a process: its answers, its log, its end, and the options that it refuses."""

from __future__ import annotations

import json
import re
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import trustme

import morphogen.service.table as reading
import morphogen.wire as wire
from morphogen.cli import main
from morphogen.keyword import build
from morphogen.keyword.file import write_table
from morphogen.service.listener import bind, listen
from morphogen.service.process import ServerProcess
from morphogen.wire import JSON, MSGPACK, QUERY_PATH
from naive import Bytes, naive_answers
from refusal import refusal
from served_table import (
    OPTIONS,
    PAGE_SIZE,
    SECONDS,
    ask,
    file,
    http,
    servers,
    some_queries,
    table,
)

__all__ = ["file", "http", "servers", "table"]


# Logs


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
    assert (started["root"], started["proof_levels"]) == (None, None)
    assert (answered["path"], answered["status"], answered["queries"]) == (QUERY_PATH, 200, 2)
    assert refused["status"] == 400
    assert (lost["path"], lost["status"]) == ("other", 404)
    assert stopped["answered"] == 2
    text = "\n".join(server.log)
    for key in (key for query in queries for key in query.keys):
        for at in range(16, len(key) - 8):
            assert key[at : at + 8].hex() not in text


def test_small_answers_do_not_wait_for_acknowledgements() -> None:
    with bind("127.0.0.1", 0) as listener:
        listen(listener)
        assert listener.proto == socket.IPPROTO_TCP  # else asyncio leaves Nagle's algorithm on
        with socket.create_connection(listener.getsockname(), SECONDS):
            accepted, _ = listener.accept()
            with accepted:
                assert accepted.proto == socket.IPPROTO_TCP


# The end


@pytest.fixture
def signals() -> Iterator[None]:
    """Have servers heed Ctrl-C, which a shell's background lets them ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("signals")
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
    assert code == (130 if stop == signal.SIGINT else 0)


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
        (
            ["--party", 0, "--port", 0, "--host", ""],
            "host must be a name or an address, not ''",
        ),
        (
            ["--party", 0, "--port", 0, "--metrics-host", ""],
            "metrics_host must be a name or an address, not ''",
        ),
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
    file: Path, arguments: list[object], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in refusal(capsys, file, "--page-size", PAGE_SIZE, *arguments)


def test_a_server_that_starts_instead_of_refusing_fails_the_test(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(pytest.fail.Exception, match=r"^the server started$"):
        refusal(capsys, file, "--party", 0, *OPTIONS)


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


# Keyword tables


def test_a_keyword_table_says_its_layout(tmp_path: Path, http: httpx.Client) -> None:
    path = tmp_path / "words.table"
    pages, layout = build([(b"one", b"1"), (b"two", b"2")], page_size=128)
    header = write_table(path, pages, layout)
    assert header.root is not None
    with ServerProcess(path, 0, ("--epoch", "3")) as server:
        info = http.get(server.url + "/epoch").json()
    assert info["table"] == layout.as_dict()
    assert (info["num_pages"], info["page_size"], info["epoch_id"]) == (*pages.shape, 3)
    assert info["digest"] == info["root"] == header.root.hex()
    raw = bytearray(path.read_bytes())
    raw[4096] ^= 1
    path.write_bytes(raw)
    run = run_serve(path, "--party", 0, "--port", 0)
    assert run.returncode == 2
    assert "was altered: its pages do not have the root of its header" in run.stderr


def test_options_that_do_not_fit_a_keyword_table_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "words.table"
    pages, layout = build([(b"one", b"1")], page_size=128)
    write_table(path, pages, layout)
    assert refusal(capsys, path, "--party", 0, "--page-size", 128) == (
        f"{path} is a keyword table, which says its page size itself: give none, not 128"
    )
    # This is refused before the pages are read: they were altered.
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    told = refusal(capsys, path, "--party", 0, "--keys-per-query", 2)
    assert told == "keys_per_query must be 3 for a keyword table, not 2"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--device", "cuda:99"), "cuda:99"),
        (("--device", "tpu"), "'tpu'"),
        (("--keys-per-query", "4"), "keys_per_query must be in 1..3, not 4"),
        (("--device", "cpu", "--threads", "0"), "threads must be in 1.."),
        (("--device", "cpu", "--max-micro-batch", "99"), "must be in 1..32 on cpu, not 99"),
    ],
)
def test_what_cannot_be_served_is_refused_before_the_pages_are_read(
    file: Path,
    options: tuple[str, ...],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def read(*_: object) -> str:
        raise AssertionError("the pages were read")

    monkeypatch.setattr(reading, "digest_pages", read)
    assert words in refusal(capsys, file, "--party", 0, *options)


def test_a_port_that_is_taken_is_refused_before_the_pages_are_read(
    file: Path,
    servers: list[ServerProcess],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(reading, "digest_pages", lambda *_: pytest.fail("the pages were read"))
    port = httpx.URL(servers[0].url).port
    told = refusal(capsys, file, "--party", 0, "--port", port)
    assert f"cannot listen on 127.0.0.1:{port}" in told


def test_extras_that_are_missing_are_named(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    for name in [name for name in sys.modules if name.startswith("morphogen.service.")]:
        monkeypatch.delitem(sys.modules, name)
    assert main(["serve", str(file), "--party", "0", "--port", "0"]) == 2
    assert "uvicorn is not installed: pip install 'morphogen[server]'" in capsys.readouterr().err
