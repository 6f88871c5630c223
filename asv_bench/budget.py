"""Count what the code executes and exchanges, and compare the counts with budget.json.

    python asv_bench/budget.py             exits with 1 if a count is not the recorded one
    python asv_bench/budget.py --record    writes the counts to budget.json
    python asv_bench/budget.py kernels     counts one group alone

A commit that changes a count on purpose records the new one, and the file's diff shows the cost.
Gains are recorded too, or they could be lost again unseen. Exits with 3 if something needed is
missing.
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
sys.path[:0] = [str(HERE), str(HERE.parent / "tools" / "kernels")]
FILE = HERE / "budget.json"
# The modules of counts, and whether compiler, Python and numpy influence what they count.
GROUPS = {"kernels": False, "messages": False, "driver": True, "callgrind": True}
# The most that counts of the same code may differ from the recorded ones. All others are equal.
MARGINS = {"instructions": 0.02, "bytes read": 0.02}
# The margin with another compiler, Python or numpy. It still shows that something is done twice.
MARGIN_ELSEWHERE = 0.3

Counts = dict[str, dict[str, float]]  # by the counted thing, then by the count's name


def toolchain() -> str:
    """Return the versions that counts of the host's code depend on besides the code."""
    module = Path(str(morphogen.instruction_set.__file__)).read_bytes()
    compiler = re.search(rb"GCC: \([^)]*\) [\d.]+|clang version [\d.]+", module)
    versions = [".".join(v.split(".")[:2]) for v in (platform.python_version(), np.__version__)]
    return f"{compiler and compiler[0].decode()}, Python {versions[0]}, numpy {versions[1]}"


def differences(recorded: Counts, counted: Counts, same_toolchain: bool) -> Iterator[str]:
    """Yield the counts that are not the recorded ones."""
    for what in sorted(recorded.keys() | counted.keys()):
        before, now = recorded.get(what, {}), counted.get(what, {})
        for name in sorted(before.keys() | now.keys()):
            old, new = before.get(name), now.get(name)
            margin = MARGINS.get(name, 0.0) if same_toolchain else MARGIN_ELSEWHERE
            if old is None or new is None or abs(new - old) > margin * old:
                yield f"{what}: {name} {new}, recorded {old}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare counts with asv_bench/budget.json.")
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"of {', '.join(GROUPS)}")
    parser.add_argument("--record", action="store_true", help="write the counts to the file")
    options = parser.parse_args()
    budget = json.loads(FILE.read_text(encoding="utf-8"))
    recorded, toolchains, found = budget["counts"], budget["toolchains"], []
    for group in options.groups or GROUPS:
        try:
            counted: Counts = import_module(f"counts.{group}").count_all()
        except NotImplementedError as reason:
            parser.exit(3, f"{group}: {reason}\n")
        here = toolchain() if GROUPS[group] else ""
        if options.record:
            recorded[group], toolchains[group] = counted, here
        same = here == toolchains[group]
        found += [f"{group} {line}\n" for line in differences(recorded[group], counted, same)]
    if options.record:
        FILE.write_text(json.dumps(budget, indent=2) + "\n", encoding="utf-8")
    parser.exit(int(bool(found)), "".join(found))


if __name__ == "__main__":
    main()
