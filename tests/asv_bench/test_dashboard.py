"""The dashboard of asv_bench/README.md: asv's site, in a browser that reaches no host."""

from __future__ import annotations

import shutil
import sys
from functools import partial
from pathlib import Path

import pytest

from small_repository import SUITE, SmallRepository

pytestmark = pytest.mark.slow

BENCHMARK = "scan.Speedup.track_speedup_over_single_loop"

# The labels of the chart's series whose colour is on its canvas.
DRAWN = """
const plot = window.jQuery && jQuery('#main-graph').data('plot');
if (!plot) return [];
const colours = (canvas, width, height) =>
    new Uint32Array(canvas.getContext('2d').getImageData(0, 0, width, height).data.buffer);
const probe = document.createElement('canvas');
const {width, height} = plot.getCanvas();
const drawn = colours(plot.getCanvas(), width, height);
return plot.getData().filter(series => {
    probe.getContext('2d').fillStyle = series.color;
    probe.getContext('2d').fillRect(0, 0, 1, 1);
    return drawn.includes(colours(probe, 1, 1)[0]);
}).map(series => series.label).sort();
"""


def test_a_browser_draws_the_speed_ups_of_2_4_and_8_queries(tmp_path: Path) -> None:
    """They are those of the installed package, as if of two commits of a small repository."""
    webdriver = pytest.importorskip("selenium.webdriver")
    from selenium.webdriver.support.wait import WebDriverWait

    missing = [name for name in ("chromium", "chromedriver", "npm") if not shutil.which(name)]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")
    repository = SmallRepository(tmp_path)
    repository.asv("machine", "--yes")
    for _ in range(2):
        repository.commit()
        repository.asv("run", "--python=same", "--set-commit-hash=main", f"--bench={BENCHMARK}")
    repository.asv("publish")
    repository.run(sys.executable, SUITE / "dashboard.py", repository.html).check_returncode()

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    files = ("allow-file-access-from-files", f"user-data-dir={tmp_path}/profile")
    for flag in ("headless", "no-sandbox", "host-resolver-rules=MAP * ~NOTFOUND", *files):
        options.add_argument(f"--{flag}")
    with webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver"))) as driver:
        parameters = "p-queries=2&p-queries=4&p-queries=8&p-threads=1"
        driver.get(f"{(repository.html / 'index.html').as_uri()}#{BENCHMARK}?{parameters}")
        expected = [f"queries-{queries}; threads-1" for queries in (2, 4, 8)]
        drawn = partial(driver.execute_script, DRAWN)
        WebDriverWait(driver, 60).until(lambda _: drawn() == expected)
