"""The options and the metrics of a server on a GPU, over the stand-in driver."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

import morphogen as mg
from morphogen.engine.cuda.phases import PhaseCounter
from morphogen.service.config import ClusterConfig, ServerConfig
from morphogen.service.metrics import Metrics
from morphogen.service.opening import ProcessOpener
from morphogen.service.process import ServerProcess
from small_gpu_engine import ARRAY, BATCH, PAGES, assert_answers
from standin_driver import StandIn, environment

NO_FILE: Any = None  # the opener in a process reads none
ROOT = Path(__file__).resolve().parents[2]


def samples(text: str) -> dict[tuple[str, ...], float]:
    """The samples of GPUs, by their name and labels."""
    return {
        (sample.name.removeprefix("morphogen_gpu_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("morphogen_gpu_")
    }


def scraped(metrics: Metrics) -> dict[tuple[str, ...], float]:
    return samples(metrics.text().decode())


def test_metrics_have_the_phases_and_the_memory_of_each_gpu(gpu: StandIn) -> None:
    metrics = Metrics()
    assert scraped(metrics) == {}
    opener = ProcessOpener("cuda", phases=metrics.chunks)
    with opener.open(NO_FILE, PAGES, None).engine as engine:
        assert scraped(metrics)["chunks_total", "cuda:0"] == 0
        assert_answers(engine)
        found = scraped(metrics)
        used, total = found["memory_used_bytes", "cuda:0"], found["memory_bytes", "cuda:0"]
        assert ARRAY.nbytes < used < total == 1 << 30
        assert found["chunks_total", "cuda:0"] == 3
        for phase in ("submit", "device", "wait", "copy"):
            assert found["phase_seconds_total", "cuda:0", phase] > 0
        assert len(found) == 1 + 4 + 2


def test_a_lost_gpu_keeps_its_counts_and_tells_no_memory(gpu: StandIn) -> None:
    metrics = Metrics()
    engine = ProcessOpener("cuda", phases=metrics.chunks).open(NO_FILE, PAGES, None).engine
    assert_answers(engine)
    gpu.lose(0)
    with pytest.raises(mg.DeviceError):
        engine.answer(BATCH)
    assert {name for name, *_ in scraped(metrics)} == {"chunks_total", "phase_seconds_total"}
    engine.close()
    gpu.reset()


def test_metrics_of_a_cpu_have_none_of_these() -> None:
    metrics = Metrics()
    with ProcessOpener("cpu", phases=metrics.chunks).open(NO_FILE, PAGES, None).engine as engine:
        assert_answers(engine)
        assert "morphogen_gpu" not in metrics.text().decode()


def test_the_next_epochs_are_opened_as_the_first(gpu: StandIn) -> None:
    opener = ProcessOpener("cuda", lanes=4, graph=True, phases=PhaseCounter())
    opener.check()
    with opener.open(NO_FILE, PAGES, None).engine as engine:
        assert (engine.max_in_flight, engine.default_strategy.graph) == (4, True)


def test_the_metrics_are_documented(gpu: StandIn) -> None:
    metrics = Metrics()
    with ProcessOpener("cuda", phases=metrics.chunks).open(NO_FILE, PAGES, None).engine:
        text = metrics.text().decode()
    shown = set(re.findall(r"^# TYPE (morphogen_gpu_\w+) (\w+)$", text, re.M))
    page = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| `(morphogen_gpu_\w+)` \| (\w+) \|", page, re.M))
    assert shown == documented != set()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lanes": 3}, "^lanes must be 1, 2 or 4, not 3$"),
        (
            {"lanes": 2, "cluster": ClusterConfig(shards=2)},
            "^lanes and graph are for a GPU",
        ),
        ({"graph": True, "cluster": ClusterConfig(shards=2)}, "^lanes and graph are for a GPU"),
    ],
)
def test_lanes_that_no_gpu_has_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ServerConfig(path=Path("pages"), party=0, **options)


@pytest.fixture
def servers(
    tmp_path: Path, standin_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[ServerProcess]]:
    file = tmp_path / "pages"
    file.write_bytes(ARRAY.tobytes())
    monkeypatch.setenv("LD_LIBRARY_PATH", environment(standin_directory)["LD_LIBRARY_PATH"])
    options = ["--page-size", str(ARRAY.shape[1]), "--device", "cuda", "--epoch", "1"]
    options += ["--lanes", "4", "--graph", "--max-micro-batch", "4"]
    started = [ServerProcess(file, party, options) for party in (0, 1)]
    yield started
    for server in started:
        server.stop()


@pytest.mark.slow
def test_a_server_on_a_gpu_takes_its_options_and_shows_what_it_did(
    servers: list[ServerProcess],
) -> None:
    with mg.Client([server.url for server in servers]) as client:
        assert np.array_equal(client.get([3, 4, 5]), ARRAY[[3, 4, 5]])
    for server in servers:
        with urlopen(server.metrics_url) as answer:
            found = samples(answer.read().decode())
        assert found["chunks_total", "cuda:0"] == 1
        assert found["phase_seconds_total", "cuda:0", "device"] > 0
        assert found["memory_used_bytes", "cuda:0"] > 0
