"""Arguments that several commands have."""

from __future__ import annotations

import argparse
import re

import pytest

from morphogen.cli import main
from morphogen.cli.arguments import byte_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4096", 4096),
        ("4k", 4096),
        ("4K", 4096),
        ("4KiB", 4096),
        ("1m", 1 << 20),
        ("2G", 2 << 30),
        ("1T", 1 << 40),
        ("0", 0),
        ("-1", -1),  # the range is checked where the number is used
        ("-2k", -2048),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert byte_size(text) == size


@pytest.mark.parametrize("text", ["", "k", "4kb", "4 k", "4.5k", "4kk", "0x10", "4p", "1_0", "²"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=f"4k or 2G, not {re.escape(repr(text))}$"):
        byte_size(text)


@pytest.mark.parametrize(
    "command",
    [
        ["demo", "none"],
        ["bench", "--matrix-file", "none"],
        ["serve", "none", "--party", "0", "--port", "0"],
        ["table", "build", "none", "--key", "k", "-o", "t"],
    ],
)
def test_every_command_with_pages_takes_sizes(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--page-size", "4k"]) == 2
    assert capsys.readouterr().err == "morphogen: none: No such file or directory\n"
    assert main([*command, "--page-size", "4kb"]) == 2
    assert "--page-size: must be a number of bytes" in capsys.readouterr().err
