"""Move the wheels that a host need not be sent, since it has the package, to FOLDER/left-out.

    python tools/gpu/left_out.py FOLDER HAVE PYTHON_VERSION

HAVE lists the host's packages, as `pip list --format=freeze` does. One without a version is taken
to be new enough; but no requirement of one certain version (==) is met by it.
"""

from __future__ import annotations

import email
import re
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import requirements

try:
    from packaging.requirements import InvalidRequirement, Requirement
except ModuleNotFoundError:
    # pip has a copy. Where it is imported, setuptools cannot be imported any more.
    from pip._vendor.packaging.requirements import (  # type: ignore[assignment]
        InvalidRequirement,
        Requirement,
    )


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def read_list(text: str) -> dict[str, str]:
    """Read the packages and versions of a host; the version may be empty."""
    had = {}
    for line in text.splitlines():
        name, _, version = map(str.strip, line.partition("#")[0].partition("=="))
        if not name or "@" in name:  # a package that was built there has no version here
            continue
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
            raise SystemExit(f"expected a line of pip list --format=freeze, not {line!r}")
        had[normalized(name)] = version
    return had


def wanted(wheels: list[Path], python: str) -> Iterator[Requirement]:
    """All that the project and the wheels require, as far as it applies to the host."""
    lines = requirements.to_build() + requirements.to_run()
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as file:
            (name,) = (name for name in file.namelist() if re.fullmatch(r"[^/]+/METADATA", name))
            lines += email.message_from_bytes(file.read(name)).get_all("Requires-Dist", [])
    for line in lines:
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue  # of no package that pip could install
        host = {"python_version": python, "python_full_version": f"{python}.0", "extra": ""}
        if requirement.marker is None or requirement.marker.evaluate(host):
            yield requirement


def meets(version: str, requirement: Requirement) -> bool:
    """Whether a version, or an unknown one if it is empty, is what is required."""
    if version:
        return requirement.specifier.contains(version, prereleases=True)
    return not any(
        specifier.operator == "==" and not specifier.version.endswith(".*")
        for specifier in requirement.specifier
    )


def left_out(wheels: list[Path], had: dict[str, str], python: str) -> list[Path]:
    """The wheels of packages that the host has in a version that all requirements allow."""
    unmet = {
        normalized(requirement.name)
        for requirement in wanted(wheels, python)
        if not meets(had.get(normalized(requirement.name), ""), requirement)
    }
    names = {wheel: normalized(wheel.name.split("-")[0]) for wheel in wheels}
    return [wheel for wheel, name in names.items() if name in had and name not in unmet]


def main() -> None:
    folder, had, python = sys.argv[1:]
    wheels = sorted(Path(folder).glob("*.whl"))
    dropped = left_out(wheels, read_list(Path(had).read_text(encoding="utf-8")), python)
    aside = Path(folder, "left-out")
    aside.mkdir(exist_ok=True)
    for wheel in dropped:
        wheel.rename(aside / wheel.name)
    print(f"{len(dropped)} of {len(wheels)} wheels left out, since the host has the packages")


if __name__ == "__main__":
    main()
