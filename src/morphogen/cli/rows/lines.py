"""Text in UTF-8 by the block: whole lines, whose numbers are known."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import AnyStr

from morphogen.cli.rows.compression import Stream

BLOCK = 1 << 18  # bytes
_MAX_LINE = 1 << 26  # bytes; a line without an end would fill the memory
# What is taken for the text that it holds or was made from, by its beginning.
_OTHERS = {
    b"\x1f\x8b": "a gzip file",
    b"\x28\xb5\x2f\xfd": "a Zstandard file",
    b"BZh": "a bzip2 file",
    b"\xfd7zXZ\0": "an xz file",
    b"PK\x03\x04": "a ZIP archive or a spreadsheet",
    b"PAR1": "a Parquet file",
    b"ARROW1": "an Arrow file",
    b"FEA1": "a Feather file",
    b"SQLite format 3\0": "an SQLite database",
    b"\xff\xfe": "text in UTF-16",
    b"\xfe\xff": "text in UTF-16",
}
_MARK = b"\xef\xbb\xbf"


class Lines:
    """The text of a file, block by block. Each ends where a line does.

    Parameters
    ----------
    path : pathlib.Path
        The file's name, for messages.
    stream : Stream
        Its bytes.
    kind : str
        What the text should be, for messages: "CSV".
    most : int
        Bytes of the largest value that a table could hold.
    report : callable
        Called after each block.
    returns : bool, optional
        Whether a carriage return alone ends a line too.
    """

    def __init__(
        self,
        path: Path,
        stream: Stream,
        kind: str,
        most: int,
        report: Callable[[], None],
        *,
        returns: bool = False,
    ) -> None:
        self._path = path
        self._stream = stream
        self._kind = kind
        self._most = max(_MAX_LINE, 8 * most)
        self._report = report
        self._returns = returns
        self.line: int = 1  # the first one of the block that comes next
        self.size: int = 0  # bytes of all blocks that came

    def __iter__(self) -> Iterator[str]:
        for block in self._cut():
            text = self._decode(block)
            self.line += self._count(block)
            self.size += len(block)
            self._report()
            yield text

    def _cut(self) -> Iterator[bytes]:
        rest: list[bytes] = []
        held = 0
        first = True
        while block := self._stream.read(BLOCK):
            if first:
                # A pipe gives a few bytes at a time, if its writer does.
                while len(block) < 16 and (more := self._stream.read(BLOCK)):
                    block += more
                self._check_beginning(block)
                block = block.removeprefix(_MARK)
                first = False
            if self._returns and rest and rest[-1].endswith(b"\r") and not block.startswith(b"\n"):
                yield b"".join(rest)
                rest, held = [], 0
            end = block.rfind(b"\n") + 1
            if not end and self._returns:
                end = block.rfind(b"\r", 0, -1) + 1  # the last one may have a line feed after it
            if end:
                yield b"".join((*rest, block[:end]))
                rest, held = [], 0
            if end < len(block):
                rest.append(block[end:])
                held += len(block) - end
            if held >= self._most:
                raise ValueError(
                    f"{self._path}:{self.line}: the line has {self._most} bytes or more"
                )
        if rest:
            yield b"".join(rest)

    def _check_beginning(self, block: bytes) -> None:
        for magic, name in _OTHERS.items():
            if block.startswith(magic):
                inside = f" inside the {self._stream.kind} file" if self._stream.kind else ""
                raise ValueError(
                    f"{self._path}: not {self._kind} in UTF-8{inside}: it begins as {name} does"
                )

    def _count(self, block: bytes) -> int:
        if self._returns:
            return count_ends(block, b"\r", b"\n")
        return block.count(b"\n")

    def _decode(self, block: bytes) -> str:
        try:
            return block.decode()
        except UnicodeDecodeError as error:
            before = block[: error.start]
            start = 1 + max(before.rfind(b"\n"), before.rfind(b"\r") if self._returns else -1)
            line = (block[start:].splitlines(keepends=True) or [b""])[0]
            # As if what is not UTF-8 were one character for each byte.
            column = len(block[start : error.start].decode()) + 1
            number = self.line + self._count(block[:start])
            raise ValueError(
                f"{self._path}:{number}: not UTF-8 from column {column} on: {_guess(line)}"
            ) from None


def count_ends(text: AnyStr, back: AnyStr, feed: AnyStr) -> int:
    """Count the ends of lines: a carriage return, a line feed, or both together."""
    count = text.count(feed)
    returns = text.count(back)
    return count + returns - text.count(back + feed) if returns else count


def _guess(line: bytes) -> str:
    """What a line may be that is not UTF-8."""
    try:
        line.decode()
    except UnicodeDecodeError as error:
        if error.reason == "unexpected end of data":
            return "it ends amid a character: the file was cut short or has another encoding"
    # In Western languages a letter with an accent stands among letters without, or beside one.
    if max(map(len, re.findall(rb"[\x80-\xff]+", line))) <= 2:
        # Windows-1252 has letters and quotation marks where ISO 8859-1 has control characters.
        if re.search(rb"[\x80-\x9f]", line):
            return "it may be Windows-1252 (iconv -f WINDOWS-1252 -t UTF-8 converts it)"
        return "it may be ISO 8859-1, called Latin-1 (iconv -f LATIN1 -t UTF-8 converts it)"
    return "it may be an encoding such as Windows-1251, GB 18030 or Shift JIS (see iconv)"
