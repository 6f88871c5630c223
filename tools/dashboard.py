"""Measure the last commits with asv, add what GPU hosts measured, and publish asv's site.

Each commit is built into an environment of its own and measured by the suite of the working tree;
a commit that cannot be built is reported and skipped. What was measured before is not measured
again. Everything is written to build/dashboard (environments, results, scripts), the site to
--output; the working tree, committed results and asv's settings in the home folder stay as they
are.

Exit codes: 0 published, 1 nothing to publish or asv failed, 2 wrong usage, 3 a tool is missing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from datetime import UTC, datetime
from pathlib import Path
from textwrap import shorten
from typing import Any

try:
    import asv.plugin_manager  # type: ignore[import-untyped]  # noqa: F401 (makes virtualenv known)
    from asv import util
    from asv.commands.publish import Publish  # type: ignore[import-untyped]
    from asv.commands.run import Run  # type: ignore[import-untyped]
    from asv.config import Config  # type: ignore[import-untyped]
    from asv.console import log  # type: ignore[import-untyped]
    from asv.machine import Machine, MachineCollection  # type: ignore[import-untyped]
    from asv.results import iter_results_for_machine_and_hash  # type: ignore[import-untyped]
    from rich.console import Console
    from rich.table import Table
except ModuleNotFoundError as error:
    print(f"{error.name} is not here: pip install '.[dashboard]'", file=sys.stderr)
    sys.exit(3)

import chart_browser
import dashboard_site
from chart_browser import BrowserMissingError
from dashboard_results import (
    Commit,
    Outcome,
    ResultsError,
    check_results,
    machine_folders,
    merge,
    read_suite,
    unshown,
)
from dashboard_site import OutputError, SiteError, ToolMissingError

ROOT = Path(__file__).resolve().parent.parent
SUITE = ROOT / "asv_bench"
WORK = ROOT / "build" / "dashboard"
COMMITS = 5
FAILED, WRONG_USAGE, TOOL_MISSING = 1, 2, 3


class UsageError(Exception):
    """What was asked for is not here."""


notes = Console(stderr=True, highlight=False, markup=False)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        prog="tools/dashboard.sh",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--commits",
        type=_count,
        default=COMMITS,
        metavar="N",
        help="how many (default: %(default)s)",
    )
    add("--branch", help="whose last commits (default: the one that asv.conf.json names)")
    add("--bench", action="append", metavar="REGEX", help="only these benchmarks; may be repeated")
    add("--quick", action="store_true", help="each once, to see that all run; kept apart")
    add("--machine", default=platform.node(), help="this machine's name (default: %(default)s)")
    add(
        *("--gpu-results", "--results"),
        action="append",
        type=Path,
        default=[],
        metavar="FOLDER",
        help="another host's asv results, beside the committed ones; may be repeated",
    )
    add("--only-publish", action="store_true", help="measure nothing")
    add("--output", type=Path, default=WORK / "site", metavar="FOLDER", help="of the site")
    add("--picture", type=Path, metavar="FILE.png", help="a picture of the speed-up chart, too")
    add("--json", action="store_true", help="print JSON instead of a table")
    return parser.parse_args(arguments)


def _count(text: str) -> int:
    try:
        count = int(text)
    except ValueError:
        count = 0
    if count < 1:
        raise argparse.ArgumentTypeError(f"expected 1 commit or more, not {text}")
    return count


def git(*arguments: str) -> str:
    """Ask git about the repository."""
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def read_branch(name: str) -> list[Commit]:
    """A branch's commits by first parent, as asv sees it, newest first."""
    try:
        lines = git("log", "--first-parent", "--format=%H %s", name, "--").splitlines()
    except subprocess.CalledProcessError as error:
        raise UsageError(f"no branch {name!r} in {ROOT}: {error.stderr.strip()}") from None
    return [Commit(*line.partition(" ")[::2]) for line in lines]


def configure(branch: str | None, results: Path, site: Path) -> Any:
    """What asv.conf.json says, with all that asv writes moved to the work folder."""
    config = Config.load(str(SUITE / "asv.conf.json"))
    config.repo = str(ROOT)
    config.benchmark_dir = str(SUITE / config.benchmark_dir)
    config.results_dir = str(results)
    config.env_dir = str(WORK / "env")
    config.html_dir = str(site)
    if branch is not None:
        config.branches = [branch]
    return config


