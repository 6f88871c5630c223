"""Compare the costs of the last commit with its parent's and a pinned older commit's.

    python asv_bench/continuous.py

Each comparison is `asv continuous` over the benchmarks named `track_cost...`. What is worse by more
than a tenth is measured once more, and counts if it is so again. The pinned commit shows what many
small losses come to. It stands in budget.json; there, too, `accepted` takes a regular expression
for the name of a cost that may rise, and the reason, until a later commit is pinned.

Exits with 1 if a cost is worse, with 2 if a commit cannot be built or a benchmark fails.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
COSTS = r"\.track_cost"
FACTOR = "1.1"
# A row of asv's table that says worse, with the benchmark's name in its last column.
WORSE = re.compile(r"^\| \+ .*\| (\S.*?) +\|$", re.M)


class ComparisonError(Exception):
    """asv could not compare two commits."""


def run_asv(config: Path, *arguments: str) -> tuple[int, str]:
    """Run asv, show what it prints. Gives its exit status and that."""
    command = [sys.executable, "-m", "asv", *arguments[:1], f"--config={config}", *arguments[1:]]
    process = subprocess.Popen(
        command, cwd=config.parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        print(line, end="", flush=True)
        lines.append(line)
    return process.wait(), "".join(lines)


def find_worse(config: Path, base: str, head: str, names: Sequence[str]) -> list[str]:
    """The benchmarks, of those that match, whose cost is worse than the base's."""
    options = [f"--factor={FACTOR}", "--show-stderr", "--launch-method=forkserver"]
    status, output = run_asv(
        config, "continuous", *options, *(f"--bench={name}" for name in names), base, head
    )
    found = WORSE.findall(output)
    # asv exits with 1 for what is worse, and for mistakes in its usage.
    if status != int(bool(found)):
        raise ComparisonError(f"asv could not compare {head} with {base}: exit status {status}")
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Compare the last commit's costs with older ones.")
    parser.add_argument("--config", type=Path, default=FOLDER / "asv.conf.json", metavar="FILE")
    parser.add_argument("--budget", type=Path, default=FOLDER / "budget.json", metavar="FILE")
    parser.add_argument("--bench", default=COSTS, metavar="REGEX", help="only these benchmarks")
    options = parser.parse_args(arguments)
    budget = json.loads(options.budget.read_text(encoding="utf-8"))
    accepted: dict[str, str] = budget["accepted"]
    run_asv(options.config, "machine", "--yes")
    failed = False
    for base in ("HEAD^", budget["pinned"]):
        worse = find_worse(options.config, base, "HEAD", [options.bench])
        if worse:
            again = [f"^{re.escape(name)}$" for name in worse]
            worse = find_worse(options.config, base, "HEAD", again)
        for name in worse:
            reasons = [why for pattern, why in accepted.items() if re.search(pattern, name)]
            failed |= not reasons
            print(f"{name} is worse than at {base}: {' '.join(reasons) or 'not accepted'}")
    return int(failed)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ComparisonError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
