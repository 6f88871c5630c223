"""The site of docs/, built once for all tests that look at it, and what its pages hold."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# What a browser fetches to show a page, and what it goes to when a reader asks.
LOADED = {("script", "src"), ("img", "src"), ("source", "src"), ("iframe", "src")}
FOLLOWED = {("a", "href"), ("form", "action")}


@dataclass(slots=True)
class Page:
    """What a page of the site refers to.

    Attributes
    ----------
    anchors : set of str
        What a link may name after a #.
    followed, loaded : list of str
        Addresses that a reader may go to, and those that the page needs to be shown.
    """

    anchors: set[str] = field(default_factory=set)
    followed: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.page = Page()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" and value:
                self.page.anchors.add(value)
            elif (tag, name) in FOLLOWED and value is not None:
                self.page.followed.append(value)
            elif ((tag, name) in LOADED or (tag, name) == ("link", "href")) and value is not None:
                self.page.loaded.append(value)


def read_page(text: str) -> Page:
    """Read a page's HTML."""
    reader = _Reader()
    reader.feed(text)
    return reader.page


def build_site(docs: Path, output: Path, doctrees: Path) -> None:
    """Build a site as .ci/run does: a warning is an error.

    Raises
    ------
    AssertionError
        If there was one; the message has what Sphinx said.
    """
    options = ["-W", "--keep-going", "-n", "-q", "-b", "html", "-d", str(doctrees)]
    result = subprocess.run(
        [sys.executable, "-m", "sphinx", *options, str(docs), str(output)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr


@pytest.fixture(scope="session")
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the site: that of ``--site``, or one that is built now."""
    given: Path | None = request.config.getoption("--site")
    if given is not None:
        assert (given / "objects.inv").is_file(), f"--site: there is no site in {given}"
        return given.resolve()
    # The extra lint brings Sphinx, too, but not what the site needs besides.
    if any(find_spec(name) is None for name in ("sphinx", "furo", "myst_parser")):
        pytest.skip("needs Sphinx: pip install '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    build_site(ROOT / "docs", folder / "html", folder / "doctrees")
    return folder / "html"


@pytest.fixture(scope="session")
def site_pages(site: Path) -> dict[Path, Page]:
    """All pages of the site."""
    return {path: read_page(path.read_text()) for path in sorted(site.rglob("*.html"))}
