"""docs/serving.md and deploy/ name the metrics and the log of a server: as they are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import yaml  # type: ignore[import-untyped]
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

import morphogen as mg
from documents import ROOT
from morphogen.keyword.sealing import seal_file
from morphogen.service.process import ServerProcess

PAGE = "docs/serving.md"
TEXT = (ROOT / PAGE).read_text(encoding="utf-8")
SECONDS = 60.0
# Functions, keywords and labels of PromQL that the page uses, and the series that Prometheus makes.
PROMQL = {
    *("histogram_quantile", "increase", "max", "min", "rate", "sum", "by", "without"),
    *("le", "job", "instance", "outcome", "table", "up", "m"),
}

# Labels that Prometheus adds, and that a server of several tables has.
ELSEWHERE = {"instance", "table"}


@dataclass(frozen=True)
class Server:
    """A server that has answered some requests."""

    url: str
    metrics_target: str
    metrics: dict[str, Metric]
    events: list[dict[str, Any]]

    @property
    def series(self) -> set[str]:
        """The names of series. A counter with labels has none before it counts."""
        counters = {f"{m.name}_total" for m in self.metrics.values() if m.type == "counter"}
        return counters | {
            sample.name for metric in self.metrics.values() for sample in metric.samples
        }

    def labels(self, name: str) -> set[str]:
        if name == "morphogen_connections_cut_off_total":
            return {"reason"}  # test_metrics.py cuts some off
        return {
            label
            for metric in self.metrics.values()
            for sample in metric.samples
            if sample.name == name
            for label in sample.labels
        }


def scrape(scheme: str, target: str, path: str) -> dict[str, Metric]:
    answer = httpx.get(f"{scheme}://{target}{path}", trust_env=False, timeout=SECONDS)
    return {
        metric.name: metric
        for metric in text_string_to_metric_families(answer.raise_for_status().text)
        if not metric.name.endswith("_created")
    }


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("pages")
    path = folder / "pages.sealed"
    (folder / "pages.bin").write_bytes(bytes(100_000))
    seal_file(folder / "pages.bin", path, page_size=96, proof_levels=1)
    options = ("--device", "cpu")
    with ServerProcess(path, 0, options) as one, ServerProcess(path, 1, options) as other:
        with mg.Client([one.url, other.url], timeout=SECONDS) as client:
            client.get([3])
        target = one.metrics_url.removeprefix("http://").removesuffix("/metrics")
        metrics = scrape("http", target, "/metrics")
        other.stop()
        events = [json.loads(line) for line in [*one.log, *other.log]]
        yield Server(one.url, target, metrics, events)


def document(name: str) -> Any:
    """Return what a file of deploy/ holds. JSON is YAML."""
    return yaml.safe_load((ROOT / "deploy" / name).read_text(encoding="utf-8"))


def rows(head: str) -> list[list[str]]:
    """Return the rows of the page's table with this head, cell by cell, without code marks."""
    lines = TEXT[TEXT.index(head) :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def names(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def panels() -> list[dict[str, Any]]:
    shown: list[dict[str, Any]] = document("grafana.json")["panels"]
    return shown


def expressions() -> list[str]:
    rules = document("alerts.yml")["groups"][0]["rules"]
    asked = [names(expression)[0] for _, expression in rows("| question |")]
    plotted = [target["expr"] for panel in panels() for target in panel["targets"]]
    return [*(rule["expr"] for rule in rules), *asked, *plotted]


def test_every_metric_is_named_and_every_name_is_a_metric(server: Server) -> None:
    kinds = {names(name)[0]: kind for name, kind, _ in rows("| metric |")}
    shown = {
        metric.name + ("_total" if metric.type == "counter" else ""): metric.type
        for metric in server.metrics.values()
    }
    assert kinds == shown


def test_labels_and_outcomes_are_those_of_the_server(server: Server) -> None:
    told = {names(name)[0]: text for name, _, text in rows("| metric |")}
    for label, name in (("path", "requests"), ("status", "requests"), ("outcome", "queries")):
        assert label in names(told[f"morphogen_{name}_total"])
        assert label in server.labels(f"morphogen_{name}_total")
    outcomes = {s.labels["outcome"] for s in server.metrics["morphogen_queries"].samples}
    assert outcomes - {"answered"} <= set(names(told["morphogen_queries_total"]))
    phases = {s.labels["phase"] for s in server.metrics["morphogen_phase_seconds"].samples}
    assert {"phase", *phases} == set(names(told["morphogen_phase_seconds"]))
    for name in ("morphogen_server_info", "morphogen_table_info"):
        assert server.labels(name) == set(names(told[name]))


def test_prometheus_finds_the_server_as_it_is_told(server: Server) -> None:
    (job,) = document("prometheus.yml")["scrape_configs"]
    ((target,),) = (group["targets"] for group in job["static_configs"])
    assert f"--metrics-port {target.removeprefix('127.0.0.1:')} " in TEXT  # as the page starts it
    assert f'job="{job["job_name"]}"' in expressions()[0]
    scheme, path = job.get("scheme", "http"), job.get("metrics_path", "/metrics")
    found = scrape(scheme, server.metrics_target, path)
    assert found.keys() == server.metrics.keys()


@pytest.mark.parametrize("expression", expressions())
def test_an_expression_is_about_series_and_labels_that_there_are(
    expression: str, server: Server
) -> None:
    words = set(re.findall(r"[a-z][a-z_]*", re.sub(r'"[^"]*"|\[\$\w+\]', "", expression)))
    series = {word for word in words if word.startswith("morphogen_")}
    assert series <= server.series
    assert series or expression.startswith("up{")
    labels = {label for name in series for label in server.labels(name)}
    assert words - series - labels <= PROMQL
    for label, value in re.findall(r'([a-z]+)=~?"([^"]*)"', expression):
        if label in ("outcome", "phase"):
            known = {
                sample.labels.get(label)
                for metric in server.metrics.values()
                for sample in metric.samples
            }
            assert set(value.split("|")) <= known


def test_every_alert_says_when() -> None:
    rules = document("alerts.yml")["groups"][0]["rules"]
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        assert rule.keys() <= {"alert", "expr", "for"}
        assert re.search(r" (==|!=|>|<) ", rule["expr"]), "an alert needs a limit"


def test_the_dashboard_has_its_panels_side_by_side() -> None:
    dashboard = document("grafana.json")
    assert {panel["id"] for panel in panels()} == {*range(1, len(panels()) + 1)}
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        columns, lines = (
            range(place["x"], place["x"] + place["w"]),
            range(place["y"], place["y"] + place["h"]),
        )
        cells = {(x, y) for x in columns for y in lines}
        assert max(columns) < 24
        assert not taken & cells
        taken |= cells
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(dashboard["panels"])))
    assert used - {"__rate_interval"} == variables  # Grafana's own, and the dashboard's


def test_a_panel_names_labels_that_its_series_have(server: Server) -> None:
    for panel in panels():
        for target in panel["targets"]:
            series = re.findall(r"morphogen_\w+", target["expr"])
            labels = {label for name in series for label in server.labels(name)}
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= labels | ELSEWHERE


def test_the_log_has_the_members_that_the_page_names(server: Server) -> None:
    told = {names(event)[0]: set(names(members)) for event, _, members in rows("| event |")}
    seen = {event["event"] for event in server.events}
    assert seen == {"started", "request", "stopped"}
    for event in server.events:
        assert event.keys() - {"time", "level", "event"} == told[event["event"]]
        assert event["level"] == "info"


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready"])
def test_health_is_where_the_page_says(path: str, server: Server) -> None:
    assert path in [names(row[0])[0] for row in rows("| path |")]
    assert httpx.get(server.url + path, trust_env=False, timeout=SECONDS).status_code == 200
