"""Reads mutations of a file of rows: each is refused in one line, or read. Run as a program.

A library that crashes takes this process with it, and not the tests'.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import sys
from pathlib import Path

from file_rows import Item, read_rows


def mutate(raw: bytes, chance: random.Random) -> bytes:
    """Change a few bytes, cut, repeat or insert."""
    content = bytearray(raw)
    for _ in range(chance.choice((1, 1, 2, 8))):
        at = chance.randrange(len(content)) if content else 0
        length = chance.choice((1, 4, 30))
        match chance.randrange(6):
            case 0 | 1:
                content[at : at + 1] = chance.randbytes(1)
            case 2:
                content[at : at + 8] = chance.choice(
                    (
                        bytes(8),
                        b"\xff" * 8,
                        b"\xff" * 7 + b"\x7f",
                        (2**31 - 1).to_bytes(8, "little"),
                    )
                )
            case 3:
                del content[at : at + length]
            case 4:
                content[at:at] = content[at : at + length]
            case _:
                del content[at:]
    return bytes(content)


def read_csv(path: Path) -> list[Item]:
    """By Python's own reader, as it stands there."""
    text = unpacked(path).decode("utf-8-sig")
    heading, *rows = (row for row in csv.reader(io.StringIO(text, newline="")) if row)
    assert all(len(row) == len(heading) for row in rows)
    at, to = heading.index("key"), heading.index("value")
    return [(row[at].encode(), row[to].encode()) for row in rows]


def read_json(path: Path) -> list[Item]:
    """By Python's own reader, line by line."""
    lines = unpacked(path).decode("utf-8-sig").split("\n")
    rows = [json.loads(line) for line in lines if line.strip()]
    return [(row["key"].encode(), row["value"].encode()) for row in rows]


def unpacked(path: Path) -> bytes:
    """What a file holds."""
    raw = path.read_bytes()
    if raw.startswith(b"\x28\xb5\x2f\xfd"):
        import pyarrow

        packed: bytes = pyarrow.CompressedInputStream(pyarrow.py_buffer(raw), "zstd").read()
        return packed
    return gzip.decompress(raw) if raw.startswith(b"\x1f\x8b") else raw


READERS = {"csv": read_csv, "jsonl": read_json}


def read_all(path: Path, kind: str, whole: bool, seed: int, count: int) -> None:
    """Read mutations of a file, in its place."""
    raw = path.read_bytes()
    chance = random.Random(seed)
    refused = 0
    for number in range(count):
        path.write_bytes(mutate(raw, chance))
        try:
            found = read_rows(path, value=None if whole else "value", format=kind)
            if kind in READERS and not whole:
                assert found == READERS[kind](path), number
        except ValueError as error:
            refused += 1
            message = str(error)
            assert message.startswith(str(path)), (number, message)
            assert "secret" not in message, (number, message)
            assert len(message.splitlines()) == 1, (number, message)
    print(refused)


if __name__ == "__main__":
    read_all(
        Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "whole", int(sys.argv[4]), int(sys.argv[5])
    )
    # Not getrusage, which counts the memory of the process that started this one.
    status = Path("/proc/self/status").read_text()
    print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")))
