"""Links between files of the repository, as a forge shows them.

``sphinx-build -W`` checks the links and anchors of the site, and those of README, which a page of
docs/ includes. Only ``sphinx-build -b linkcheck docs build/linkcheck`` asks other hosts.
"""

from __future__ import annotations

import re

import pytest

from documents import ROOT, pages

LINK = re.compile(r"\]\((?!https?:|#)([^)\s#]+)")


@pytest.mark.parametrize("page", pages())
def test_links_within_the_repository_lead_to_files(page: str) -> None:
    document = ROOT / page
    links = LINK.findall(document.read_text(encoding="utf-8"))
    assert [link for link in links if not (document.parent / link).exists()] == []


def test_links_within_the_repository_are_found() -> None:
    text = "[a](b.md#c), ![d](e.svg), [f](https://g.example/), [h](#i), [j](../k/)"
    assert LINK.findall(text) == ["b.md", "e.svg", "../k/"]
