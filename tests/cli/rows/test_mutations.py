"""Damaged and hostile files of each kind are refused in one line, or read as they stand there."""

from __future__ import annotations

import gzip
import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

pyarrow = pytest.importorskip("pyarrow")
feather = pytest.importorskip("pyarrow.feather")
parquet = pytest.importorskip("pyarrow.parquet")

SUPPORT = Path(__file__).resolve().parents[2] / "support"
PROGRAM = SUPPORT / "mutated_rows.py"
MOST_MEMORY = 400 << 10  # KiB; a process that has loaded pyarrow takes a third of it
KEYS = [f"secret {number}" for number in range(300)]
VALUES = [f"secret value {number * number}" for number in range(300)]
CSV = "key,value\n" + "".join(f'{key},"{value}"\n' for key, value in zip(KEYS, VALUES, strict=True))


def records() -> Any:
    return pyarrow.table(
        {
            "key": KEYS,
            "value": VALUES,
            "list": [[1, None]] * len(KEYS),
            "dictionary": pyarrow.array(VALUES).dictionary_encode(),
        }
    )


def write(form: str, path: Path) -> str:
    """Write a file, and name its kind."""
    match form:
        case "CSV":
            path.write_text(CSV)
        case "CSV without quotes":
            path.write_text(CSV.replace('"', ""))
        case "gzip":
            path.write_bytes(gzip.compress(CSV.encode()))
        case "Zstandard":
            path.write_bytes(pyarrow.Codec("zstd").compress(CSV.encode(), asbytes=True))
        case "JSON Lines":
            rows = ({"key": key, "value": value} for key, value in zip(KEYS, VALUES, strict=True))
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
            return "jsonl"
        case "Parquet":
            parquet.write_table(records(), str(path), row_group_size=100)
            return "parquet"
        case "Parquet with checksums":
            parquet.write_table(
                records(), str(path), compression="zstd", write_page_checksum=True,
                data_page_version="2.0",
            )  # fmt: skip
            return "parquet"
        case "Arrow":
            feather.write_feather(records(), str(path), compression="uncompressed", chunksize=100)
            return "arrow"
        case "Feather":
            feather.write_feather(records(), str(path), compression="zstd")
            return "arrow"
        case "a stream of Arrow":
            with pyarrow.ipc.new_stream(str(path), records().schema) as writer:
                writer.write_table(records())
            return "arrow"
        case _:
            with closing(sqlite3.connect(path)) as database:
                database.execute("CREATE TABLE rows(key, value)")
                database.execute("CREATE INDEX found ON rows(key)")
                database.executemany(
                    "INSERT INTO rows VALUES(?, ?)", list(zip(KEYS, VALUES, strict=True))
                )
                database.commit()
            return "sqlite"
    return "csv"


FORMS = [
    "CSV", "CSV without quotes", "gzip", "Zstandard", "JSON Lines", "Parquet",
    "Parquet with checksums", "Arrow", "Feather", "a stream of Arrow", "SQLite",
]  # fmt: skip


def check(form: str, path: Path, seed: int, count: int) -> None:
    for columns in ("value", "whole"):
        path.unlink(missing_ok=True)
        kind = write(form, path)
        done = subprocess.run(
            [sys.executable, str(PROGRAM), str(path), kind, columns, str(seed), str(count)],
            capture_output=True,
            text=True,
            env={"PYTHONPATH": str(SUPPORT)},
            timeout=600,
        )
        assert (done.returncode, done.stderr) == (0, ""), done.returncode
        refused, memory = map(int, done.stdout.split())
        assert refused > count // 4, "mutations must be seen"
        assert memory < MOST_MEMORY


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_a_thousand_mutations_are_refused_or_read(form: str, tmp_path: Path) -> None:
    check(form, tmp_path / "rows", seed=7, count=1000)


@pytest.mark.parametrize("form", ["Zstandard", "Parquet", "Arrow", "SQLite"])
def test_some_mutations_are_refused_or_read(form: str, tmp_path: Path) -> None:
    check(form, tmp_path / "rows", seed=8, count=20)
