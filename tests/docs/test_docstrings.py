"""The docstrings, from which the reference is built, are true to the code.

The build of the site runs numpydoc, which checks that docstrings are complete (docs/conf.py), but
not the fields of data classes. Ruff's and pydoclint's rules on errors read no Cython, and not the
functions that the documented one calls.
"""

from __future__ import annotations

import builtins
import dataclasses
import importlib
import inspect
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import pytest

import morphogen as mg
from public_objects import names, public_objects

# Skip each test, not the file: a session of the GPU tests would count a skipped file too.
pytestmark = pytest.mark.skipif(find_spec("numpydoc") is None, reason="needs numpydoc")

SOURCE = Path(__file__).resolve().parents[2] / "src" / "morphogen"
# Errors that a function catches from the functions that it calls.
CAUGHT = {"driver_status": {"ImportError"}}


def sections(value: Any) -> Any:
    """Return the parts of a docstring."""
    from numpydoc.docscrape import NumpyDocString

    return NumpyDocString(inspect.cleandoc(value.__doc__ or ""))


def has_fields(value: Any) -> bool:
    return dataclasses.is_dataclass(value) or (
        inspect.isclass(value) and issubclass(value, msgspec.Struct)
    )


@pytest.mark.parametrize("name", names(has_fields))
def test_every_field_is_described(name: str) -> None:
    value = public_objects()[name]
    parts = sections(value)
    described = [*parts["Parameters"], *parts["Attributes"]]
    documented = [item.strip() for entry in described for item in entry.name.split(",")]
    assert documented == list(value.__annotations__)
    assert all(entry.type for entry in described)


# Errors


class Code:
    """The functions of a source file in Python or Cython, with the errors that each raises."""

    def __init__(self, path: Path) -> None:
        self.bodies: dict[str, str] = {}
        lines = path.read_text(encoding="utf-8").splitlines()
        owner = ""
        for at, line in enumerate(lines):
            if match := re.match(r"(?:cdef )?class (\w+)", line):
                owner = f"{match[1]}."
            elif line[:1].isalpha():
                owner = ""
            head = r"( *)(?:(?:async )?def |cdef (?:[\w*\[\]:,]+ )*)(\w+)\("
            if match := re.match(head, line):
                self.bodies[owner + match[2]] = self._body(lines[at:], len(match[1]))

    @staticmethod
    def _body(lines: list[str], indent: int) -> str:
        start = next(at for at, line in enumerate(lines) if line.endswith(":"))
        body = []
        for line in lines[start + 1 :]:
            if line.strip() and len(line) - len(line.lstrip()) <= indent:
                break
            body.append(line)
        return re.sub(r'""".*?"""', "", "\n".join(body), flags=re.DOTALL)

    def raised_by(self, name: str, seen: frozenset[str] = frozenset()) -> set[str]:
        """Return the errors that a function raises, itself or through functions of its file."""
        body = self.bodies.get(name)
        if body is None or name in seen:
            return set()
        owner = name.rpartition(".")[0]
        raised = set(re.findall(r"\braise (?:wire\.)?([A-Z]\w+)\(", body))
        for receiver, called in re.findall(r"(?<![\w.])(self\.|cls\.)?(\w+)\(", body):
            callee = f"{owner}.{called}" if receiver else called
            raised |= self.raised_by(callee, seen | {name})
        return raised - {"AssertionError"}


@cache
def code(module: str) -> Code:
    path = Path(str(SOURCE / module.replace(".", "/")))
    candidates = [path.with_suffix(".py"), path.with_suffix(".pyx"), path / "__init__.py"]
    return Code(next(file for file in candidates if file.exists()))


def error_class(name: str, module: str) -> type[BaseException]:
    spaces = (builtins, mg.errors, importlib.import_module(f"morphogen.{module}"))
    error: type[BaseException] = next(vars(space)[name] for space in spaces if name in vars(space))
    assert issubclass(error, BaseException)
    return error


def documented_errors(value: Any) -> list[str]:
    return [item for entry in sections(value)["Raises"] for item in entry.type.split(", ")]


@pytest.mark.parametrize("name", names(lambda value: not inspect.ismodule(value)))
def test_errors_are_those_of_the_code(name: str) -> None:
    value = public_objects()[name]
    function: Any = value.fget if isinstance(value, property) else value
    module = function.__module__.removeprefix("morphogen.")
    inner = function.__qualname__
    documented = {error_class(item, module) for item in documented_errors(value)}
    makers = ("__init__", "__cinit__", "__post_init__") if inspect.isclass(value) else ()
    functions = [f"{inner}.{maker}" for maker in makers] or [inner]
    for raised in set().union(*map(code(module).raised_by, functions)) - CAUGHT.get(name, set()):
        bases = {*error_class(raised, module).__mro__} - {Exception, BaseException, object}
        if raised != "MorphogenError":
            bases -= {mg.MorphogenError}
        assert documented & bases, f"{name} may raise {raised}"


def test_the_reader_of_code_sees_what_is_raised() -> None:
    assert code("dpf").raised_by("gen") == {"TypeError", "ValueError"}
    assert code("dpf").raised_by("restrict") == {"ValueError"}
    refused = {"TypeError", "InvalidKeyError", "KeyDomainError"}
    assert code("key_format").raised_by("check_key") == refused
    packing = {"TypeError", "ValueError", "MemoryError"}
    assert code("planner").raised_by("KeyPacker.pack") == packing
    assert code("engine.lifetime").raised_by("Lifetime.check_usable") == {"EngineClosedError"}
    assert code("engine.holding").raised_by("HoldingEngine.replace_pages") == {"ValueError"}
    assert code("engine.cpu").raised_by("CpuEngine.__init__") >= {"TypeError", "ValueError"}
    assert code("batcher").raised_by("MicroBatcher.submit") == {"BatcherClosedError"}


def test_an_algorithm_names_its_source() -> None:
    for name in ("dpf", "dpf.gen", "dpf.eval_full", "dpf.eval_at"):
        assert "Boyle" in public_objects()[name].__doc__
    for name in ("dpf", "dpf.gen", "dpf.eval_full"):
        assert "RFC 8439" in public_objects()[name].__doc__
    assert "Khosla" in public_objects()["keyword.build"].__doc__
