"""What operators rely on: metrics of their own, a log of JSON, no orders from the environment."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from crowd import LoggedServer, get
from morphogen.service.process import ServerProcess
from refusal import refusal
from served_table import OPTIONS, SECONDS, file, http, servers, table

__all__ = ["file", "http", "servers", "table"]

PATHS = ("/health", "/health/live", "/health/ready", "/epoch", "/schema/openapi.json")


def address_of(server: ServerProcess) -> tuple[str, int]:
    url = httpx.URL(server.url)
    assert url.port is not None
    return url.host, url.port


# Metrics


def test_metrics_are_on_a_port_of_their_own(
    servers: list[ServerProcess], http: httpx.Client
) -> None:
    assert http.get(servers[0].url + "/metrics").status_code == 404
    shown = http.get(servers[0].metrics_url)
    assert shown.status_code == 200
    assert shown.headers["Content-Type"] == CONTENT_TYPE_LATEST
    assert 'morphogen_requests_total{path="other",status="404"}' in shown.text
    head = http.head(servers[0].metrics_url)
    assert (head.status_code, head.content) == (200, b"")
    assert http.post(servers[0].metrics_url).status_code == 405
    assert http.get(servers[0].metrics_url.replace("/metrics", "/epoch")).status_code == 404


def test_there_are_no_metrics_where_none_are_asked_for(file: Path) -> None:
    with LoggedServer(file, OPTIONS) as server:
        assert "metrics_url" not in server.events[0]
        assert get(server.address, "/metrics").startswith(b"HTTP/1.1 404 ")


def test_metrics_beyond_loopback_need_tls(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = refusal(capsys, file, "--party", 0, "--metrics-host", "0.0.0.0")
    assert "0.0.0.0 is not loopback: whoever sees the metrics" in told


def test_a_metrics_port_that_is_taken_is_named(
    file: Path, servers: list[ServerProcess], capsys: pytest.CaptureFixture[str]
) -> None:
    port = httpx.URL(servers[0].metrics_url).port
    told = refusal(capsys, file, "--party", 0, "--metrics-port", port)
    assert f"cannot listen on 127.0.0.1:{port}" in told


# Requests


@pytest.mark.parametrize("path", PATHS)
def test_head_is_get_without_its_body(
    servers: list[ServerProcess], http: httpx.Client, path: str
) -> None:
    whole, head = http.get(servers[0].url + path), http.head(servers[0].url + path)
    assert (head.status_code, head.content) == (200, b"")
    assert {**head.headers, "date": ""} == {**whole.headers, "date": ""}


@pytest.mark.parametrize("path", ["/query/page/gpu", "/nothing"])
def test_head_is_refused_as_get_is(
    servers: list[ServerProcess], http: httpx.Client, path: str
) -> None:
    whole, head = http.get(servers[0].url + path), http.head(servers[0].url + path)
    assert (head.status_code, head.content) == (whole.status_code, b"")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("scheme", ["http", "https", "HTTP"])
def test_a_request_may_name_the_whole_url(
    servers: list[ServerProcess], path: str, scheme: str
) -> None:
    address = address_of(servers[0])
    assert get(address, f"{scheme}://any.example:80{path}").startswith(b"HTTP/1.1 200 ")
    assert get(address, f"{scheme}://any.example/x").startswith(b"HTTP/1.1 404 ")
    assert get(address, f"{scheme}://any.example").startswith(b"HTTP/1.1 404 ")


def test_a_method_of_any_length_is_not_logged(file: Path) -> None:
    with LoggedServer(file, OPTIONS) as server:
        for method in ("BREW", "X" * 60_000, "get"):
            assert get(server.address, method=method).startswith(b"HTTP/1.1 4")
        server.stop()
        told = [event["method"] for event in server.events if event["event"] == "request"]
        assert set(told) == {"other"}
        assert max(map(len, server.lines)) < 600


# The log


LATE = """
import asyncio, logging, threading, warnings
from morphogen.service.logs import set_up_logs
set_up_logs()
loop = asyncio.new_event_loop()
for name, level in (("asyncio", 40), ("uvicorn.error", 30), ("any.library", 30)):
    logging.getLogger(name).log(level, "first\\nsecret %s", "secret" * 1000)
