"""What of the package is public: the objects that docs/reference shows, and their methods."""

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
    """The public functions and classes of a module, or the methods and properties of a class."""
    for name, value in vars(owner).items():
        described = callable(value) or isinstance(value, (property, classmethod))
        # A cached function is an object of another module, and says where it is from.
        own = inspect.isclass(owner) or getattr(value, "__module__", None) == owner.__name__
        if described and own and not name.startswith("_"):
            yield name, value


@cache
def public_objects() -> dict[str, Any]:
    """All that the reference shows, by its module and name below morphogen."""
    pages = "\n".join(page.read_text(encoding="utf-8") for page in sorted(REFERENCE.glob("*.md")))
    shown = re.findall(r"^\.\. auto(?:class|exception|function|module):: (\S+)$", pages, re.M)
    found: dict[str, Any] = {}
    waiting = [pkgutil.resolve_name(name) for name in shown]
    while waiting:
        value = waiting.pop(0)
        if inspect.ismodule(value):
            found[value.__name__] = value
            waiting += [member for _, member in members(value)]
            continue
        place = f"{value.__module__}.{value.__qualname__}"
        found[place] = value
        if inspect.isclass(value):
            found |= {f"{place}.{name}": member for name, member in members(value)}
    return {name.removeprefix("morphogen."): value for name, value in found.items()}


def names(condition: Callable[[Any], bool] = lambda value: True) -> list[str]:
    """The names of the public objects that meet a condition."""
    return [name for name, value in public_objects().items() if condition(value)]
