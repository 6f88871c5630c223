"""What ran on a GPU and what was measured, from the results of any stages: folders and archives."""

from __future__ import annotations

import csv
import io
import tarfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path, PurePosixPath


@dataclass(frozen=True, slots=True)
class Row:
    """What came of a stage.

    Attributes
    ----------
    stage : str
    result : str
        "ok", "absent", or "failed: " and the reason.
    seconds, predicted : int
    """

    stage: str
    result: str
    seconds: int
    predicted: int


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write what came of a run's stages so far, beside those that an earlier command wrote."""
    known = {row.stage: row for row in read_rows(path.read_text("utf-8"))} if path.exists() else {}
    known |= {row.stage: row for row in rows}
    new = path.with_suffix(".new")
    with new.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(map(asdict, known.values()))
    new.replace(path)


def read_rows(text: str) -> list[Row]:
    """Read what `write_rows` wrote."""
    return [
        Row(row["stage"], row["result"], int(row["seconds"]), int(row["predicted"]))
        for row in csv.DictReader(io.StringIO(text))
    ]


def table(rows: Sequence[Row]) -> str:
    """Lay the rows out in columns."""
    line = "{:<10}  {:<19}  {:>7}  {:>9}\n"
    lines = [line.format("stage", "result", "seconds", "predicted")]
    lines += [line.format(row.stage, row.result, row.seconds, row.predicted) for row in rows]
    return "".join(lines)


def describe(paths: Sequence[Path]) -> str:
    """Sum up results: the last outcome of each stage, and every table that was measured."""
    files = sorted({name: text for path in paths for name, text in texts(path)}.items())
    rows: dict[str, Row] = {}
    for name, text in files:
        if name.endswith("-stages.csv"):
            rows |= {row.stage: row for row in read_rows(text)}
    parts = [table(list(rows.values()))]
    for name, text in files:
        if name.endswith(".csv") and not name.endswith(("-stages.csv", "-ncu.csv")):
            parts.append(measured(name.removesuffix(".csv"), text))
    return "\n".join(parts)


def texts(path: Path) -> Iterator[tuple[str, str]]:
    """The names and texts of the CSV files in a folder or an archive."""
    if path.is_dir():
        for folder in ("docs/benchmarks", "build/gpu-logs"):
            for file in (path / folder).glob("*.csv"):
                yield file.name, file.read_text(encoding="utf-8")
        return
    with tarfile.open(path) as archive:
        for member in archive:
            file_object = archive.extractfile(member)
            if file_object is not None and member.name.endswith(".csv"):
                yield PurePosixPath(member.name).name, file_object.read().decode()


def measured(name: str, text: str) -> str:
    """The speed-ups of a table's batches, with the quartiles of the rounds, as far as written."""
    lines = text.splitlines()
    facts = dict(
        line[2:].split(": ", 1) for line in lines if line.startswith("# ") and ": " in line
    )
    shown = f"{name}: {facts.get('pages')} pages of {facts.get('page_size')} bytes\n"
    line = "{:>4}  {:>10}  {:>9}  {:>8}  {:>8}  {:<17}  {:>7}  {}\n"
    heads = ("q", "single ms", "batch ms", "read ms", "speed-up", "quartiles", "/ read", "checked")
    shown += line.format(*heads)
    for found in csv.DictReader((one for one in lines if not one.startswith("# ")), restval=""):
        row = defaultdict(str, found)
        correct = {"true": "equal", "false": "DIFFERS"}.get(row["correct"], "unknown")
        shown += line.format(
            row["q"],
            row["single_ms_per_batch"],
            row["batch_ms_per_batch"],
            row["read_ms"],
            row["batch_vs_single_speedup"],
            f"{row['batch_vs_single_low']}-{row['batch_vs_single_high']}",
            row["batch_vs_read"],
            f"{correct} {row['variant']}".rstrip(),
        )
    return shown
