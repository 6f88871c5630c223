"""Small tables with epochs, and a server whose log a test waits for."""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np

import morphogen as mg
import morphogen.wire as wire
from morphogen.authentication import seal_pages
from morphogen.epochs.diff import diff_tables
from morphogen.epochs.manifest import sign_manifest
from morphogen.keyword.sealing import seal_file
from morphogen.service.process import ServerProcess
from naive import Bytes, naive_answers

PAGES, PAGE_SIZE, LEVELS = 50, 256, 2
CONTENT = PAGE_SIZE - 32 * LEVELS
SECONDS = 30  # only a failed test waits this long


def contents_of(epoch: int, pages: int = PAGES) -> Bytes:
    """The contents of an epoch: each differs from the one before in a few pages."""
    contents = np.zeros((pages, CONTENT), dtype=np.uint8)
    contents[:] = np.arange(pages, dtype=np.uint8)[:, np.newaxis]
    for number in range(1, epoch + 1):
        for page in (number % pages, 7 * number % pages):
            contents[page, :8] = np.frombuffer(number.to_bytes(8, "little"), dtype=np.uint8)
    return contents


def write_epoch(path: Path, epoch: int, *, pages: int = PAGES, page_size: int = PAGE_SIZE) -> bytes:
    """Write the sealed pages of an epoch, and return their root."""
    raw = path.with_suffix(".raw")
    raw.write_bytes(contents_of(epoch, pages).tobytes())
    header = seal_file(raw, path, page_size, LEVELS)
    raw.unlink()
    assert header.root is not None
    return header.root


def point(link: Path, target: Path) -> None:
    """Let a link lead to another file, at one stroke."""
    beside = link.with_name(f"{link.name}.next")
    beside.symlink_to(target)
    beside.replace(link)


def spoil(path: Path, offset: int) -> None:
    """Change one byte of a file, in a new file of the same name."""
    raw = bytearray(path.read_bytes())
    raw[offset] ^= 1
    replace(path, bytes(raw))


def replace(path: Path, content: bytes) -> None:
    """Put a file in the place of another, which stays as it is for those who have it open."""
    beside = path.with_name(f".{path.name}.next")
    beside.write_bytes(content)
    beside.replace(path)


class ReloadedServer(ServerProcess):
    """A server, and its whole log."""

    def __init__(self, path: Path | None, options: Sequence[str] = (), party: int = 0) -> None:
        self._told = threading.Condition()
        self.events: list[dict[str, Any]] = []
        super().__init__(path, party, ("--device", "cpu", "--threads", "1", *options))

    def _read_line(self, line: str) -> None:
        super()._read_line(line)
        with self._told, suppress(ValueError):  # libraries may write before the log is set up
            self.events.append(json.loads(line))
            self._told.notify_all()

    def told(self, event: str) -> list[dict[str, Any]]:
        """All lines of one event so far."""
        return [line for line in self.events if line["event"] == event]

    def wait_for(self, event: str, count: int = 1) -> dict[str, Any]:
        """Wait until so many lines of an event were written, and return the last of them."""
        with self._told:
            assert self._told.wait_for(lambda: len(self.told(event)) >= count, SECONDS), self.events
            return self.told(event)[count - 1]

    def hang_up(self, event: str) -> dict[str, Any]:
        """Have it reload, and wait for one more line of an event."""
        before = len(self.told(event))
        self.reload()
        return self.wait_for(event, before + 1)


def sealed_pages(epoch: int, pages: int = PAGES) -> Bytes:
    """The pages that `write_epoch` writes."""
    return seal_pages(contents_of(epoch, pages), PAGE_SIZE, LEVELS).pages


def check_answer(
    http: httpx.Client, url: str, epoch: int, pages: Bytes, *, named: bool = True
) -> None:
    """Ask party 0 for some pages of an epoch, and compare its answer with the pages' own."""
    infos = wire.offers(wire.decode_info(http.get(url + wire.EPOCH_PATH).content))
    (info,) = [info for info in infos if info.epoch_id == epoch]
    queries = mg.make_queries([[epoch % len(pages), 7 * epoch % len(pages), 3]], len(pages))[0]
    body = wire.encode_request(queries, epoch_id=epoch if named else None)
    answer = http.post(url + wire.QUERY_PATH, content=body, headers={"Content-Type": wire.MSGPACK})
    assert answer.status_code == 200, answer.text
    read = wire.decode_response(answer.content, wire.MSGPACK, info, 1)
    assert read.epoch_id == epoch
    np.testing.assert_array_equal(read.pages, naive_answers(pages, queries))


def write_delta(
    path: Path, old: int, new: int, *, from_epoch: int | None = None, pages: int = PAGES
) -> None:
    """Write the delta between two epochs as `write_epoch` writes them."""
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "before.table", Path(folder) / "after.table"
        write_epoch(before, old, pages=pages)
        write_epoch(after, new, pages=pages)
        diff_tables(before, after, path, old if from_epoch is None else from_epoch, new)


def write_manifest(
    path: Path,
    epoch: int,
    *,
    root: bytes,
    key: bytes = bytes(32),
    table_id: bytes = b"the words of all",
    activate_at: int = 0,
    expires: int = 0,
) -> bytes:
    """Sign an epoch, and return the owner."""
    manifest = sign_manifest(
        key,
        table_id=table_id,
        epoch=epoch,
        root=root,
        activate_at=activate_at,
        expires=expires,
    )
    replace(path, manifest.pack())
    return manifest.owner
