"""Every code block of README and docs runs, or says which file runs it."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

import pytest
from documents import (
    GPU,
    NUMBERS,
    ROOT,
    SLOW,
    Block,
    DocumentError,
    mismatch,
    missing_commands,
    page_blocks,
    pages,
    parse,
)
from page_reader import Ports, Reader
from standin_driver import environment

PAGES = pages()
TOOLS = ("curl", "taskset")  # that blocks may use, and a machine may lack


def pages_with(marker: str | None) -> list[str]:
    """Pages that have a block which runs, with this marker if one is given."""
    found = []
    for page in PAGES:
        with suppress(DocumentError):  # the test of its markers says so
            if any(block.is_run and marker in (None, block.marker) for block in page_blocks(page)):
                found.append(page)
    return found


def read_page(page: str, folder: Path, request: pytest.FixtureRequest, *, slow: bool) -> None:
    blocks = [block for block in page_blocks(page) if slow or block.marker != SLOW]
    text = "\n".join(block.text for block in blocks if block.is_run and block.language == "sh")
    for tool in TOOLS:
        if tool in text and shutil.which(tool) is None:
            pytest.skip(f"needs {tool}")
    standin = {}
    if any(block.marker == GPU for block in blocks):
        pytest.importorskip("cuda.bindings", reason="needs cuda-bindings")
        standin = environment(request.getfixturevalue("standin_directory"), devices=2)
    with Reader(folder, standin) as reader:
        reader.read(page_blocks(page), slow)


@pytest.mark.parametrize("page", PAGES)
def test_every_block_runs_or_says_what_runs_it(page: str) -> None:
    for block in page_blocks(page):
        if block.files:
            assert not missing_commands(block), f"{block.where}: not in {block.marker}"


@pytest.mark.parametrize(
    ("page", "slow"),
    [
        *((page, False) for page in pages_with(None)),
        *(pytest.param(page, True, marks=pytest.mark.slow) for page in pages_with(SLOW)),
    ],
)
def test_page(page: str, slow: bool, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    read_page(page, tmp_path, request, slow=slow)


def test_the_pages_that_people_read_first_run_something() -> None:
    assert {"README.md", "docs/getting-started.md"} <= set(pages_with(None))


# What the checks above find


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("```\nls\n```", "a block of language '' is not run"),
        ("```yaml\na: 1\n```", "a block of language 'yaml' is not run"),
        ("```text\nabc\n```", "text that is no output"),
        ("<!-- runs: no/such.py -->\n```sh\nls\n```", "no file 'no/such.py'"),
        ("<!-- text: why not -->\n```sh\nls\n```", "only text and console"),
        ("<!-- runs: slow -->\n```text\nabc\n```", "text cannot run"),
        ("<!-- runs: slow -->\n\n```sh\nls\n```", "a marker without a block"),
        ("so <!-- runs: slow -->\n```sh\nls\n```", "a marker stands alone"),
        ("a\n\n    ls\n", "indented code"),
        ("```{code-block} python\n1 / 0\n```", "code in a directive"),
        ("````{note}\n```python\n1 / 0\n```\n````", "code in a directive"),
        ("- a\n\n  ```yaml\n  a: 1\n  ```", "a block of language 'yaml' is not run"),
    ],
)
def test_a_block_that_nothing_runs_is_an_error(text: str, words: str) -> None:
    with pytest.raises(DocumentError, match=words):
        parse("page.md", text)


def test_blocks_are_found_with_their_markers() -> None:
    text = "# A\n\n<!-- runs: slow -->\n```sh\nls  # all\n```\n\n```{note}\nb\n```\n"
    (block,) = parse("page.md", text)
    assert block == Block("page.md", 4, "sh", "ls  # all\n", "runs", "slow")


def test_a_command_that_its_file_does_not_run_is_an_error() -> None:
    (block,) = parse(
        "README.md",
        "<!-- runs: .ci/run, tests/engine/cuda/test_page_kernels.py -->\n"
        "```sh\npython tools/gate.py\npython tools/gate.py --never\nno-such-tool\n```",
    )
    assert missing_commands(block) == ["python tools/gate.py --never", "no-such-tool"]


def test_a_test_that_a_block_names_must_name_its_page() -> None:
    text = "<!-- runs: tests/dpf/test_reference.py -->\n```text\nno such vector\n```"
    assert missing_commands(*parse("docs/protocol.md", text)) == []
    assert missing_commands(*parse("docs/service.md", text)) == ["no such vector"]


def test_commands_that_a_script_takes_from_a_page_are_run_by_it() -> None:
    set_up = [block for block in page_blocks("README.md") if block.files == [".ci/run"]]
    assert [block.text.split(" && ")[0] for block in set_up[:2]] == ["python3 -m venv .venv"] * 2
    assert all(not missing_commands(block) for block in set_up)
    (block,) = parse("README.md", "<!-- runs: .ci/run -->\n```sh\npython3 --never .venv\n```")
    assert missing_commands(block) == ["python3 --never .venv"]


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("a  \nb", "a\nb   \n\n", True),
        ("a\n...\nd", "a\nb\nc\nd\n", True),
        ('{"time": "...", "path": "/epoch"}', '{"time": "12:30", "path": "/epoch"}', True),
        ("a\nb", "a\nc", False),
        ("a", "a\nb", False),
        ("(1.5)", "(125)", False),
        ("1 page", "2 page", False),
    ],
)
def test_output_is_compared(shown: str, printed: str, same: bool) -> None:
    assert (mismatch(Block("page.md", 1, "text", shown), printed) == "") == same


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("pages  1,234", "pages      7", True),
        ('{"time": "2026-11-25T02:40:52.250Z"}', '{"time": "2027-01-01T12:40:52.999Z"}', True),
        (
            "digest b28847adef63d8cfd63115206ebe9636",
            "digest 7c6af2abb171385ab28847ade000d8cf",
            True,
        ),
        ("1 page", "1 key", False),
        ("1 page", "one page", False),
    ],
)
def test_output_is_compared_but_for_numbers(shown: str, printed: str, same: bool) -> None:
    block = Block("page.md", 1, "text", shown, "text", NUMBERS)
    assert (mismatch(block, printed) == "") == same


def read(text: str, folder: Path) -> None:
    with Reader(folder, {}) as reader:
        reader.read(parse("page.md", text), slow=False)


def test_blocks_of_a_page_go_on_from_one_another(tmp_path: Path) -> None:
    read(
        "```sh\nexport A=1\nx=2\n```\n```python\na = 3\n```\n"
        "```sh\necho $A $x > file\n```\n"
        "```python\nfrom pathlib import Path\nprint(Path('file').read_text().split(), a)\n```\n"
        "```text\n['1', '2'] 3\n```\n",
        tmp_path,
    )


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ("```sh\necho said\nfalse\necho on\n```", r"(?s)page.md:1: this block failed.*said\n$"),
        ("```sh\nfalse | cat\n```", "failed"),
        ("\n```python\na = 1\n1 / 0\n```", r"(?s)page.md:2: .*line 4.*ZeroDivisionError"),
        ("```python\nimport warnings\nwarnings.warn('old')\n```", "UserWarning: old"),
        ("```sh\necho a\n```\n```text\nb\n```", r"(?s)page.md:4: the page shows\nb\n.*\na$"),
        ("```sh\nsleep 1000 &\n```", "left running: "),
    ],
)
def test_a_block_that_does_not_do_what_the_page_says_is_an_error(
    block: str, words: str, tmp_path: Path
) -> None:
    with pytest.raises(DocumentError, match=words):
        read(block, tmp_path)


def test_ports_are_free_ones_and_the_same_throughout_a_page() -> None:
    ports = Ports()
    text = "a --port 8000\ncurl http://127.0.0.1:8000/ http://127.0.0.1:8001/ 8000 pages x[:8000]"
    replaced = ports.replace(text)
    assert len({ports["8000"], ports["8001"], "8000", "8001"}) == 4
    assert replaced == (
        f"a --port {ports['8000']}\ncurl http://127.0.0.1:{ports['8000']}/ "
        f"http://127.0.0.1:{ports['8001']}/ 8000 pages x[:8000]"
    )
    assert ports.replace(text) == replaced


def test_all_pages_are_looked_at() -> None:
    assert {"README.md", "docs/service.md", "docs/benchmarks/README.md"} <= set(PAGES)
    assert all((ROOT / page).is_file() for page in PAGES)
