"""Look at a published dashboard with headless Chromium: which charts are really drawn, and how.

Needs chromium, chromedriver and selenium. Nothing outside this machine can be reached: the
browser resolves no name.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

HOST = "127.0.0.1"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
DRIVER = "chromedriver"
SECONDS = 60
SIZE = (1400, 900)  # narrower, and the title covers part of the chart

# asv has drawn when no request is under way: it asks for index.json, then for each graph.
_SETTLED = """
return document.title === 'airspeed velocity error' || document.readyState === 'complete'
    && (!document.getElementById('main-graph')
        || Boolean(window.jQuery && jQuery.asv && jQuery.active === 0
                   && jQuery.asv.main_json && jQuery.asv.main_json.benchmarks));
"""

# What flot was given, and whether the canvas has the series' colour around each point, or that of
# a series whose point lies there, too, and may hide it.
_CHART = """
const plot = window.jQuery && jQuery('#main-graph').data('plot');
if (!plot) return null;
const canvas = plot.getCanvas();
const context = canvas.getContext('2d');
const scale = canvas.width / canvas.clientWidth;
const reach = Math.ceil(5 * scale);
const probe = document.createElement('canvas').getContext('2d');
function bytes(colour) {
    probe.fillStyle = colour;
    probe.fillRect(0, 0, 1, 1);
    return probe.getImageData(0, 0, 1, 1).data;
}
const series = plot.getData().map(each => ({
    label: each.label,
    colour: bytes(each.color),
    points: each.data.filter(point => point[1] !== null).map(([x, y]) => {
        const place = plot.pointOffset({x: x, y: y});
        const [left, top] = [place.left, place.top].map(at => Math.round(at * scale));
        return {x, y, left, top};
    }),
}));
function count_pixels(point) {
    if (!isFinite(point.left) || !isFinite(point.top)) return 0;
    const near = other => Math.hypot(other.left - point.left, other.top - point.top) <= reach;
    const colours = series.filter(each => each.points.some(near)).map(each => each.colour);
    const side = 2 * reach + 1;
    const pixels = context.getImageData(point.left - reach, point.top - reach, side, side).data;
    let count = 0;
    for (let i = 0; i < pixels.length; i += 4)
        count += pixels[i + 3] > 200 && colours.some(
            colour => [0, 1, 2].every(k => Math.abs(pixels[i + k] - colour[k]) < 32));
    return count;
}
return series.map(each => ({
    label: each.label,
    points: each.points.map(point => ({
        commit: jQuery.asv.main_json.revision_to_hash[point.x],
        value: point.y,
        pixels: count_pixels(point),
    })),
}));
"""


class BrowserMissingError(Exception):
    """There is no headless browser here."""


@dataclass(frozen=True, slots=True)
class Point:
    """A figure in a chart.

    Attributes
    ----------
    commit : str
        Its hash.
    value : float
    pixels : int
        How many pixels around its place on the canvas have the series' colour, or that of another
        whose point lies there.
    """

    commit: str
    value: float
    pixels: int


@dataclass(frozen=True, slots=True)
class Seen:
    """What a page showed.

    Attributes
    ----------
    series : dict of str to tuple of Point
        By the label in the chart's legend; none where there is no chart.
    elsewhere : tuple of str
        Addresses of other hosts that the page asked for.
    errors : tuple of str
        What the browser's console holds as errors.
    """

    series: dict[str, tuple[Point, ...]]
    elsewhere: tuple[str, ...]
    errors: tuple[str, ...]

    @property
    def drawn(self) -> bool:
        """Whether there is a chart, and each point of it is on the canvas."""
        return any(self.series.values()) and all(
            point.pixels for points in self.series.values() for point in points
        )

    @property
    def problem(self) -> str:
        """What is amiss, for people."""
        return "; ".join((*self.elsewhere, *self.errors)) or f"series: {sorted(self.series)}"


def find_browser() -> tuple[str, str]:
    """The paths of the browser and its driver; selenium, which steers them, is here, too."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which(DRIVER)
    if browser is None or driver is None:
        missing = [name for name, path in (("chromium", browser), (DRIVER, driver)) if not path]
        raise BrowserMissingError(f"{' and '.join(missing)} not found on PATH")
    if find_spec("selenium") is None:
        raise BrowserMissingError("selenium is not installed: pip install '.[dashboard]'")
    return browser, driver


class _Handler(SimpleHTTPRequestHandler):
    def end_headers(self) -> None:
        """No page may come from the browser's cache: sites at one address are compared."""
        self.send_header("Cache-Control", "no-store")
        super().end_headers()

    def log_message(self, *_: Any) -> None:
        """Requests are the browser's log's."""


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: Any) -> None:
        """A browser that leaves a page hangs up; a file that is missing it tells itself."""


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Serve a folder on this machine while the context lasts. Gives the address, without a /."""
    with _Server((HOST, 0), partial(_Handler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://{HOST}:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def browser() -> Iterator[Any]:
    """A headless browser with an empty profile that reaches this machine alone."""
    from selenium import webdriver

    path, driver_path = find_browser()
    options = webdriver.ChromeOptions()
    options.binary_location = path
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for flag in (
            *("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run"),
            *("disable-background-networking", "disable-component-update", "disable-sync"),
            *("hide-scrollbars", "force-device-scale-factor=1", "disable-dev-shm-usage"),
            f"window-size={SIZE[0]},{SIZE[1]}",
            f"host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE {HOST}",
            f"user-data-dir={profile}",
        ):
            options.add_argument(f"--{flag}")
        # With the driver's path, selenium looks for none and fetches none.
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver_path))
        try:
            yield driver
        finally:
            driver.quit()


def look(driver: Any, address: str) -> Seen:
    """Open a page anew, wait until it is drawn, and say what it shows."""
    driver.get("about:blank")  # or an address that differs behind # alone would load nothing
    for kind in ("performance", "browser"):
        driver.get_log(kind)
    driver.get(address)
    return _see(driver)


def follow(driver: Any, text: str) -> Seen:
    """Click a link of the page that is open, wait until its page is drawn, say what it shows."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.expected_conditions import staleness_of

    link = driver.find_element(By.LINK_TEXT, text)
    link.click()
    _wait(driver, staleness_of(link))
    return _see(driver)


def _wait(driver: Any, condition: Callable[[Any], object]) -> None:
    from selenium.webdriver.support.wait import WebDriverWait

    WebDriverWait(driver, SECONDS).until(condition)


def _see(driver: Any) -> Seen:
    _wait(driver, lambda driver: driver.execute_script(_SETTLED))
    return Seen(read_chart(driver), tuple(_asked_elsewhere(driver)), tuple(_errors(driver)))


def read_chart(driver: Any) -> dict[str, tuple[Point, ...]]:
    """The chart on the page that is open, as it is drawn now."""
    series = driver.execute_script(_CHART) or []
    return {each["label"]: tuple(Point(**point) for point in each["points"]) for each in series}


def save_picture(driver: Any, file: Path) -> None:
    """Save what the browser shows as a PNG."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(driver.get_screenshot_as_png())


def _asked_elsewhere(driver: Any) -> Iterator[str]:
    for entry in driver.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            address = message["params"]["request"]["url"]
            parts = urlsplit(address)
            if parts.scheme in ("http", "https", "ws", "wss") and parts.hostname != HOST:
                yield address


def _errors(driver: Any) -> Iterator[str]:
    for entry in driver.get_log("browser"):
        if entry["level"] == "SEVERE":
            yield entry["message"]
