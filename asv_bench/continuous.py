"""Compare the costs of the last commit with its parent's and a pinned older commit's.

    python asv_bench/continuous.py

Each comparison is `asv continuous` over the benchmarks named `track_cost...`, but for those that
need a GPU and those of `shapes`. A cost that is worse by more than a tenth is measured again, up to
three times, and counts if it is worse each time: on a shared machine one process in seven is slower
by a tenth as a whole. A commit that differs in documents and tests only has the costs of the other,
and is not measured. The pinned commit shows the sum of many small losses. budget.json, beside
asv's settings, names it. There `accepted` maps a regular expression for costs that may rise to the
reason, until a later commit is pinned.

Exits with 1 if a cost is worse, with 2 if a commit cannot be built or a benchmark fails.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

COSTS = r"^(?!(gpu|shapes)\.).*\.track_cost"
# A row of asv's table that reports a loss, with the benchmark's name in its last column.
WORSE = re.compile(r"^\| \+ .*\| (\S.*?) +\|$", re.M)


def is_measured(config: Path, base: str) -> bool:
    """Return whether HEAD and a base differ in anything that is built or measured."""
    unmeasured = [f":(top,exclude){path}" for path in ("docs", "tests", "*.md")]
    diff = ["git", "diff", "--quiet", base, "HEAD", "--", ":(top)", *unmeasured]
    found = subprocess.run(diff, cwd=config.parent, check=False).returncode
    if found > 1:
        print(f"git could not compare HEAD with {base}", file=sys.stderr)
        sys.exit(2)
    return found == 1


def find_worse(config: Path, base: str, names: list[str]) -> list[str]:
    """Return the benchmarks, of those that match, whose cost is worse at HEAD than at a base."""
    asv = [sys.executable, "-m", "asv", "continuous", f"--config={config}", "--factor=1.1"]
    asv += ["--show-stderr", "--launch-method=forkserver", *(f"--bench={name}" for name in names)]
    run = subprocess.run([*asv, base, "HEAD"], stdout=subprocess.PIPE, text=True, check=False)
    print(run.stdout, flush=True)
    found = WORSE.findall(run.stdout)
    # asv exits with 1 both for losses and for mistakes in its usage.
    if run.returncode != int(bool(found)):
        print(f"asv could not compare HEAD with {base}", file=sys.stderr)
        sys.exit(2)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare the last commit's costs with older ones.")
    settings = Path(__file__).resolve().with_name("asv.conf.json")
    parser.add_argument("--config", type=Path, default=settings, metavar="FILE")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="of a loss: 3")
    parser.add_argument("--bench", default=COSTS, metavar="REGEX", help="only these benchmarks")
    options = parser.parse_args()
    budget = json.loads(options.config.with_name("budget.json").read_text(encoding="utf-8"))
    asv = [sys.executable, "-m", "asv", "machine", "--yes", f"--config={options.config}"]
    subprocess.run(asv, check=True, stdout=subprocess.DEVNULL)
    failed = False
    for base in ("HEAD^", budget["pinned"]):
        if not is_measured(options.config, base):
            print(f"HEAD differs from {base} in documents and tests only")
            continue
        worse = find_worse(options.config, base, [options.bench])
        for _ in range(options.repeats):
            if worse:
                worse = find_worse(options.config, base, [f"^{re.escape(name)}$" for name in worse])
        for name in worse:
            reasons = [why for what, why in budget["accepted"].items() if re.search(what, name)]
            failed |= not reasons
            print(f"{name} is worse than at {base}: {' '.join(reasons) or 'not accepted'}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
