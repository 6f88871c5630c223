"""Put the scripts of the site that `asv publish` made beside it, so that it asks no other host.

    python asv_bench/dashboard.py [SITE]    by default asv_bench/.asv/html

npm brings the scripts, as site/package-lock.json pins them.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path, PurePosixPath

FOLDER = Path(__file__).resolve().parent
# The scripts that asv's page loads, by name, and their places in npm's packages.
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


if __name__ == "__main__":
    site = Path(sys.argv[1]) if sys.argv[1:] else FOLDER / ".asv" / "html"
    for name in ("package.json", "package-lock.json"):
        shutil.copy(FOLDER / "site" / name, site)
    npm = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    subprocess.run(npm, cwd=site, check=True)
    page = site / "index.html"
    found = ELSEWHERE.split(page.read_text(encoding="utf-8"))  # text, address, text, ...
    found[1::2] = [f'"node_modules/{NPM_FILES[PurePosixPath(a).name]}"' for a in found[1::2]]
    page.write_text("".join(found), encoding="utf-8")
