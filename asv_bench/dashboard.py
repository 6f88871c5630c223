"""Publish what was measured as a site that needs no network: asv's own, with its scripts beside it.

    python asv_bench/dashboard.py

Runs `asv publish` over asv_bench/results. asv's page asks other hosts for its scripts; here npm
brings them, as site/package-lock.json pins them, and the page is told to look beside itself. The
site is in asv_bench/.asv/html.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path, PurePosixPath

from asv.config import Config  # type: ignore[import-untyped]

FOLDER = Path(__file__).resolve().parent
# What asv's page asks for, by the file's name, and where npm puts it.
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
ELSEWHERE = re.compile(r'"https?://([^"]+\.(?:js|css))"(?: integrity="[^"]*")?')


def add_scripts(site: Path) -> None:
    """Put what the page asks other hosts for beside it, licences included."""
    for name in ("package.json", "package-lock.json"):
        shutil.copy(FOLDER / "site" / name, site)
    npm = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    subprocess.run(npm, cwd=site, check=True)

    def beside(match: re.Match[str]) -> str:
        return f'"node_modules/{NPM_FILES[PurePosixPath(match[1]).name]}"'

    page = site / "index.html"
    page.write_text(ELSEWHERE.sub(beside, page.read_text(encoding="utf-8")), encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Publish the results as a site.")
    parser.add_argument("--config", type=Path, default=FOLDER / "asv.conf.json", metavar="FILE")
    config = parser.parse_args(arguments).config.resolve()
    subprocess.run([sys.executable, "-m", "asv", "publish", "--config", config], check=True)
    site = config.parent / Config.load(str(config)).html_dir
    add_scripts(site)
    print(f"published: {site}")


if __name__ == "__main__":
    main()
