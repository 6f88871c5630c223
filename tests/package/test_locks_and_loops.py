"""No interrupt leaves a lock taken at the end of a loop.

From CPython 3.12 on, a jump back to a loop's begin, to which a condition leads, belongs to no
``with`` around the loop (python/cpython#108214). Ctrl-C there would leave the lock taken for ever.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import morphogen

PACKAGE = Path(morphogen.__file__).parent
SOURCES = sorted(
    path
    for folder in ("batcher", "client", "engine", "pages", "service")
    for path in (PACKAGE / folder).rglob("*.py")
)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.GeneratorExp)


def within(node: ast.AST) -> Iterator[ast.AST]:
    """All that runs in the same function."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, FUNCTIONS):
            yield child
            yield from within(child)


def ends_in_a_condition(node: ast.AST) -> bool:
    if isinstance(node, ast.For):
        return isinstance(node.body[-1], ast.If) or any(
            isinstance(one, ast.Continue) for one in within(node)
        )
    return isinstance(node, ast.While) or (isinstance(node, ast.comprehension) and bool(node.ifs))


def loops_under_locks(source: str) -> list[int]:
    """The lines of each ``with self._lock`` that has such a loop."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.With)
        and all(isinstance(item.context_expr, ast.Attribute) for item in node.items)
        and any(map(ends_in_a_condition, within(node)))
    ]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_loop_under_a_lock_has_a_function_of_its_own(path: Path) -> None:
    assert loops_under_locks(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("while x: f()", True),
        ("for x in y:\n    if x: f()", True),
        ("for x in y:\n    if x: continue\n    f()", True),
        ("f([x for x in y if x])", True),
        ("for x in y: f()", False),
        ("f([x for x in y])", False),
        ("f(x for x in y if x)", False),
        ("if x: f()", False),
        ("def g():\n    while x: f()", False),
    ],
)
def test_loops_that_end_in_a_condition_are_found(body: str, found: bool) -> None:
    lines = "".join(f"\n    {line}" for line in body.split("\n"))
    assert loops_under_locks(f"with self._lock:{lines}") == [1] * found
