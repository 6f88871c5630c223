"""The site of docs/: it has all public names and all options, and needs no other host.

That it builds without a warning is what the fixture asserts, or the step of .ci/run.
"""

from __future__ import annotations

import argparse
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

import chart_browser
import morphogen as mg
import morphogen.cli as cli
from built_site import ROOT, Page, build_site, read_page

# Addresses in a stylesheet.
CSS_ADDRESS = re.compile(r"""(?:url\(|@import)\s*["']?([^"')\s;]+)""")


@pytest.fixture(scope="module")
def inventory(site: Path) -> dict[str, set[str]]:
    """The names that the site has an entry for, by kind: "py:class", "std:cmdoption"."""
    from sphinx.util.inventory import InventoryFile

    listed = InventoryFile.loads((site / "objects.inv").read_bytes(), uri="")
    return {kind: set(names) for kind, names in listed.data.items()}


def commands(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    """A command and those below it."""
    found = [parser]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                found += commands(below)
    return found


def options(parser: argparse.ArgumentParser) -> Iterator[str]:
    """What a command takes, as the site lists it: "morphogen-bench.--csv"."""
    prefix = parser.prog.replace(" ", "-")
    for action in parser._actions:
        if not isinstance(action, argparse._SubParsersAction):
            for name in action.option_strings or [str(action.metavar or action.dest)]:
                yield f"{prefix}.{name}"


def host(address: str) -> str:
    """The host that an address names; empty where it is the site's own."""
    return urlsplit(address).netloc


# The reference


@pytest.mark.parametrize("name", mg.__all__)
def test_every_public_name_is_in_the_reference(name: str, inventory: dict[str, set[str]]) -> None:
    kinds = ("py:class", "py:exception", "py:function", "py:module")
    assert any(f"morphogen.{name}" in inventory.get(kind, ()) for kind in kinds)


def test_every_public_method_is_in_the_reference(inventory: dict[str, set[str]]) -> None:
    """Methods and properties with docstrings, those of Cython classes among them."""
    from morphogen.engine.cpu import CpuEngine
    from morphogen.engine.cuda import CudaEngine

    listed = inventory["py:method"] | inventory["py:property"]
    homes = {f"morphogen.{name}": getattr(mg, name) for name in mg.__all__}
    for kind in (CpuEngine, CudaEngine, mg.planner.KeyPacker):
        homes[f"{kind.__module__}.{kind.__name__}"] = kind
    wanted = {
        f"{home}.{name}"
        for home, kind in homes.items()
        if isinstance(kind, type) and kind.__module__.startswith("morphogen")
        for name, member in vars(kind).items()
        if not name.startswith("_") and (callable(member) or isinstance(member, property))
    }
    assert "morphogen.engine.cuda.CudaEngine.time_phases" in wanted
    assert not wanted - listed


@pytest.mark.parametrize("parser", commands(cli._parser()), ids=lambda parser: parser.prog)
def test_every_command_and_option_is_in_the_reference(
    parser: argparse.ArgumentParser, inventory: dict[str, set[str]]
) -> None:
    if parser.prog != "morphogen":
        assert parser.prog.replace(" ", "-") in inventory["std:label"]
    assert f"{parser.prog.replace(' ', '-')}.--help" in set(options(parser))
    assert set(options(parser)) <= inventory["std:cmdoption"]


def test_the_reference_shows_types_and_docstrings(site: Path) -> None:
    text = re.sub(r"<[^>]*>", "", (site / "reference" / "keys.html").read_text())
    assert "gen(index: SupportsIndex, num_pages: SupportsIndex" in " ".join(text.split()).replace(
        "( index", "(index"
    )
    assert "Make the pair of keys that selects one page (Gen)." in text
    assert "uint8 of shape (ceil(num_pages / 8),)" in text


def test_the_reference_has_no_docstrings_of_builtin_types(site: Path) -> None:
    """As a constant without a docstring of its own would have."""
    pages = sorted((site / "reference").glob("*.html"))
    assert pages
    assert not [path for path in pages if "Create a new string object" in path.read_text()]


def test_the_package_reads_no_environment_variables_as_the_reference_says() -> None:
    assert "reads no environment variables" in (ROOT / "docs/reference/outputs.md").read_text()
    sources = [
        path
        for folder in ("src", "kernels")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".pyx", ".h", ".cpp")
    ]
    assert len(sources) > 50
    reads = re.compile(r"\benviron\b|\bgetenvb?\b|\bsecure_getenv\b")
    assert not [path for path in sources if reads.search(path.read_text())]


# Nothing comes from another host


def test_no_page_loads_anything_from_another_host(site_pages: dict[Path, Page]) -> None:
    assert {path.name for path in site_pages} >= {"index.html", "performance.html", "cli.html"}
    for path, page in site_pages.items():
        assert page.loaded, path
        assert not [address for address in page.loaded if host(address)], path


