"""Count what can be counted, and compare it with budget.json.

    python asv_bench/budget.py             exits with 1 where a count is not the recorded one
    python asv_bench/budget.py --record    writes the counts there
    python asv_bench/budget.py kernels     one group of them alone

A commit that changes a count on purpose records it: the file's diff says what it cost. Gains are
recorded, too, or they could be lost again unseen. Exits with 3 if something needed is missing.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import numpy as np

import morphogen.instruction_set

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tools"), str(HERE.parent / "tools" / "kernels")]

FILE = HERE / "budget.json"
# Modules of counts, and whether compiler, Python and numpy shape what they count.
GROUPS = {"kernels": False, "messages": False, "driver": True, "callgrind": True}
# How far the same code may be from what was recorded; all other counts must be the same.
MARGINS = {"instructions": 0.02, "bytes read": 0.02}
# With another compiler, Python or numpy: enough to see that something is done twice.
MARGIN_ELSEWHERE = 0.3

# By what is counted, then by the count's name.
Counts = dict[str, dict[str, float]]


def toolchain() -> dict[str, str]:
    """What counts of the host's code depend on besides the code."""
    module = Path(str(morphogen.instruction_set.__file__)).read_bytes()
    compiler = re.search(rb"(?:GCC: \([^)]*\)|clang version) [\d.]+", module)
    return {
        "compiler": compiler[0].decode() if compiler else "unknown",
        "python": ".".join(platform.python_version_tuple()[:2]),
        "numpy": ".".join(np.__version__.split(".")[:2]),
    }


def differences(recorded: Counts, counted: Counts, same_toolchain: bool) -> Iterator[str]:
    """Where counts are not the recorded ones."""
    for what in sorted(recorded.keys() | counted.keys()):
        before, now = recorded.get(what, {}), counted.get(what, {})
        for name in sorted(before.keys() | now.keys()):
            if name not in before or name not in now:
                yield f"{what}: {name} {'is no more' if name in before else 'is new'}"
                continue
            margin = MARGINS.get(name, 0.0) if same_toolchain else MARGIN_ELSEWHERE
            if abs(now[name] - before[name]) > margin * before[name]:
                yield f"{what}: {now[name]:,.10g} {name}, recorded are {before[name]:,.10g}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Compare counts with asv_bench/budget.json.")
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"of {', '.join(GROUPS)}")
    parser.add_argument("--record", action="store_true", help="write the counts to the file")
    options = parser.parse_args(arguments)
    if unknown := set(options.groups) - set(GROUPS):
        parser.error(f"no such group: {', '.join(sorted(unknown))}")
    budget = json.loads(FILE.read_text(encoding="utf-8"))
    here = toolchain()
    found = []
    for group in options.groups or GROUPS:
        try:
            counted: Counts = import_module(f"counts.{group}").count_all()
        except NotImplementedError as reason:
            print(f"{group}: {reason}", file=sys.stderr)
            return 3
        if options.record:
            budget["counts"][group] = counted
            if GROUPS[group]:
                budget["toolchains"][group] = here
            continue
        same = not GROUPS[group] or here == budget["toolchains"][group]
        if not same:
            print(f"{group}: recorded with {budget['toolchains'][group]}, here is {here}")
        found += [
            f"{group}: {line}" for line in differences(budget["counts"][group], counted, same)
        ]
    if options.record:
        FILE.write_text(json.dumps(budget, indent=2) + "\n", encoding="utf-8")
    for line in found:
        print(line, file=sys.stderr)
    if found:
        print("If that is meant: python asv_bench/budget.py --record", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
