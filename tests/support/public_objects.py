"""The public objects of the package: those that docs/reference shows, and their methods."""

from __future__ import annotations

import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference"


def members(owner: Any) -> Iterator[tuple[str, Any]]:
    """Yield a module's public functions and classes, or a class's methods and properties."""
    for name, value in vars(owner).items():
        described = callable(value) or isinstance(value, (property, classmethod))
        # A cached function is an object of functools, but its __module__ names its own module.
        own = inspect.isclass(owner) or getattr(value, "__module__", None) == owner.__name__
        if described and own and not name.startswith("_"):
            yield name, value


@cache
def public_objects() -> dict[str, Any]:
    """Return all objects that the reference shows, by their names below morphogen."""
    pages = "\n".join(page.read_text(encoding="utf-8") for page in sorted(REFERENCE.glob("*.md")))
    shown = r"^\.\. auto(?:class|exception|function|module):: morphogen\.(\S+)$"
    found: dict[str, Any] = {}
    waiting = re.findall(shown, pages, re.MULTILINE)
    while waiting:
        name = waiting.pop()
        found[name] = value = pkgutil.resolve_name(f"morphogen.{name}")
        if inspect.ismodule(value):
            waiting += [f"{name}.{member}" for member, _ in members(value)]
        elif inspect.isclass(value):
            found |= {f"{name}.{member}": of_class for member, of_class in members(value)}
    return dict(sorted(found.items()))


def names(condition: Callable[[Any], bool] = lambda value: True) -> list[str]:
    """Return the names of the public objects that meet a condition."""
    return [name for name, value in public_objects().items() if condition(value)]
