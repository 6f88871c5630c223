"""tools/measure/cluster_model.py: a cluster on paper, against arithmetic and queueing theory."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from statistics import mean

import pytest

import cluster_model
from cluster_model import CPU_HOST, GPU_HOST, SIZES, TIB, WAYS, Case, Router

ROOT = Path(__file__).resolve().parents[2]
IDLE = Router(call=1e-12, fold=0.0, round_trip=0.0)
NO_NETWORK = replace(GPU_HOST, network=float("inf"))


def test_the_costs_of_the_first_model_are_those_of_bytes_alone_at_a_lower_bandwidth() -> None:
    at_81_percent = replace(GPU_HOST, scan=8 * 0.807 * 3.35e12)
    costs = [Case(at_81_percent, table).usd_of_bytes for table in SIZES.values()]
    assert costs == pytest.approx([0.17, 2.71, 174], rel=0.01)


def test_without_router_and_stalls_a_pass_is_its_scan() -> None:
    case = Case(NO_NETWORK, 16 * TIB, router=IDLE)
    assert case.hosts == 32
    assert case.steady == pytest.approx(case.scan)
    assert case.scan == pytest.approx(2**39 / GPU_HOST.scan)
    assert case.capacity == pytest.approx(2 / case.scan)
    assert case.usd == pytest.approx(case.usd_of_bytes)


def test_waiting_times_are_those_of_queueing_theory() -> None:
    # One query a pass, passes of one length: the mean wait of M/D/1 is rho / (2 (1 - rho)) passes.
    case = Case(replace(NO_NETWORK, width=1), TIB, router=IDLE)
    expected = case.scan * (1 + 0.7 / (2 * 0.3))
    assert mean(case.latencies(50_000)) == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize(
    ("hosts", "calls", "levels"),
    [(1, 1, 1), (64, 64, 1), (65, 9, 2), (1024, 32, 2), (1025, 11, 3), (2048, 13, 3)],
)
def test_a_tree_is_as_shallow_as_its_degree_lets_it_be(hosts: int, calls: int, levels: int) -> None:
    assert Router().tree(hosts) == (calls, levels)
    assert calls**levels >= hosts


def test_the_more_hosts_the_more_a_share_of_stalls_costs() -> None:
    shares = []
    for table in SIZES.values():
        case = Case(GPU_HOST, table)
        shares.append(replace(case, stalls=1e-3).capacity / case.capacity)
    assert 1 > shares[0] > shares[1] > shares[2]


def test_hedges_help_where_a_stall_is_longer_than_a_scan_and_nowhere_else() -> None:
    for host, helps in ((GPU_HOST, True), (CPU_HOST, False)):
        case = Case(host, 16 * TIB, stalls=1e-3, replicas=2)
        hedged = replace(case, hedge=1.5)
        assert (hedged.capacity > case.capacity) == helps
        assert (hedged.latencies()[-200] < case.latencies()[-200]) == helps


def test_the_chances_of_a_pass_add_up() -> None:
    for way in WAYS.values():
        case = Case(GPU_HOST, 16 * TIB, *way)
        assert sum(chance for chance, _, _ in case.outcomes()) == pytest.approx(1)


def test_the_router_bounds_what_replicas_can_do() -> None:
    case = Case(GPU_HOST, 16 * TIB)
    many = replace(case, replicas=100).capacity
    assert many == pytest.approx(2 / Router().busy(32, case.part))
    assert case.capacity < many < 100 * case.capacity


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["cluster_model.py", *map(str, arguments)])
    return cluster_model.main()


def test_the_page_shows_what_the_model_computes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    assert run(monkeypatch) == 0
    for table in capsys.readouterr().out.strip().split("\n\n"):
        assert table in page


def test_the_picture_says_that_it_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(cluster_model, "ARRIVALS", 10)
    assert run(monkeypatch, "--plot", tmp_path / "a.svg") == 0
    committed = ROOT / "docs" / "plots" / "scaling.svg"
    for picture in (tmp_path / "a.svg", committed):
        assert ">Computed by tools/measure/cluster_model.py, not measured<" in picture.read_text()
