"""Write the .pyi stubs of the Cython modules, from the modules as they are installed.

    python tools/release/make_stubs.py            writes them beside the sources
    python tools/release/make_stubs.py --check    exits with 1 where a stub is out of date

Compiled modules carry the signatures, with the annotations of the .pyx files. The sources have the
rest: constructors of C classes, and their read-only attributes. Docstrings are copied, because an
editor shows the stub's docstring of a compiled module or none.

Two generators were tried and do not serve. mypy's stubgen finds no signature in a compiled module.
stubgen-pyx 0.3 keeps @cython.final, which a user's checker cannot resolve, and loses each type
that the .pyx does not import.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import re
import subprocess
import sys
import textwrap
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

SOURCES = Path(__file__).resolve().parents[2] / "src"

# The names in annotations that are not the package's own classes.
IMPORTS = {
    "Any": "from typing import Any",
    "SupportsIndex": "from typing import SupportsIndex",
    "np": "import numpy as np",
    "npt": "import numpy.typing as npt",
    # This is in collections.abc from Python 3.12 on. Type checkers know typing_extensions in all
    # versions.
    "Buffer": "from typing_extensions import Buffer",
    "OrderedDict": "from collections import OrderedDict",
    "Callable": "from collections.abc import Callable",
    "Iterable": "from collections.abc import Iterable",
    "Sequence": "from collections.abc import Sequence",
    "Thread": "from threading import Thread",
    "Progress": "from morphogen.progress import Progress",
}

C_TYPES = dict.fromkeys(("Py_ssize_t", "size_t", "uint64_t"), "int")
C_TYPES |= {"bint": "bool", "list": "list[Any]"}


def dotted(path: Path) -> str:
    """Return the name of the module of a source."""
    return ".".join(path.relative_to(SOURCES).with_suffix("").parts).removesuffix(".__init__")


@cache
def defining_modules() -> dict[str, list[str]]:
    """Return the modules that define each class of the package, by the class's name."""
    modules: dict[str, list[str]] = {}
    for path in sorted([*SOURCES.rglob("*.py"), *SOURCES.rglob("*.pyx")]):
        for name in re.findall(r"^(?:cdef )?class (\w+)", path.read_text(), re.MULTILINE):
            modules.setdefault(name, []).append(dotted(path))
    return modules


def imports(code: str, module_name: str) -> list[str]:
    """Return the imports that a stub needs for the names in its annotations."""
    lines = []
    for name in sorted(set(re.findall(r"\b[A-Za-z]\w*", code))):
        modules = defining_modules().get(name, [])
        if name in IMPORTS:
            lines.append(IMPORTS[name])
        elif modules and module_name not in modules:
            folder = module_name.split(".")[:2]
            near = (module for module in modules if module.split(".")[:2] == folder)
            lines.append(f"from {next(near, modules[0])} import {name}")
    return lines


def read_source(module_name: str, suffix: str) -> str:
    path = (SOURCES / module_name.replace(".", "/")).with_suffix(suffix)
    return path.read_text() if path.exists() else ""


def signature(function: Any) -> str:
    """Return a function's signature with its annotations as they were written."""
    found = inspect.signature(function)
    text = str(found)
    annotations = {parameter.annotation for parameter in found.parameters.values()}
    for annotation in annotations | {found.return_annotation}:
        if isinstance(annotation, str):
            text = text.replace(repr(annotation), annotation)
    return text


def body(documented: Any, indent: str) -> str:
    """Return the text after the colon: the docstring, or dots."""
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
        for kind, attribute in re.findall(r"^    cdef public (\w+) (\w+)", text, re.M):
            lines.append(f"    {attribute}: {C_TYPES.get(kind, kind)}")
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
    made_by = "# Made by tools/release/make_stubs.py from the module's source."
    head = [made_by, f'"""{module.__doc__}"""']
    return "\n".join([*head, *imports(code, module.__name__), text])


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
    for source in sorted(SOURCES.rglob("*.pyx")):
        text = formatted(stub(importlib.import_module(dotted(source))))
        path = source.with_suffix(".pyi")
        if not check:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            stale.append(path.name)
    if stale:
        print(f"out of date: {', '.join(stale)}: run tools/release/make_stubs.py", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
