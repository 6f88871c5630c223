"""The two commits that the gate compares: which they are, what differs, what was accepted."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from gate_rules import Outcome, Verdict

ACCEPT = "Gate-Accept:"


class NothingToCompareError(Exception):
    """There is no commit to compare with."""


class AcceptanceError(Exception):
    """A line that is to accept a change is not of the right form."""


def git(repository: Path, *arguments: str) -> str:
    """What a git command prints, without the last newline."""
    command = ["git", "-C", str(repository), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.rstrip("\n")


@dataclass(frozen=True, slots=True)
class Acceptance:
    """Changes for the worse that a commit message owns up to.

    Attributes
    ----------
    pattern : str
        Found anywhere in the benchmark's name.
    reason : str
    """

    pattern: str
    reason: str


def find_commits(repository: Path, base: str, head: str) -> tuple[str, str]:
    """The hashes of the two commits.

    Raises
    ------
    NothingToCompareError
        If one is not there.
    """
    found = []
    for name in (base, head):
        try:
            found.append(git(repository, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}"))
        except subprocess.CalledProcessError:
            shallow = git(repository, "rev-parse", "--is-shallow-repository") == "true"
            reason = (
                "this clone is shallow: fetch its history (git fetch --unshallow)"
                if shallow
                else "this repository has no such commit; the first commit has no parent"
            )
            raise NothingToCompareError(
                f"nothing to compare with: no commit {name}. {reason}"
            ) from None
    return found[0], found[1]


def find_acceptances(repository: Path, base: str, head: str) -> list[Acceptance]:
    """The changes that the messages of the commits after `base` accept.

    A line of its own: ``Gate-Accept: PATTERN REASON``. The pattern has no spaces.

    Raises
    ------
    AcceptanceError
    """
    found = []
    for line in git(repository, "log", "--format=%B", f"{base}..{head}").splitlines():
        if not line.startswith(ACCEPT):
            continue
        pattern, _, reason = line.removeprefix(ACCEPT).strip().partition(" ")
        if not pattern or not reason.strip():
            raise AcceptanceError(f"{line!r}: expected {ACCEPT} PATTERN REASON")
        try:
            re.compile(pattern)
        except re.error as error:
            raise AcceptanceError(f"{line!r}: no regular expression: {error}") from None
        found.append(Acceptance(pattern, reason.strip()))
    return found


def accept(verdicts: Iterable[Verdict], acceptances: Sequence[Acceptance]) -> list[Verdict]:
    """The verdicts, with what is worse and accepted marked so. What is broken stays broken."""
    judged = []
    for verdict in verdicts:
        if verdict.outcome is Outcome.WORSE:
            for acceptance in acceptances:
                if re.search(acceptance.pattern, verdict.benchmark):
                    verdict = replace(verdict, outcome=Outcome.ACCEPTED, note=acceptance.reason)
                    break
        judged.append(verdict)
    return judged


def unused(verdicts: Iterable[Verdict], acceptances: Sequence[Acceptance]) -> list[Acceptance]:
    """Acceptances that nothing needed."""
    accepted = [v.benchmark for v in verdicts if v.outcome is Outcome.ACCEPTED]
    return [a for a in acceptances if not any(re.search(a.pattern, name) for name in accepted)]


def differ_in_docs_only(repository: Path, base: str, head: str) -> bool:
    """Whether the commits differ in nothing that is built or measured."""
    changed = git(repository, "diff", "--name-only", "--no-renames", base, head).splitlines()
    return bool(changed) and all(is_documentation(PurePosixPath(path)) for path in changed)


def is_documentation(path: PurePosixPath) -> bool:
    # Whatever is not known to be prose counts as code.
    return path.suffix in {".md", ".png", ".svg"} or path.name == "LICENSE"


def uncommitted(repository: Path) -> bool:
    """Whether tracked files differ from the head: asv takes the benchmarks as they lie there."""
    return bool(git(repository, "status", "--porcelain", "--untracked-files=no"))


def export(repository: Path, commit: str, folder: Path) -> None:
    """Write all files of a commit into a folder."""
    archive = subprocess.run(
        ["git", "-C", str(repository), "archive", commit], check=True, capture_output=True
    )
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
