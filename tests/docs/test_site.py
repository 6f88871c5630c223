"""The site of docs/ builds without a warning, shows all public names and needs no other host."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

import morphogen.cli as cli
from public_objects import public_objects

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the site: that of ``--site``, or one built now as .ci/run builds it."""
    given: Path | None = request.config.getoption("--site")
    if given is not None:
        assert (given / "objects.inv").is_file(), f"--site: there is no site in {given}"
        return given
    # The extra `lint` brings Sphinx, but not the other packages that the site needs.
    if any(find_spec(name) is None for name in ("sphinx", "furo", "myst_parser")):
        pytest.skip("needs Sphinx: pip install '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    options = ["-W", "--keep-going", "-n", "-q", "-d", str(folder / "doctrees")]
    result = subprocess.run(
        [sys.executable, "-m", "sphinx", *options, str(ROOT / "docs"), str(folder / "html")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return folder / "html"


@pytest.fixture(scope="module")
def inventory(site: Path) -> dict[str, set[str]]:
    """Return the names that the site has an entry for, by kind: "py:class", "std:cmdoption"."""
    from sphinx.util.inventory import InventoryFile

    listed = InventoryFile.loads((site / "objects.inv").read_bytes(), uri="")
    return {kind: set(names) for kind, names in listed.data.items()}


def options(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Yield the options of a command and its subcommands, such as "morphogen-bench.--csv"."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from options(below)
        else:
            for name in action.option_strings or [str(action.metavar or action.dest)]:
                yield f"{parser.prog.replace(' ', '-')}.{name}"


def test_all_that_is_public_is_in_the_reference(inventory: dict[str, set[str]]) -> None:
    listed = set().union(*(names for kind, names in inventory.items() if kind.startswith("py:")))
    assert {f"morphogen.{name}" for name in public_objects()} <= listed


def test_every_command_and_option_is_in_the_reference(inventory: dict[str, set[str]]) -> None:
    wanted = set(options(cli._parser()))
    assert {"morphogen.--version", "morphogen-table-build.--key"} <= wanted
    assert wanted <= inventory["std:cmdoption"]


def test_the_reference_shows_types_and_docstrings(site: Path) -> None:
    text = (site / "reference" / "keys.html").read_text(encoding="utf-8")
    words = re.sub(r"<[^>]*>|\s", "", text)
    assert "gen(index:SupportsIndex,num_pages:SupportsIndex" in words
    assert "Makethepairofkeysthatselectsonepage(Gen)." in words


def test_nothing_is_loaded_from_another_host(site: Path) -> None:
    # A browser fetches these by itself. <a href> is left out: a reader may follow it.
    fetched = re.compile(
        r"""<(?!a\b)[^>]*\s(?:href|src)=["'](?:https?:)?//|url\(["']?(?:https?:)?//|@import"""
    )
    files = [*site.rglob("*.html"), *site.rglob("*.css")]
    assert {"index.html", "furo.css"} <= {file.name for file in files}
    assert not [file for file in files if fetched.search(file.read_text(encoding="utf-8"))]
