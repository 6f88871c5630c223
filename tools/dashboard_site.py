"""The published site: asv's own, with the scripts it needs beside it, and a first page of charts.

asv's page asks other hosts for its scripts. Here they come from npm, pinned by
asv_bench/site/package-lock.json, and are copied into the site, which then asks nobody.
"""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from dashboard_results import Series, Suite, read_series, read_suite

ASV = "asv"  # the folder of asv's part
SCRIPTS = "scripts"
PACKAGE_FILES = ("package.json", "package-lock.json")
GENERATOR = '<meta name="generator" content="morphogen dashboard">'

# What asv's page asks for, by the file's name, and where npm puts it. flot's package has its
# sources only; the others are the very bytes whose digests asv's page gives, but for stupidtable.
NPM_FILES = {
    "jquery-3.3.1.min.js": "jquery/dist/jquery.min.js",
    "jquery.flot.min.js": "flot/jquery.flot.js",
    "jquery.flot.time.min.js": "flot/jquery.flot.time.js",
    "jquery.flot.selection.min.js": "flot/jquery.flot.selection.js",
    "jquery.flot.categories.min.js": "flot/jquery.flot.categories.js",
    "jquery.flot.orderBars.js": "flot-orderbars/js/jquery.flot.orderBars.js",
    "stupidtable.min.js": "stupid-table-plugin/stupidtable.min.js",
    "md5.min.js": "blueimp-md5/js/md5.min.js",
    "bootstrap.min.js": "bootstrap/dist/js/bootstrap.min.js",
    "bootstrap.min.css": "bootstrap/dist/css/bootstrap.min.css",
}
_ELSEWHERE = re.compile(r'<(?:script|link)\b[^>]*?\b(src|href)="(https?://[^"]+)"[^>]*>')

# The charts of the first page: benchmark, what it is, the parameter whose values share a chart.
SPEEDUPS = (
    "scan.Speedup.track_speedup_over_single_loop",
    "gpu.Speedup.track_speedup_over_single_loop",
)
RATIOS = ("scan.Answer.track_ratio_to_read", "gpu.Answer.track_ratio_to_read")
QUERIES = ("2", "4", "8")


class SiteError(Exception):
    """A site that cannot be published here, or not so."""


class OutputError(SiteError):
    """A folder that holds something else than a dashboard."""


class ToolMissingError(SiteError):
    """A program that is needed is not installed."""


def fetch_scripts(manifest: Path, folder: Path) -> Path:
    """Let npm install what a manifest pins, unless it is there already. Returns node_modules."""
    modules = folder / "node_modules"
    stamp = folder / "installed"
    wanted = "".join((manifest / name).read_text(encoding="utf-8") for name in PACKAGE_FILES)
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return modules
    npm = shutil.which("npm")
    if npm is None:
        raise ToolMissingError("npm is not here: it brings the scripts of asv's site")
    folder.mkdir(parents=True, exist_ok=True)
    for name in PACKAGE_FILES:
        shutil.copyfile(manifest / name, folder / name)
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if result.returncode:
        raise SiteError(f"npm ci failed:\n{result.stderr.strip()}")
    stamp.write_text(wanted, encoding="utf-8")
    return modules


def localise(site: Path, modules: Path) -> None:
    """Put what asv's page asks other hosts for beside it, licences included."""
    page = site / "index.html"

    def local(match: re.Match[str]) -> str:
        attribute, address = match.groups()
        name = PurePosixPath(address).name
        if name not in NPM_FILES:
            raise SiteError(
                f"asv's page asks for {address}: tools/dashboard_site.py knows no {name}"
            )
        file = NPM_FILES[name]
        package = PurePosixPath(file).parts[0]
        target = site / SCRIPTS / file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(modules / file, target)
        for licence in (modules / package).glob("LICENSE*"):
            shutil.copyfile(licence, site / SCRIPTS / package / licence.name)
        if attribute == "src":
            return f'<script src="{SCRIPTS}/{file}" onerror="js_load_failure()">'
        return f'<link rel="stylesheet" href="{SCRIPTS}/{file}">'

    text = page.read_text(encoding="utf-8")
    page.write_text(_ELSEWHERE.sub(local, text), encoding="utf-8")


def chart_link(
    machine: str, benchmark: str, selection: Sequence[tuple[str, str]], commits: int
) -> str:
    """The part of an address, from #, at which asv draws these parameters of a benchmark."""
    pairs = [("machine", machine), *((f"p-{name}", value) for name, value in selection)]
    if commits > 1:
        # Evenly, or commits of other branches leave gaps. A lone commit asv draws so nowhere.
        pairs.append(("x-axis-scale", "even"))
    return f"#{benchmark}?" + "&".join(
        f"{quote(name)}={quote(value, safe='')}" for name, value in pairs
    )


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart of one machine: a series for each value of the benchmark's first parameter."""

    machine: str
    benchmark: str
    fixed: tuple[tuple[str, str], ...]
    series: tuple[Series, ...]

    @property
    def link(self) -> str:
        """Where it is, seen from the first page."""
        selection = [*(series.params[0] for series in self.series), *self.fixed]
        commits = len({commit for series in self.series for commit, _ in series.points})
        return f"{ASV}/{chart_link(self.machine, self.benchmark, selection, commits)}"

    @property
    def title(self) -> str:
        """What is the same in all its series."""
        return ", ".join(f"{name}: {value.strip(chr(39))}" for name, value in self.fixed)


