"""The examples of docstrings run, in compiled modules too."""

from __future__ import annotations

import doctest
from collections.abc import Iterator
from typing import Any

import pytest

import morphogen as mg
from fake_server import two_servers
from naive import random_pages
from public_objects import names, public_objects

WITH_EXAMPLES = [
    "MicroBatcher",
    "Client",
    "dpf.eval_full",
    "dpf.gen",
    "Engine.answer",
    "open_engine",
    "driver_status",
    "keyword.build",
    "PageMatrix",
    "planner.KeyPacker",
    "planner.micro_batch_ranges",
    "make_query",
    "reconstruct",
    "service.create_app",
]


def test_all_that_is_exported_is_in_the_reference() -> None:
    assert set(mg.__all__) <= set(public_objects())
    assert len(public_objects()) > 100


@pytest.fixture
def urls() -> Iterator[list[str]]:
    with two_servers(random_pages(700, 48)) as servers:
        yield [server.url for server in servers]


def has_example(value: Any) -> bool:
    return ">>>" in (value.__doc__ or "")


def test_the_most_used_names_have_an_example() -> None:
    assert set(WITH_EXAMPLES) <= set(names(has_example))


@pytest.mark.parametrize("name", names(has_example))
def test_the_example_runs(name: str, request: pytest.FixtureRequest) -> None:
    text = public_objects()[name].__doc__
    space: dict[str, Any] = {}
    if "url0" in text:
        space["url0"], space["url1"] = request.getfixturevalue("urls")
    example = doctest.DocTestParser().get_doctest(text, space, name, None, None)
    assert example.examples
    report: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.FAIL_FAST).run(example, out=report.append)
    assert report == []
