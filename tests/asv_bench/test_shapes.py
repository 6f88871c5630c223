"""The costs of narrow, odd and wide pages, which the dashboard shows."""

from __future__ import annotations

import itertools
import re

import pytest

import continuous
from benchmarks import scan, shapes

SHAPES = list(itertools.product(*shapes.Shapes.params))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_each_shape_has_a_cost(
    shape: tuple[int, str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "TABLE_BYTES", 1 << 20)
    assert shapes.Shapes().track_cost(*shape) > 0


def test_the_shapes_have_narrow_odd_and_wide_pages_and_two_threads() -> None:
    sizes, _, threads = map(set, zip(*SHAPES, strict=True))
    assert sizes >= {1, 20, 1 << 20}
    assert threads == {1, 2}


def test_ci_compares_no_costs_of_shapes() -> None:
    def compared(name: str) -> bool:
        return bool(re.search(continuous.COSTS, name))

    assert compared("scan.Scan.track_cost")
    assert not compared("shapes.Shapes.track_cost")
    assert not compared("gpu.Scan.track_cost")
