"""Every code block of README and docs runs, or names the file that runs it.

A page is one test. Sybil's own collection would make a test of each block, but a block continues
those before it.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from sybil.example import SybilFailure

from documents import ROOT, Ports, Reader, difference, pages
from standin_driver import environment


@pytest.mark.parametrize("page", pages())
def test_page(page: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    def standin() -> dict[str, str]:
        pytest.importorskip("cuda.bindings", reason="needs cuda-bindings")
        return environment(request.getfixturevalue("standin_directory"), devices=2)

    Reader(tmp_path, standin).read(ROOT / page)


# Faults of pages that the test finds


def read(text: str, folder: Path) -> None:
    page = folder / "page.md"
    page.write_text(text, encoding="utf-8")
    Reader(folder).read(page)


def test_blocks_of_a_page_go_on_from_one_another(tmp_path: Path) -> None:
    read(
        "```sh\nexport A=1\nx=2\n```\n```python\na = 3\n```\n"
        "```sh\necho $A $x > file\n```\n"
        "```python\nfrom pathlib import Path\nprint(Path('file').read_text().split(), a)\n```\n"
        "```text\n['1', '2'] 3\n```\n",
        tmp_path,
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("```\nls\n```", "'' is not run"),
        ("- a\n\n  ```yaml\n  a: 1\n  ```", "'yaml' is not run"),
        ("```text\nabc\n```", "no output of a block that runs"),
        ("<!-- runs: no/such.py -->\n```sh\nls\n```", "no file no/such.py"),
        ("<!-- runs: .ci/run -->\n```sh\npip --never\n```", "not in .ci/run: pip --never"),
        ("```sh\necho said\nfalse\necho on\n```", r"(?s)line 1,.* fails .*said\n$"),
        ("```sh\nfalse | cat\n```", "fails"),
        ("\n```python\na = 1\n1 / 0\n```", r"(?s)line 2,.* line 4.*ZeroDivisionError"),
        ("```python\nimport warnings\nwarnings.warn('old')\n```", "UserWarning: old"),
        ("```sh\necho a\n```\n```text\nb\n```", r"(?s)line 4,.*shows\nb\n.*prints\na$"),
    ],
)
def test_a_block_that_is_not_as_the_page_says_is_an_error(
    text: str, words: str, tmp_path: Path
) -> None:
    with pytest.raises(SybilFailure, match=words):
        read(text, tmp_path)


@pytest.mark.parametrize(
    ("shown", "printed", "but_for_numbers", "same"),
    [
        ("a  \nb", "a\nb   \n\n", False, True),
        ('{"time": "...", "path": "/epoch"}', '{"time": "12:30", "path": "/epoch"}', False, True),
        ("a", "a\nb", False, False),
        ("(1.5)", "(125)", False, False),
        ("pages  1,234", "pages      7", True, True),
        ("at 02:40:52.250Z b28847adef63d8cf", "at 12:40:52.999Z 7c6af2abb171385a", True, True),
        ("1 page", "1 key", True, False),
    ],
)
def test_output_is_compared(shown: str, printed: str, but_for_numbers: bool, same: bool) -> None:
    assert (difference(shown, printed, but_for_numbers) is None) == same


def test_ports_are_free_ones_and_the_same_throughout_a_page() -> None:
    ports = Ports()
    replaced = ports.replace("--port 8000 http://127.0.0.1:8000/ http://127.0.0.1:8001/ [:8000]")
    one, other = ports["8000"], ports["8001"]
    assert len({one, other, "8000", "8001"}) == 4
    assert replaced == f"--port {one} http://127.0.0.1:{one}/ http://127.0.0.1:{other}/ [:8000]"
