"""The places in CONTRIBUTING.md's "Find it in one minute" hold the functions that it names."""

from __future__ import annotations

import re

import pytest

from documents import ROOT

_, _, SECTION = (ROOT / "CONTRIBUTING.md").read_text().partition("### Find it in one minute\n")
ANSWERS = re.findall(r"`([\w.]+)`[^`]*? in `([\w/]+\.\w+)`", SECTION.partition("\n## ")[0])


def test_each_question_has_an_answer() -> None:
    questions = re.findall(r"^\| Where .+? \| (.+) \|$", SECTION, re.MULTILINE)
    assert len(questions) == 12
    assert all(any(f"`{name}`" in answer for name, _ in ANSWERS) for answer in questions)


@pytest.mark.parametrize(("name", "file"), ANSWERS)
def test_the_answer_is_there(name: str, file: str) -> None:
    folder = ROOT if file.startswith("kernels/") else ROOT / "src" / "morphogen"
    text = (folder / file).read_text()
    for part in name.split("."):
        assert re.search(rf"\b(class|def|int|KeyFault) {part}\b", text), part
