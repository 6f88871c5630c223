"""The dashboard of asv_bench/README.md: asv's site, in a browser that reaches no other host."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SUITE = Path(__file__).resolve().parents[2] / "asv_bench"
BENCHMARK = "scan.Speedup.track_speedup_over_single_loop"
PROGRAMS = ("chromium", "chromedriver", "npm")

# Each series of the chart that is shown, and how many pixels of the canvas have its colour.
DRAWN = """
const plot = window.jQuery && jQuery('#main-graph').data('plot');
if (!plot) return null;
const canvas = plot.getCanvas();
const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
const probe = document.createElement('canvas').getContext('2d');
const drawn = {};
for (const series of plot.getData()) {
    probe.fillStyle = series.color;
    probe.fillRect(0, 0, 1, 1);
    const colour = probe.getImageData(0, 0, 1, 1).data;
    drawn[series.label] = 0;
    for (let i = 0; i < pixels.length; i += 4)
        drawn[series.label] += [0, 1, 2, 3].every(k => pixels[i + k] === colour[k]);
}
return Object.keys(drawn).length ? drawn : null;
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Speed-ups of what is installed, published as those of two commits of a small repository."""
    asv_util = pytest.importorskip("asv.util")
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")
    config = tmp_path / "asv.conf.json"
    settings = asv_util.load_json(str(SUITE / "asv.conf.json"), js_comments=True)
    settings |= {"repo": str(tmp_path), "benchmark_dir": str(SUITE / "benchmarks")}
    config.write_text(json.dumps(settings))
    # asv keeps what it knows of the machine in the home folder.
    variables = {"HOME": str(tmp_path), "MORPHOGEN_BENCH_BYTES": str(1 << 20)}
    for who in ("AUTHOR", "COMMITTER"):
        variables |= {f"GIT_{who}_NAME": "nobody", f"GIT_{who}_EMAIL": "nobody@localhost"}

    def run(*command: str | Path) -> None:
        subprocess.run(command, cwd=tmp_path, env=os.environ | variables, check=True)

    asv = (sys.executable, "-m", "asv")
    run("git", "init", "--quiet", "--initial-branch=main")
    run(*asv, "machine", "--yes")
    for day in (1, 2):
        variables["GIT_COMMITTER_DATE"] = f"2026-01-0{day}T12:00:00Z"
        run("git", "commit", "--quiet", "--allow-empty", f"--message=day {day}")
        run(*asv, "run", "--python=same", "--set-commit-hash=main", f"--bench={BENCHMARK}")
    run(sys.executable, SUITE / "dashboard.py", "--config", config)
    return tmp_path / settings["html_dir"]


def test_a_browser_draws_the_speed_ups_of_2_4_and_8_queries(site: Path, tmp_path: Path) -> None:
    webdriver = pytest.importorskip("selenium.webdriver")
    from selenium.webdriver.support.wait import WebDriverWait

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in (
        *("headless", "no-sandbox", "disable-gpu", "disable-dev-shm-usage"),
        "host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        f"user-data-dir={tmp_path}/profile",
    ):
        options.add_argument(f"--{flag}")
    handler = partial(SimpleHTTPRequestHandler, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
        try:
            parameters = "p-queries=2&p-queries=4&p-queries=8&p-threads=1"
            driver.get(f"http://127.0.0.1:{server.server_port}/#{BENCHMARK}?{parameters}")
            # asv draws once for each series that arrives.
            drawn = WebDriverWait(driver, 60).until(
                lambda _: (found := driver.execute_script(DRAWN)) and len(found) == 3 and found
            )
        finally:
            driver.quit()
            server.shutdown()
    assert sorted(drawn) == [f"queries-{n}; threads-1" for n in (2, 4, 8)]
    assert all(pixels > 20 for pixels in drawn.values()), drawn
