"""Write the .pyi stubs of the Cython modules, from the modules as they are installed.

    python tools/make_stubs.py            writes them beside the sources
    python tools/make_stubs.py --check    exits with 1 where a committed stub is out of date

Signatures come from the annotations in the .pyx files, which compiled modules carry. What they do
not carry is read from the sources: constructors of C classes, and their read-only attributes.
Docstrings are copied: of a compiled module, an editor shows the stub's or none.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any

SOURCES = Path(__file__).resolve().parent.parent / "src"
MODULES = (
    "morphogen.dpf",
    "morphogen.instruction_set",
    "morphogen.planner",
    "morphogen.engine.cuda._driver",
    "morphogen.engine.cpu",
    "morphogen.engine.cuda.engine",
    "morphogen.engine.cuda.device_pages",
    "morphogen.engine.cuda.lane",
    "morphogen.engine.cuda.page_kernel",
)

# Where the names that annotations use come from.
IMPORTS = {
    "Any": "from typing import Any",
    "SupportsIndex": "from typing import SupportsIndex",
    "np": "import numpy as np",
    "npt": "import numpy.typing as npt",
    # In collections.abc from Python 3.12 on; type checkers know this one for all versions.
    "Buffer": "from typing_extensions import Buffer",
    "Answer": "from morphogen.query import Answer",
    "Callable": "from collections.abc import Callable",
    "Context": "from morphogen.engine.cuda._driver import Context",
    "DevicePages": "from morphogen.engine.cuda.device_pages import DevicePages",
    "Engine": "from morphogen.engine.base import Engine",
    "Grid": "from morphogen.engine.cuda.grid import Grid",
    "Kernel": "from morphogen.engine.cuda._driver import Kernel",
    "Module": "from morphogen.engine.cuda._driver import Module",
    "PageMatrix": "from morphogen.pages import PageMatrix",
    "PhaseTimes": "from morphogen.engine.cuda.phases import PhaseTimes",
    "Query": "from morphogen.query import Query",
    "Strategy": "from morphogen.engine.strategy import Strategy",
}

C_TYPES = dict.fromkeys(("Py_ssize_t", "size_t", "uint64_t"), "int") | {"bint": "bool"}


def read_source(module_name: str, suffix: str) -> str:
    path = (SOURCES / module_name.replace(".", "/")).with_suffix(suffix)
    return path.read_text() if path.exists() else ""


def signature(function: Any) -> str:
    """A function's signature, its annotations as they were written."""
    found = inspect.signature(function)
    text = str(found)
    annotations = {parameter.annotation for parameter in found.parameters.values()}
    for annotation in annotations | {found.return_annotation}:
        if isinstance(annotation, str):
            text = text.replace(repr(annotation), annotation)
    return text


def body(documented: Any, indent: str) -> str:
    """What stands after the colon: the docstring, or dots."""
    text = inspect.cleandoc(documented.__doc__ or "")
    if not text:
        return " ..."
    end = "\n" if "\n" in text else ""
    return textwrap.indent(f'\n"""{text}{end}"""', indent)


def class_lines(module_name: str, cls: type) -> list[str]:
    lines = []
    sources = read_source(module_name, ".pxd") + read_source(module_name, ".pyx")
    for text in re.findall(rf"^cdef class {cls.__name__}:\n((?:    .*\n|\n)+)", sources, re.M):
        for kind, attribute in re.findall(r"^    cdef readonly (\w+) (\w+)", text, re.M):
            lines.append(
                f"    @property\n    def {attribute}(self) -> {C_TYPES.get(kind, kind)}: ..."
            )
        for parameters in re.findall(r"^    def __cinit__(\([^)]*\) -> None):", text, re.M):
            # Cython's "size_t size" is Python's "size: int".
            python = re.sub(
                r"\b(\w+) (\w+)(?=[,)])",
                lambda match: f"{match[2]}: {C_TYPES.get(match[1], match[1])}",
                parameters,
            )
            lines.append(f"    def __init__{python}: ...")
    for name, member in vars(cls).items():
        if isinstance(member, property):
            lines.append(
                f"    @property\n    def {name}{signature(member.fget)}:{body(member, 8 * ' ')}"
            )
        elif getattr(member, "__annotations__", None) and name != "__cinit__":
            lines.append(f"    def {name}{signature(member)}:{body(member, 8 * ' ')}")
    bases = ", ".join(base.__name__ for base in cls.__bases__ if base is not object)
    head = f"class {cls.__name__}({bases}):" if bases else f"class {cls.__name__}:"
    return [head + body(cls, 4 * " "), "", *lines]


def stub(module: ModuleType) -> str:
    lines = []
    for name, value in vars(module).items():
        if name.startswith("_"):
            continue
        if isinstance(value, int):
            lines.append(f"{name}: int")
        elif getattr(value, "__module__", None) != module.__name__:
            continue
        elif inspect.isclass(value):
            lines += class_lines(module.__name__, value)
        else:
            lines.append(f"def {name}{signature(value)}:{body(value, 4 * ' ')}")
    text = "\n".join(lines)
    code = re.sub(r'""".*?"""', "", text, flags=re.DOTALL)
    imports = [
        line
        for name, line in IMPORTS.items()
        if re.search(rf"\b{name}\b", code) and f"from {module.__name__} " not in line
    ]
    head = ["# Made by tools/make_stubs.py from the module's source.", f'"""{module.__doc__}"""']
    return "\n".join([*head, *imports, text])


def formatted(text: str) -> str:
    command = [sys.executable, "-m", "ruff", "format", "--stdin-filename", "stub.pyi", "-"]
    sort = [sys.executable, "-m", "ruff", "check", "--select", "I", "--fix", "-q"]
    sort += ["--stdin-filename", "stub.pyi", "-"]
    for step in (sort, command):
        text = subprocess.run(step, input=text, text=True, capture_output=True, check=True).stdout
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the .pyi stubs of the Cython modules.")
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    check = parser.parse_args().check
    stale = []
    for name in MODULES:
        text = formatted(stub(importlib.import_module(name)))
        path = (SOURCES / name.replace(".", "/")).with_suffix(".pyi")
        if not check:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            stale.append(path.name)
    if stale:
        print(f"out of date: {', '.join(stale)}: run tools/make_stubs.py", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