def read_charts(
    results: Path, benchmark: str, commits: Sequence[str], values: Sequence[str] = ()
) -> list[Chart]:
    """A benchmark's charts, one for each machine and value of all parameters but the first."""
    grouped: dict[tuple[str, tuple[tuple[str, str], ...]], list[Series]] = defaultdict(list)
    for series in read_series(results, benchmark, commits):
        first, *rest = series.params
        if not values or first[1] in values:
            grouped[series.machine, tuple(rest)].append(series)
    return [
        Chart(machine, benchmark, fixed, tuple(series))
        for (machine, fixed), series in grouped.items()
    ]


def speedup_charts(results: Path, commits: Sequence[str]) -> list[Chart]:
    """The speed-ups over the single-query loop at 2, 4 and 8 queries."""
    return [chart for name in SPEEDUPS for chart in read_charts(results, name, commits, QUERIES)]


def first_page(results: Path, commits: Sequence[str], made: str) -> str:
    """The HTML of the page that leads to the charts, with their newest figures."""
    ratios = [chart for name in RATIOS for chart in read_charts(results, name, commits)]
    suite = read_suite(results)
    sections = [
        _section(
            "Speed-up of a batch over the single-query loop",
            "More is better. A figure is the median of ratios, taken in interleaved rounds.",
            speedup_charts(results, commits),
            suite,
        ),
        _section(
            "Time of a pass, against a pure read of the same pages",
            "Less is better; 1 is the floor.",
            ratios,
            suite,
        ),
    ]
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
{GENERATOR}
<meta name="viewport" content="width=device-width">
<title>morphogen: speed, commit by commit</title>
<link rel="icon" href="{ASV}/swallow.ico">
<style>
body {{ font: 16px/1.5 sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; }}
table {{ border-collapse: collapse; margin-bottom: 1em; }}
th, td {{ padding: .2em .8em; text-align: right; border-bottom: 1px solid #ccc; }}
th:first-child, td:first-child {{ text-align: left; }}
small {{ color: #555; }}
</style>
</head>
<body>
<h1>morphogen: speed, commit by commit</h1>
{"".join(sections)}
<h2>Everything</h2>
<p><a href="{ASV}/#/">All benchmarks as small charts</a>,
<a href="{ASV}/#/summarylist">as a list</a>,
<a href="{ASV}/#/regressions">regressions</a>.</p>
<p><small>{html.escape(made)}</small></p>
</body>
</html>
"""


def _section(title: str, remark: str, charts: Sequence[Chart], suite: Suite) -> str:
    if not charts:
        return f"<h2>{title}</h2>\n<p>Nothing measured yet.</p>\n"
    parts = [f"<h2>{title}</h2>\n<p>{remark} In brackets: the commit measured before.</p>\n"]
    grouped: dict[str, list[Chart]] = defaultdict(list)
    for chart in charts:
        grouped[chart.benchmark].append(chart)
    for benchmark, group in grouped.items():
        name = suite[benchmark]["param_names"][0]
        columns = list(dict.fromkeys(s.params[0][1] for chart in group for s in chart.series))
        heads = "".join(f"<th>{html.escape(value.strip(chr(39)))}</th>" for value in columns)
        parts.append(
            f"<table>\n<tr><th>{html.escape(benchmark.partition('.')[0])}, by {html.escape(name)}"
            f"</th>{heads}<th>newest commit</th></tr>\n"
        )
        for chart in group:
            newest = chart.series[-1].points[-1][0]
            cells = {series.params[0][1]: _figure(series) for series in chart.series}
            parts.append(
                f'<tr><td><a href="{html.escape(chart.link)}">'
                f"{html.escape(f'{chart.machine}, {chart.title}')}</a></td>"
                + "".join(f"<td>{cells.get(value, '')}</td>" for value in columns)
                + f"<td><code>{newest[:8]}</code></td></tr>\n"
            )
        parts.append("</table>\n")
    return "".join(parts)


def _figure(series: Series) -> str:
    *before, (_, newest) = series.points
    text = f"{newest:.2f}x"
    return f"{text} <small>({before[-1][1]:.2f}x)</small>" if before else text


def check_output(output: Path) -> None:
    """Refuse a folder with files in the way that no dashboard wrote."""
    page, site = output / "index.html", output / ASV
    if output.exists() and not output.is_dir():
        raise OutputError(f"{output}: expected a folder, not a file")
    if page.exists() and GENERATOR not in page.read_text(encoding="utf-8", errors="replace"):
        raise OutputError(f"{page}: expected none, or one that this tool wrote")
    if site.exists() and not (site / "graphdisplay.js").exists():
        raise OutputError(f"{site}: expected none, or a site of asv")


def replace(site: Path, page: str, output: Path) -> None:
    """Put a finished site and its first page into a folder, in place of what was there."""
    output.mkdir(parents=True, exist_ok=True)
    new, old = output / f".{ASV}-new", output / f".{ASV}-old"
    for left in (new, old):
        shutil.rmtree(left, ignore_errors=True)
    shutil.copytree(site, new)
    if (output / ASV).exists():
        (output / ASV).rename(old)
    new.rename(output / ASV)
    shutil.rmtree(old, ignore_errors=True)
    (output / "index.html").write_text(page, encoding="utf-8")
