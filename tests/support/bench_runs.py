"""Small runs of the benchmark and the files that they write."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import morphogen.bench as bench
from morphogen.engine.strategy import Strategy

SMALL = ["bench", "--pages", "70", "--page-size", "40", "--iterations", "2", "--warmup", "1"]


def config(**changes: object) -> bench.BenchmarkConfig:
    settings: dict[str, Any] = {
        "num_pages": 70,
        "page_size": 40,
        "batch_sizes": (1, 2, 5),
        "keys_per_query": 3,
        "iterations": 2,
        "warmup": 1,
        **changes,
    }
    return bench.BenchmarkConfig(**settings)


def read_csv(path: Path) -> tuple[dict[str, str], list[dict[str, str]]]:
    lines = path.read_text(encoding="utf-8").splitlines()
    header = [line for line in lines if line.startswith("# ")]
    assert lines[: len(header)] == header, "header lines come first"
    entries = dict(line[2:].split(": ", 1) for line in header)
    return entries, list(csv.DictReader(lines[len(header) :]))


GPU_DEFAULT = Strategy(2, 2, graph=False)
GPU_ALL = {
    "single": Strategy(1, 2, graph=False),
    "chunks-2": GPU_DEFAULT,
    "chunks-2-lanes-1": Strategy(2, 1, graph=False),
    "chunks-2-lanes-4": Strategy(2, 4, graph=False),
    "chunks-4": Strategy(4, 2, graph=False),
    "chunks-8": Strategy(8, 2, graph=False),
    "chunks-2-graph": Strategy(2, 2, graph=True),
}