def describe_machine(name: str, file: Path) -> None:
    """Write what asv wants to know of this machine to a file of ours, not to the home folder.

    Without the kernel's release and odd bytes of memory: a figure's line would end where one of
    these facts changes.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    facts = Machine.get_defaults() | {
        "machine": name,
        "os": platform.system(),
        "ram": f"{round(memory / 2**30)} GiB",
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    known = {name: facts, "version": MachineCollection.api_version}
    file.write_text(json.dumps(known), encoding="utf-8")


def measure(config: Any, options: argparse.Namespace, commits: Sequence[Commit]) -> list[Outcome]:
    """Run the suite over commits, newest first; what has results already keeps them."""
    machine_file = WORK / "machine.json"
    describe_machine(options.machine, machine_file)
    notes.rule(f"Building and measuring {len(commits)} commits", align="left")
    with redirect_stdout(sys.stderr):  # where asv tells of its progress; the report is on stdout
        Run.run(
            config,
            range_spec=[commit.hash for commit in commits],
            bench=options.bench,
            quick=options.quick,
            machine=options.machine,
            _machine_file=str(machine_file),
            skip_successful=True,
            pull=False,
            show_stderr=True,
        )
        log.flush()
    results = Path(config.results_dir)
    suite = read_suite(results)
    outcomes = []
    for commit in commits:
        found = iter_results_for_machine_and_hash(str(results), options.machine, commit.hash)
        outcomes.append(Outcome.of(commit, list(found), suite))
    return outcomes


def publish(
    config: Any,
    options: argparse.Namespace,
    sources: Sequence[Path],
    scripts: Path,
    commits: Sequence[Commit],
) -> list[dashboard_site.Chart]:
    """Merge results, make the site, put it into the output folder. Returns the speed-up charts."""
    merged = WORK / "merged"
    shutil.rmtree(merged, ignore_errors=True)
    merge(sources, merged)
    notes.rule("Publishing", align="left")
    config.results_dir = str(merged)
    with redirect_stdout(sys.stderr):
        Publish.run(config, pull=False)
        log.flush()
    site = Path(config.html_dir)
    dashboard_site.localise(site, scripts)
    for line in unshown(merged, frozenset(commit.hash for commit in commits)):
        notes.print(f"not shown: {line}", style="yellow")

    hashes = [commit.hash for commit in reversed(commits)]
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    page = dashboard_site.first_page(merged, hashes, f"Made {now}, branch {config.branches[0]}.")
    dashboard_site.replace(site, page, options.output)
    return dashboard_site.speedup_charts(merged, hashes)


def report(
    outcomes: Sequence[Outcome], charts: Sequence[dashboard_site.Chart], options: argparse.Namespace
) -> None:
    """Say on standard output what was measured and where the charts are."""
    if options.json:
        links = [
            {"machine": chart.machine, "title": chart.title, "link": chart.link} for chart in charts
        ]
        content = {
            "site": str(options.output),
            "commits": [outcome.as_dict() for outcome in outcomes],
            "speedup_charts": links,
        }
        print(json.dumps(content, indent=2))
        return
    console = Console(highlight=False, markup=False)
    if outcomes:
        table = Table("commit", "first line", "state", "measured", "n/a", "failed")
        for outcome in outcomes:
            counts = map(str, (outcome.measured, outcome.inapplicable, outcome.failed))
            subject = shorten(outcome.subject, 40, placeholder="...")
            table.add_row(outcome.hash[:8], subject, outcome.state, *counts)
        console.print(table)
    console.print(f"The site: {options.output / 'index.html'}, to be seen through a web server:")
    console.print(f"    {Path(sys.executable).name} -m http.server --bind 127.0.0.1 8000 ", end="")
    console.print(f"--directory {options.output}", soft_wrap=True)
    for chart in charts:
        console.print(f"Speed-up, {chart.machine}, {chart.title}:")
        console.print(f"    http://127.0.0.1:8000/{chart.link}", soft_wrap=True)


def take_picture(options: argparse.Namespace, charts: Sequence[dashboard_site.Chart]) -> None:
    """A PNG of the first speed-up chart, as a browser draws it."""
    notes.rule("Taking a picture", align="left")
    if not charts:
        raise SiteError("no speed-up is measured yet: there is no chart to take a picture of")
    with chart_browser.serve(options.output) as address, chart_browser.browser() as driver:
        chart = chart_browser.look(driver, f"{address}/{charts[0].link}")
        if not chart.drawn:
            raise SiteError(f"the browser did not draw {charts[0].link}: {chart.problem}")
        chart_browser.save_picture(driver, options.picture)


def find_sources(results: Path, options: argparse.Namespace) -> list[Path]:
    """The folders that hold results: this machine's, the committed ones, those that were named."""
    committed = SUITE / Config.load(str(SUITE / "asv.conf.json")).results_dir
    sources = [folder for folder in (results, committed) if machine_folders(folder)]
    sources += options.gpu_results
    for folder in sources:
        check_results(folder)
    return sources


def run(options: argparse.Namespace) -> int:
    """Do it all. Returns the exit code."""
    # What can fail at once does so before the hours of measuring.
    if shutil.which("git") is None:
        raise ToolMissingError("git is not here")
    if options.picture is not None:
        chart_browser.find_browser()
    dashboard_site.check_output(options.output)
    results = WORK / ("results-quick" if options.quick else "results")
    config = configure(options.branch, results, WORK / "html")
    commits = read_branch(config.branches[0])
    if not find_sources(results, options) and options.only_publish:
        notes.print("nothing is measured yet, and there are no results of other hosts")
        return FAILED
    notes.rule("Fetching the scripts of asv's site", align="left")
    scripts = dashboard_site.fetch_scripts(SUITE / "site", WORK / "scripts")

    outcomes: list[Outcome] = []
    if not options.only_publish:
        if len(commits) < options.commits:
            notes.print(f"{config.branches[0]} has {len(commits)} commits, not {options.commits}")
        outcomes = measure(config, options, commits[: options.commits])
    charts = publish(config, options, find_sources(results, options), scripts, commits)
    if options.picture is not None:
        take_picture(options, charts)
    report(outcomes, charts, options)
    if outcomes and not any(outcome.measured for outcome in outcomes):
        notes.print("nothing could be measured: the site shows what there was before", style="red")
        return FAILED
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tool. Returns the exit code."""
    options = parse(arguments)
    log.enable()
    try:
        return run(options)
    except (ToolMissingError, BrowserMissingError) as error:
        notes.print(str(error))
        return TOOL_MISSING
    except (UsageError, ResultsError, OutputError) as error:
        notes.print(str(error))
        return WRONG_USAGE
    except (SiteError, util.UserError) as error:
        notes.print(str(error))
        return FAILED
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