def test_no_stylesheet_loads_anything_from_another_host(site: Path) -> None:
    sheets = sorted(site.rglob("*.css"))
    assert "furo.css" in {sheet.name for sheet in sheets}
    for sheet in sheets:
        assert not [found for found in CSS_ADDRESS.findall(sheet.read_text()) if host(found)], sheet


def test_what_another_host_would_be_asked_for_is_found() -> None:
    page = read_page('<link href="//a.example/x.css"><img src="x.svg"><a href="https://b.example">')
    assert [host(address) for address in page.loaded] == ["a.example", ""]
    assert CSS_ADDRESS.findall('@import "https://c.example/f.css"; a {background: url(x.svg)}') == [
        "https://c.example/f.css",
        "x.svg",
    ]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    try:
        chart_browser.find_browser()
    except chart_browser.BrowserMissingError as error:
        pytest.skip(f"needs a headless browser: {error}")
    with chart_browser.browser() as driver:
        yield driver


@pytest.mark.parametrize("page", ["index", "performance", "reference/engines", "reference/cli"])
def test_a_browser_shows_the_site_and_asks_no_other_host(
    page: str, site: Path, browser: Any
) -> None:
    with chart_browser.serve(site) as root:
        seen = chart_browser.look(browser, f"{root}/{page}.html")
        text = browser.execute_script("return document.body.innerText")
    assert "morphogen" in text
    assert not seen.elsewhere
    assert not seen.errors


def test_the_search_finds_a_name_of_the_reference(site: Path, browser: Any) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.wait import WebDriverWait

    def results(_: Any) -> list[str]:
        links = browser.find_elements(By.CSS_SELECTOR, "#search-results li a")
        return [link.get_attribute("href") for link in links]

    with chart_browser.serve(site) as root:
        seen = chart_browser.look(browser, f"{root}/search.html?q=micro_batch_ranges")
        found = WebDriverWait(browser, chart_browser.SECONDS).until(results)
    assert [link for link in found if "reference/planner.html" in link]
    assert not seen.elsewhere


# How pages of the repository become pages of the site


@pytest.fixture
def small_site(tmp_path: Path) -> Path:
    """A repository with a few pages and the real settings; where its site goes."""
    for name in ("sphinx", "furo", "myst_parser"):
        pytest.importorskip(name, reason="needs Sphinx: pip install '.[docs]'")
    docs = tmp_path / "docs"
    docs.mkdir()
    shutil.copy(ROOT / "docs" / "conf.py", docs)
    shutil.copytree(ROOT / "docs" / "_static", docs / "_static")
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "tool.py").write_text("print()\n")
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## One\n\nSee [this](docs/index.md).\n")
    (docs / "changelog.md").write_text("```{include} ../CHANGELOG.md\n```\n")
    (docs / "index.md").write_text("# Title\n\n```{toctree}\nchangelog\n```\n\n")
    return tmp_path


def test_links_out_of_docs_lead_somewhere_in_the_site(small_site: Path) -> None:
    with (small_site / "docs" / "index.md").open("a") as page:
        page.write(
            "[what changed](../CHANGELOG.md#one), [tool](../tools/tool.py), [all](../tools/)"
        )
    html = small_site / "html"
    build_site(small_site / "docs", html, small_site / "doctrees")
    followed = read_page((html / "index.html").read_text()).followed
    assert "changelog.html#one" in followed
    assert [address for address in followed if address.endswith("tool.py")]
    assert not [address for address in followed if "tools/" in address]
    assert "index.html" in read_page((html / "changelog.html").read_text()).followed


def test_what_names_something_that_is_not_there_fails_the_build(small_site: Path) -> None:
    with (small_site / "docs" / "index.md").open("a") as page:
        page.write("[a page](nowhere.md), [a heading](changelog.md#two)\n\n")
        page.write("```{eval-rst}\n.. py:function:: f()\n\n   As `no_such_name` does.\n```\n")
    with pytest.raises(AssertionError) as error:
        build_site(small_site / "docs", small_site / "html", small_site / "doctrees")
    complaints = str(error.value)
    assert "target not found: 'nowhere.md'" in complaints
    assert "not found in doc 'changelog': 'two'" in complaints
    assert "target not found: no_such_name" in complaints


def test_what_fetches_something_fails_the_build(small_site: Path) -> None:
    with (small_site / "docs" / "conf.py").open("a") as settings:
        settings.write("extensions += ['sphinx.ext.intersphinx']\n")
        settings.write("intersphinx_mapping = {'numpy': ('http://numpy.invalid/', None)}\n")
    with pytest.raises(AssertionError, match="must be built without a network"):
        build_site(small_site / "docs", small_site / "html", small_site / "doctrees")
