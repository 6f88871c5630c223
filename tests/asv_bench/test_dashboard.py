"""The dashboard of asv_bench/README.md: asv's site, in a browser that reaches no other host."""

from __future__ import annotations

import shutil
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from small_repository import SUITE, SmallRepository

pytestmark = pytest.mark.slow

BENCHMARK = "scan.Speedup.track_speedup_over_single_loop"

# The labels of the chart's series whose colour is on its canvas.
DRAWN = """
const plot = window.jQuery && jQuery('#main-graph').data('plot');
if (!plot) return [];
const {width, height} = plot.getCanvas();
const pixels = plot.getCanvas().getContext('2d').getImageData(0, 0, width, height).data;
const probe = document.createElement('canvas').getContext('2d');
return plot.getData().filter(series => {
    probe.fillStyle = series.color;
    probe.fillRect(0, 0, 1, 1);
    const colour = probe.getImageData(0, 0, 1, 1).data;
    for (let i = 0; i < pixels.length; i += 4)
        if ([0, 1, 2, 3].every(k => pixels[i + k] === colour[k])) return true;
}).map(series => series.label).sort();
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Publish speed-ups of the installed package as those of two commits of a small repository."""
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
    return repository.html


def test_a_browser_draws_the_speed_ups_of_2_4_and_8_queries(site: Path, tmp_path: Path) -> None:
    webdriver = pytest.importorskip("selenium.webdriver")
    from selenium.webdriver.support.wait import WebDriverWait

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    nowhere = "host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    for flag in ("headless", "no-sandbox", nowhere, f"user-data-dir={tmp_path}/profile"):
        options.add_argument(f"--{flag}")
    handler = partial(SimpleHTTPRequestHandler, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
        try:
            parameters = "p-queries=2&p-queries=4&p-queries=8&p-threads=1"
            driver.get(f"http://127.0.0.1:{server.server_port}/#{BENCHMARK}?{parameters}")
            expected = [f"queries-{queries}; threads-1" for queries in (2, 4, 8)]
            drawn = partial(driver.execute_script, DRAWN)
            WebDriverWait(driver, 60).until(lambda _: drawn() == expected)
        finally:
            driver.quit()
            server.shutdown()
