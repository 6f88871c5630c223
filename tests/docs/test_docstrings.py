"""Docstrings, of which the reference is made: complete, and true to the code."""

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
from public_objects import MODULES, names, public_objects

import morphogen as mg

# Test by test: a file that is skipped as a whole would count among the tests of a GPU, too.
pytestmark = pytest.mark.skipif(find_spec("numpydoc") is None, reason="needs numpydoc")

SOURCE = Path(__file__).resolve().parents[2] / "src" / "morphogen"
# What numpydoc finds that matters to a reader; the rest is taste. Its documentation lists all.
CODES = {
    "GL03": "two blank lines",
    "GL06": "a section that numpydoc does not know",
    "GL07": "sections in another order",
    "GL08": "no docstring",
    "SS03": "a summary without a full stop",
    "SS06": "a summary of several lines",
    "PR01": "a parameter that is not described",
    "PR02": "a parameter that there is not",
    "PR03": "parameters in another order",
    "PR04": "a parameter without a type",
    "PR07": "a parameter without a description",
    "PR10": "no space before the colon",
    "RT01": "no Returns",
    "RT02": "a name where the type should be",
    "RT03": "a value without a description",
    "YD01": "no Yields",
}
# What a function catches of the functions that it calls.
CAUGHT = {"engine.status.driver_status": {"ImportError"}}


def sections(value: Any) -> Any:
    """The parts of a docstring."""
    from numpydoc.docscrape import NumpyDocString

    return NumpyDocString(inspect.cleandoc(value.__doc__ or ""))


def has_fields(value: Any) -> bool:
    return dataclasses.is_dataclass(value) or (
        inspect.isclass(value) and issubclass(value, msgspec.Struct)
    )


@pytest.mark.parametrize("name", names())
def test_the_docstring_is_complete(name: str) -> None:
    from numpydoc.validate import validate

    value = public_objects()[name]
    found = {code: text for code, text in validate(f"morphogen.{name}")["errors"] if code in CODES}
    if inspect.isclass(value):
        if has_fields(value):
            found.pop("PR01", None)  # fields may be attributes, see below
        if issubclass(value, Exception) and "__init__" not in vars(value):
            found.pop("PR01", None)  # the base class describes them
        if "__pyx_vtable__" in vars(value):
            found.pop("PR02", None)  # a C class has no signature to compare with
    assert found == {}


@pytest.mark.parametrize("name", names(has_fields))
def test_every_field_is_described(name: str) -> None:
    value = public_objects()[name]
    parts = sections(value)
    described = [*parts["Parameters"], *parts["Attributes"]]
    documented = [item.strip() for entry in described for item in entry.name.split(",")]
    assert documented == list(value.__annotations__)
    assert all(entry.type for entry in described)


@pytest.mark.parametrize("name", names(lambda value: hasattr(value, "__annotations__")))
def test_what_returns_something_says_what(name: str) -> None:
    value = public_objects()[name]
    if not inspect.isclass(value) and not inspect.ismodule(value):
        returns = value.__annotations__.get("return")
        assert bool(sections(value)["Returns"]) == (returns not in (None, "None"))


# Errors


class Code:
    """The functions of a source file, whether of Python or of Cython, with what each raises."""

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
        """The errors that a function raises itself, or by a function of the same file."""
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


def split(name: str) -> tuple[str, str]:
    """The module of an object, and its name there."""
    module = max((place for place in MODULES if name.startswith(f"{place}.")), key=len)
    return module, name.removeprefix(f"{module}.")


def documented_errors(value: Any) -> list[str]:
    return [item for entry in sections(value)["Raises"] for item in entry.type.split(", ")]


@pytest.mark.parametrize("name", names(lambda value: not inspect.ismodule(value)))
def test_errors_are_those_of_the_code(name: str) -> None:
    module, inner = split(name)
    value = public_objects()[name]
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
    assert code("dpf").raised_by("parse_key") == {"TypeError", "InvalidKeyError"}
    packing = {"TypeError", "ValueError", "MemoryError"}
    assert code("planner").raised_by("KeyPacker.pack") == packing
    assert code("engine.base").raised_by("Engine.answer") >= {"EngineClosedError", "ValueError"}
    assert code("engine.cpu").raised_by("CpuEngine.__init__") >= {"TypeError", "ValueError"}
    assert code("batcher").raised_by("MicroBatcher.submit") == {"BatcherClosedError"}


def test_an_algorithm_names_its_source() -> None:
    for name in ("dpf", "dpf.gen", "dpf.eval_full", "dpf.eval_at"):
        assert "Boyle" in public_objects()[name].__doc__
    for name in ("dpf", "dpf.gen", "dpf.eval_full"):
        assert "RFC 8439" in public_objects()[name].__doc__
    assert "Khosla" in public_objects()["keyword.build"].__doc__