logging.getLogger("any.library").info("secret")
loop.call_exception_handler({"message": "it failed", "exception": OSError("secret")})
warnings.warn("an old way", DeprecationWarning)
def fail(): raise ValueError("secret")
thread = threading.Thread(target=fail)
thread.start()
thread.join()
class Late:
    def __del__(self): raise KeyError("secret")
Late()
loop.close()
"""


def test_whatever_is_written_to_the_log_is_json_and_short() -> None:
    command = [sys.executable, "-W", "always", "-c", LATE]
    run = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True)
    lines = [json.loads(line) for line in run.stderr.splitlines()]
    assert "secret" not in run.stderr
    assert [line.get("logger", line["event"]) for line in lines] == [
        *("asyncio", "uvicorn.error", "any.library", "asyncio", "py.warnings", "error", "error")
    ]
    assert [line["message"] for line in lines[:4]] == ["first", "first", "first", "it failed"]
    assert [line.get("error") for line in lines[3:]] == ["OSError", None, "ValueError", "KeyError"]


# The environment


@pytest.mark.slow
@pytest.mark.parametrize(
    "variables",
    [
        {"PROMETHEUS_MULTIPROC_DIR": "metrics"},
        {"PROMETHEUS_MULTIPROC_DIR": "missing"},
        {"prometheus_multiproc_dir": "metrics"},
        {"WEB_CONCURRENCY": "many"},
        {"LITESTAR_DEBUG": "1", "LITESTAR_PDB": "1"},
    ],
    ids=lambda variables: "-".join(variables),
)
def test_the_environment_gives_no_orders_to_libraries(
    file: Path, tmp_path: Path, variables: dict[str, str]
) -> None:
    folder = tmp_path / "metrics"
    folder.mkdir()
    values = {
        name: str(tmp_path / value) if value in ("metrics", "missing") else value
        for name, value in variables.items()
    }
    environment = {**os.environ, **values}
    with LoggedServer(file, (*OPTIONS, "--metrics-port", "0"), environment=environment) as server:
        assert get(server.address).startswith(b"HTTP/1.1 200 ")
        shown = httpx.get(server.events[0]["metrics_url"], trust_env=False).text
        assert 'morphogen_requests_total{path="/health",status="200"} 1' in shown
        body = get(server.address, "/nothing").partition(b"\r\n\r\n")[2]
        assert json.loads(body)["title"] == "Not Found"
        assert server.stop() == 0
    assert not list(folder.iterdir())


# Forks


FORK = """
import os, sys
import numpy as np, uvicorn
import morphogen as mg
from morphogen.service import create_app, describe_table

engine = mg.open_engine(mg.PageMatrix(np.zeros((900, 64), dtype=np.uint8)), device="cpu")
batcher = mg.MicroBatcher(engine)
batcher.submit(mg.make_query([1, 2, 3], 900)[0]).result()
info = describe_table(engine, 0)
child = os.fork()
if child:
    print(os.getpid(), child, flush=True)
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
if sys.argv[1] == "engine":
    batcher = mg.MicroBatcher(engine)
uvicorn.run(create_app(batcher, info), fd=int(sys.argv[2]), log_level="critical")
"""


@pytest.mark.parametrize("inherited", ["engine", "batcher"])
def test_a_fork_is_not_ready_and_says_whose_engine_it_has(
    inherited: str, http: httpx.Client
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK, inherited]
        process = subprocess.Popen(
            [*command, str(listening.fileno())],
            pass_fds=[listening.fileno()],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        with process.stdout:
            parent, child = process.stdout.readline().split()
        assert http.get(url + "/health/live").status_code == 200
        for path in ("/health", "/health/ready"):
            response = http.get(url + path)
            assert response.status_code == 503
            told: dict[str, Any] = response.json()
            assert told["ready"] is False
            assert f"this {inherited} belongs to process {parent}" in told["reason"]
            assert f"not to its fork {child}" in told["reason"]
        os.kill(int(child), 15)
        process.wait(SECONDS)
