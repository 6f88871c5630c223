"""What of the package is public: modules, classes, functions, methods, properties."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator
from functools import cache
from types import ModuleType
from typing import Any

MODULES = (
    "batcher",
    "batcher.statistics",
    "client",
    "client.aio",
    "dpf",
    "engine",
    "engine.base",
    "engine.cpu",
    "engine.cuda.engine",
    "engine.cuda.grid",
    "engine.cuda.phases",
    "engine.cuda.status",
    "engine.strategy",
    "errors",
    "instruction_set",
    "keyword",
    "keyword.file",
    "keyword.layout",
    "pages",
    "planner",
    "query",
    "service.app",
    "service.metrics",
    "service.run",
    "wire",
)


def is_public(name: str) -> bool:
    return not name.startswith("_")


def own_members(module: ModuleType) -> Iterator[tuple[str, Any]]:
    for name, value in vars(module).items():
        # A cached function is an object of another module, and says where it is from.
        if is_public(name) and getattr(value, "__module__", None) == module.__name__:
            yield name, value


def methods(cls: type) -> Iterator[tuple[str, Any]]:
    """The public methods and properties that a class itself defines."""
    for name, value in vars(cls).items():
        if is_public(name) and (callable(value) or isinstance(value, (property, classmethod))):
            yield name, value


@cache
def public_objects() -> dict[str, Any]:
    """All that the reference shows, by its name below morphogen."""
    found: dict[str, Any] = {}
    for place in MODULES:
        module = importlib.import_module(f"morphogen.{place}")
        found[place] = module
        for name, value in own_members(module):
            if inspect.isclass(value):
                found[f"{place}.{name}"] = value
                found |= {f"{place}.{name}.{item}": member for item, member in methods(value)}
            elif callable(value):
                found[f"{place}.{name}"] = value
    return found


def names(condition: Callable[[Any], bool] = lambda value: True) -> list[str]:
    return [name for name, value in public_objects().items() if condition(value)]
