"""The code blocks of README and docs: found by markdown-it, run as a reader runs them.

A page's ``sh`` blocks run in one shell (``bash -euo pipefail``), its ``python`` blocks in one
Python with warnings as errors, both in one empty folder and in the order of the page. What a block
prints is compared with the ``text`` or ``console`` block that comes next, spaces at the ends of
lines aside; ``...`` stands for anything. Ports of this machine are replaced by free ones, in blocks
and in output.

On the line before a block may stand:

``<!-- runs: slow -->``
    It runs with --slow only.
``<!-- runs: stand-in GPU -->``
    It runs in another shell, or another Python, whose CUDA driver is the tests' stand-in.
``<!-- runs: FILE, ... -->``
    Files of the repository that run it. A test must name the page, or each command line's program
    and options must stand in one of the files.
``<!-- text: numbers differ -->``
    The output below is compared but for its numbers, times and digests, and the width of columns.
``<!-- text: REASON -->``
    A ``text`` or ``console`` block that is no output, or one that is another at each run.

A block of any other language, or with any other marker, is an error.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parents[2]
RUN = ("sh", "python")
SHOWN = ("text", "console")
SLOW, GPU, NUMBERS = "slow", "stand-in GPU", "numbers differ"
# Directives of MyST that show code. The others are fences, too, but text.
CODE = ("{code}", "{code-block}", "{code-cell}", "{sourcecode}", "{doctest}", "{literalinclude}")

_MARKER = re.compile(r"\s*<!-- (runs|text): (.+?) -->\s*")
_NUMBER = re.compile(r"[0-9a-f]{16,}|\d[\d,.:TZ-]*")


class DocumentError(Exception):
    """A page whose blocks are not as they must be."""


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of code.

    Attributes
    ----------
    page : str
        Path of the page from the root of the repository.
    line : int
        Of the fence, from 1.
    language : str
    text : str
    kind, marker : str
        "runs" or "text", and what follows it; both empty without a marker.
    """

    page: str
    line: int
    language: str
    text: str
    kind: str = ""
    marker: str = ""

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def files(self) -> list[str]:
        """The files that run it."""
        if self.kind != "runs" or self.marker in (SLOW, GPU):
            return []
        return [name.strip() for name in self.marker.split(",")]

    @property
    def is_run(self) -> bool:
        """Whether the test of its page runs it."""
        return self.language in RUN and not self.files

    @property
    def commands(self) -> list[str]:
        """Its command lines; continued lines are one."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]


def pages() -> list[str]:
    """All pages that people write and read."""
    found = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("asv_bench/*.md")]
    names = sorted(path.relative_to(ROOT).as_posix() for path in found)
    return [name for name in names if not name.startswith(("docs/_build/", "docs/build/"))]


def page_blocks(page: str) -> list[Block]:
    """The blocks of a page."""
    return parse(page, (ROOT / page).read_text(encoding="utf-8"))


def parse(page: str, text: str) -> list[Block]:
    """The blocks of a page's text.

    Raises
    ------
    DocumentError
        If a block would be neither run nor compared, and does not say why; if a marker stands
        alone or is none that its block may have.
    """
    lines = text.splitlines()
    blocks, marked = [], set()
    for token in MarkdownIt().parse(text):
        if token.type == "code_block":
            assert token.map is not None
            raise DocumentError(f"{page}:{token.map[0] + 1}: indented code: use a fence")
        if token.type != "fence":
            continue
        assert token.map is not None
        start = token.map[0]
        language = token.info.strip()
        if language.startswith("{"):
            if language.startswith(CODE) or "```" in token.content:
                raise DocumentError(f"{page}:{start + 1}: code in a directive: use a fence")
            continue
        found = _MARKER.fullmatch(lines[start - 1]) if start else None
        kind, marker = found.groups() if found else ("", "")
        if found:
            marked.add(start - 1)
        blocks.append(Block(page, start + 1, language, token.content, kind, marker))
    for number, line in enumerate(lines):
        if "<!-- runs:" in line or "<!-- text:" in line:
            if not _MARKER.fullmatch(line):
                raise DocumentError(f"{page}:{number + 1}: a marker stands alone on its line")
            if number not in marked:
                raise DocumentError(f"{page}:{number + 1}: a marker without a block right below")
    for before, block in zip([None, *blocks], blocks, strict=False):
        _check(block, before)
    return blocks


def _check(block: Block, before: Block | None) -> None:
    """Whether a block is run, compared, or says why not."""
    fault = ""
    if block.language in SHOWN:
        output = before is not None and before.is_run
        if block.kind == "runs" and not block.files:
            fault = f"{block.language} cannot run"
        elif not output and (not block.kind or block.marker == NUMBERS):
            fault = (
                f"{block.language} that is no output of a block that runs: "
                "say <!-- text: REASON --> on the line before"
            )
    elif block.kind == "text":
        fault = f"only {' and '.join(SHOWN)} may be marked <!-- text: ... -->"
    elif block.language not in RUN and not block.files:
        fault = (
            f"a block of language {block.language!r} is not run: "
            "name the file that runs it, <!-- runs: FILE -->"
        )
    if not fault:
        fault = "; ".join(
            f"there is no file {name!r}" for name in block.files if not (ROOT / name).is_file()
        )
    if fault:
        raise DocumentError(f"{block.where}: {fault}")


def missing_commands(block: Block) -> list[str]:
    """Command lines of a block that none of the files it names run."""
    texts = [(ROOT / name).read_text(encoding="utf-8") for name in block.files]
    if any(
        Path(name).match("test_*.py") and _names_page(text, block.page)
        for name, text in zip(block.files, texts, strict=True)
    ):
        return []  # it takes the block from the page
    # Commands that a script takes from the page by sed.
    taken = [
        line
        for text in texts
        for program in re.findall(rf"sed -n '(.+?)' {re.escape(block.page)}\b", text)
        for line in subprocess.run(
            ["sed", "-n", program, block.page], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.splitlines()
    ]
    return [
        command
        for command in block.commands
        if command not in taken
        and not any(
            all(re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text) for word in words)
            for text in texts
            for words in [_essence(command)]
        )
    ]


def _names_page(text: str, page: str) -> bool:
    """Whether a test has the path of a page, in one piece or part by part."""
    return f'"{page}"' in text or (
        "/" in page and all(f'"{part}"' in text for part in page.split("/"))
    )


def _essence(command: str) -> list[str]:
    """The program of a command line, without its folder, and the options."""
    words = shlex.split(command, comments=True)
    if words[0] in ("python", "python3") and not words[1].startswith("-"):
        words = words[1:]
    return [Path(words[0]).name, *(word for word in words[1:] if word.startswith("--"))]


def mismatch(block: Block, output: str) -> str:
    """What a page shows and what was printed, where they differ; else nothing."""
    shown, printed = _stripped(block.text), _stripped(output)
    wanted, found = shown, printed
    if block.marker == NUMBERS:
        wanted, found = (re.sub(r" +", " ", _NUMBER.sub("0", text)) for text in (shown, printed))
    pattern = ".*?".join(re.escape(part) for part in wanted.split("..."))
    if re.fullmatch(pattern, found, re.DOTALL):
        return ""
    return f"the page shows\n{shown}\n\nand what it does is\n{printed}"


def _stripped(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.rstrip().lstrip("\n").splitlines())
