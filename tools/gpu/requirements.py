"""Print the requirements of pyproject.toml to build, test and measure, one a line for pip's -r."""

from __future__ import annotations

import argparse
import re
import tomllib
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"
EXTRAS = ("test", "bench")
BUILD, RUN = "build", "run"


def requirements(*purposes: str) -> list[str]:
    """List what is needed to build, to run with tests and benchmarks, or both."""
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))
    found: list[str] = []
    if BUILD in purposes:
        found += project["build-system"]["requires"]
    if RUN in purposes:
        found += project["project"]["dependencies"]
        for extra in EXTRAS:
            found += extra_requirements(project["project"], extra)
    return found


def extra_requirements(project: dict[str, Any], extra: str) -> list[str]:
    """Return the requirements of an extra and those it names, since no index has morphogen."""
    found = []
    for line in project["optional-dependencies"][extra]:
        others = re.fullmatch(rf"{project['name']}\[(.+)\]", line)
        if others:
            for name in others[1].split(","):
                found += extra_requirements(project, name.strip())
        else:
            found.append(line)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", action="store_true", help="only what the build asks for")
    purposes = (BUILD,) if parser.parse_args().build else (BUILD, RUN)
    print(*requirements(*purposes), sep="\n")


if __name__ == "__main__":
    main()
