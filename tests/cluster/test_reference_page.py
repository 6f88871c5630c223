"""The block of docs/reference/cluster.md, as a reader would run it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import morphogen as mg
from naive import naive_answers, random_pages, random_rows

pytestmark = pytest.mark.ray

PAGE = Path(__file__).resolve().parents[2] / "docs/reference/cluster.md"


def test_a_cluster_answers_as_its_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = re.search(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.S | re.M)
    assert block is not None
    pages = random_pages(1100, 4096)
    pages.tofile(tmp_path / "pages.bin")
    monkeypatch.chdir(tmp_path)
    queries = mg.make_queries(random_rows(2, 3, len(pages)), len(pages))[0]
    names: dict[str, Any] = {"queries": queries}
    exec(block[1], names)
    assert np.array_equal(names["answer"].pages, naive_answers(pages, queries))
