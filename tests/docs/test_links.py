"""Links: of the documents as they lie in the repository, and of the site that is made of them.

Addresses on other hosts are checked for their form only, since there may be no network.
``pytest tests/docs/test_links.py -k other_hosts -s`` lists them, and
``sphinx-build -b linkcheck docs build/linkcheck`` asks the hosts.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token
from mdit_py_plugins.anchors import anchors_plugin

from built_site import ROOT, Page

FOLDERS = ("docs", "asv_bench", "kernels", "tests", "tools", "src")
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *(path for name in FOLDERS for path in (ROOT / name).rglob("*.md"))]
)


@cache
def parse(document: Path) -> list[Token]:
    """A document's tokens; each heading has the anchor that forges give it."""
    parser = MarkdownIt("commonmark").enable("table").use(anchors_plugin, max_level=6)
    return parser.parse(document.read_text())


def links(document: Path) -> Iterator[str]:
    """Where a document's links and pictures lead."""
    for token in parse(document):
        for child in token.children or ():
            if child.type in ("link_open", "image"):
                yield str(child.attrs["href" if child.type == "link_open" else "src"])


def anchors(document: Path) -> set[str]:
    """What a link may name after a #."""
    return {str(token.attrs["id"]) for token in parse(document) if token.type == "heading_open"}


def fault(document: Path, link: str, root: Path = ROOT) -> str:
    """What is wrong with a link within the repository; empty if nothing is."""
    url = urlsplit(link)
    target = Path(os.path.normpath(document.parent / unquote(url.path))) if url.path else document
    if not target.is_relative_to(root):
        return "leads out of the repository"
    if not target.exists():
        return "there is no such file"
    if url.fragment and (target.suffix != ".md" or url.fragment not in anchors(target)):
        return "there is no such heading"
    return ""


ADDRESS = re.compile(r"https?://[a-z0-9-]+(\.[a-z0-9-]+)+(:\d+)?(/\S*)?")


def is_elsewhere(link: str) -> bool:
    """Whether a link names another host, or is no path for another reason."""
    return bool(re.match(r"[a-z+.-]+:|//", link, re.IGNORECASE))


# Documents


def test_the_documents_are_found() -> None:
    names = {path.relative_to(ROOT).as_posix() for path in DOCUMENTS}
    assert names >= {"README.md", "CHANGELOG.md", "docs/protocol.md", "asv_bench/README.md"}
    assert len([link for path in DOCUMENTS for link in links(path)]) > 50


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_within_the_repository_lead_somewhere(document: Path) -> None:
    faults = {link: fault(document, link) for link in links(document) if not is_elsewhere(link)}
    assert not {link: why for link, why in faults.items() if why}


def test_links_to_other_hosts_are_well_formed() -> None:
    found = {link: path for path in DOCUMENTS for link in links(path) if is_elsewhere(link)}
    assert found
    for link, path in sorted(found.items()):
        print(f"{link}  {path.relative_to(ROOT)}")
        assert ADDRESS.fullmatch(link), path


@pytest.mark.parametrize(
    ("link", "why"),
    [
        ("other.md#second-part", ""),
        ("#first", ""),
        ("sub/", ""),
        ("other.md#third", "there is no such heading"),
        ("#second-part", "there is no such heading"),
        ("sub/#first", "there is no such heading"),
        ("gone.md", "there is no such file"),
        ("../../elsewhere.md", "leads out of the repository"),
    ],
)
def test_a_wrong_link_is_found(tmp_path: Path, link: str, why: str) -> None:
    document = tmp_path / "page.md"
    document.write_text(f"# First\n\n[see]({link})\n")
    (tmp_path / "other.md").write_text("# Other\n\n## Second `part`\n")
    (tmp_path / "sub").mkdir()
    assert list(links(document)) == [link]
    assert fault(document, link, tmp_path) == why


# The site


def test_links_within_the_site_lead_somewhere(site: Path, site_pages: dict[Path, Page]) -> None:
    faults = []
    for path, page in site_pages.items():
        for link in [*page.followed, *page.loaded]:
            if is_elsewhere(link):
                continue
            url = urlsplit(link)
            target = Path(os.path.normpath(path.parent / unquote(url.path))) if url.path else path
            known = site_pages.get(target)
            if not target.is_relative_to(site) or not target.is_file():
                faults.append(f"{path.relative_to(site)}: no file {link}")
            elif url.fragment and (known is None or unquote(url.fragment) not in known.anchors):
                faults.append(f"{path.relative_to(site)}: no anchor {link}")
    assert not faults


def test_links_of_the_site_to_other_hosts_are_well_formed(site_pages: dict[Path, Page]) -> None:
    found = {link for page in site_pages.values() for link in page.followed if is_elsewhere(link)}
    assert "https://litestar.dev" in found
    assert not [link for link in found if not ADDRESS.fullmatch(link)]
