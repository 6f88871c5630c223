"""Print what pyproject.toml requires to build, test and measure, one a line for pip's -r."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"
EXTRAS = ("test", "bench")


def to_build() -> list[str]:
    """The requirements of a build."""
    requires: list[str] = _project()["build-system"]["requires"]
    return requires


def to_run() -> list[str]:
    """The requirements of the package, its tests and its benchmarks."""
    project = _project()["project"]
    found: list[str] = list(project["dependencies"])
    for extra in EXTRAS:
        found += _extra(project, extra)
    return found


def _project() -> Any:
    return tomllib.loads(PROJECT.read_text(encoding="utf-8"))


def _extra(project: dict[str, Any], extra: str) -> list[str]:
    """Those of an extra and of the extras that it names, since no index has morphogen."""
    found = []
    for line in project["optional-dependencies"][extra]:
        if others := re.fullmatch(rf"{project['name']}\[(.+)\]", line):
            for name in others[1].split(","):
                found += _extra(project, name.strip())
        else:
            found.append(line)
    return found


if __name__ == "__main__":
    print(*to_build(), *to_run(), sep="\n")
