"""The doctor asks a server that runs how its shards are, by its metrics."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import InfoMetricFamily, Metric

from morphogen.cli import main
from morphogen.engine.shards.statistics import ShardStatistics
from morphogen.service.shards import families

DID = ShardStatistics(
    passes=1200,
    parts=2400,
    retries=3,
    hedges=10,
    hedges_won=4,
    doubles=6,
    failures=1,
    mismatches=0,
    gaps=2,
    gap_seconds=0.25,
    longest_gap=0.2,
    replicas=(2, 2),
    usable=(2, 1),
)


class Metrics:
    """What a server shows of some tables."""

    def __init__(self, tables: dict[str, ShardStatistics]) -> None:
        self._tables = tables

    def collect(self) -> Iterator[Metric]:
        info = InfoMetricFamily("morphogen_server", "The server.")
        info.add_metric((), {"device": "cpu", "party": "0"})
        yield info
        yield from families(self._tables, {"": 5}, labelled="" not in self._tables)


def metrics_of(tables: dict[str, ShardStatistics]) -> bytes:
    registry = CollectorRegistry()
    registry.register(Metrics(tables))
    return generate_latest(registry)


@contextmanager
def showing(text: bytes) -> Iterator[str]:
    """A server that shows a text. Yields its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *unused: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/metrics"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(autouse=True)
def proxied(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that nobody is to ask."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")


def test_it_tells_of_replicas_hedges_and_gaps(capsys: pytest.CaptureFixture[str]) -> None:
    with showing(metrics_of({"": DID})) as url:
        assert main(["doctor", "--metrics", url]) == 0
    said = capsys.readouterr().out
    for line in (
        "shards +2",
        "replicas that answer +2 of 2, 1 of 2",
        "passes +1,200, and 3 retries",
        "hedges +10, of which 4 came first",
        r"gaps +2, 0\.250 s in all, the longest 0\.200 s",
        "processes replaced +5",
        "of another version +0 parts and errors",
    ):
        assert re.search(rf"^{line} *$", said, re.MULTILINE)


def test_json_has_each_table(capsys: pytest.CaptureFixture[str]) -> None:
    with showing(metrics_of({"fruit": DID, "words": DID})) as url:
        assert main(["doctor", "--metrics", url, "--json"]) == 0
    fruit, words = json.loads(capsys.readouterr().out)["shards"]
    assert (fruit["table"], words["table"]) == ("fruit", "words")
    assert (fruit["replicas"], fruit["usable"], fruit["ok"]) == ([2, 2], [2, 1], True)
    assert fruit["counts"]["gap_seconds"] == 0.25
    assert fruit["counts"]["longest_gap_seconds"] == 0.2


def test_a_shard_without_a_replica_is_a_failed_check(capsys: pytest.CaptureFixture[str]) -> None:
    with showing(metrics_of({"": replace(DID, usable=(2, 0))})) as url:
        assert main(["doctor", "--metrics", url]) == 1
    assert "A shard has no replica that answers" in capsys.readouterr().out


def test_a_server_without_shards_has_none(capsys: pytest.CaptureFixture[str]) -> None:
    with showing(metrics_of({})) as url:
        assert main(["doctor", "--metrics", url]) == 0
    assert "The server has no shards." in capsys.readouterr().out


@pytest.mark.parametrize("text", [b"", b"<html>", b"up 1\n", b"morphogen_shard_passes_total"])
def test_what_are_no_metrics_of_a_server_is_refused(
    capsys: pytest.CaptureFixture[str], text: bytes
) -> None:
    with showing(text) as url:
        assert main(["doctor", "--metrics", url]) == 2
    assert f"{url} must show the metrics of a server, and does not: " in capsys.readouterr().err


def test_metrics_without_one_of_the_counts_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    text = metrics_of({"": DID}).replace(b"morphogen_shard_gaps", b"morphogen_gaps")
    with showing(text) as url:
        assert main(["doctor", "--metrics", url]) == 2
    assert "there is no morphogen_shard_gaps" in capsys.readouterr().err


def test_another_address_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--metrics", "file:///etc/passwd"]) == 2
    assert "--metrics must be a URL such as" in capsys.readouterr().err


def test_a_server_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with showing(b"") as url:
        pass
    assert main(["doctor", "--metrics", url]) == 2
    assert f"{url} cannot be asked: " in capsys.readouterr().err


@pytest.mark.parametrize("url", ["http://", "http://[::1", "http://127.0.0.1:none/", "http://a b/"])
def test_an_address_of_nobody_is_refused(capsys: pytest.CaptureFixture[str], url: str) -> None:
    assert main(["doctor", "--metrics", url]) == 2
    said = capsys.readouterr().err
    assert said.startswith("morphogen: ")
    assert "Traceback" not in said
