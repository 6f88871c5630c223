"""Imports point down: the package keeps import-linter's contracts, which pyproject.toml has.

import-linter reads only Python. So it reads a copy of the package in which each Cython module is
replaced by a Python module with the same imports and cimports.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "morphogen"
# Some packages have other names than their modules, Cython has modules of its own, and
# typing_extensions is for type checkers alone.
DISTRIBUTIONS = {"cuda": "cuda-python", "prometheus_client": "prometheus-client"}
WITHOUT_DISTRIBUTION = {"cpython", "cython", "libc", "libcpp", "typing_extensions"}

_CYTHON_IMPORT = re.compile(
    r"^[ \t]*((?:from[ \t]+\S+[ \t]+)?c?import[ \t]+(?:\([^)]*\)|.+))$", re.MULTILINE
)


def imports_of_cython(text: str) -> str:
    """Return the imports of a Cython source as Python."""
    statements = _CYTHON_IMPORT.findall(text)
    return "".join(re.sub(r"\bcimport\b", "import", found) + "\n" for found in statements)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Make the copy of the package that import-linter reads."""
    folder = tmp_path / "morphogen"
    shutil.copytree(SOURCE, folder, ignore=shutil.ignore_patterns("*.pyi", "__pycache__"))
    for path in [*folder.rglob("*.pyx"), *folder.rglob("*.pxd")]:
        with path.with_suffix(".py").open("a", encoding="utf-8") as module:
            module.write(imports_of_cython(path.read_text(encoding="utf-8")))
    return folder


def broken_contracts(copy: Path) -> set[str]:
    pytest.importorskip("importlinter", reason="needs import-linter: pip install '.[lint]'")
    # Without site (-S) no path leads to the installed package.
    path = os.pathsep.join([str(copy.parent), sysconfig.get_path("purelib")])
    command = "from importlinter import cli; cli.lint_imports_command()"
    result = subprocess.run(
        [sys.executable, "-S", "-c", command, "--no-cache"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "contracts" in result.stdout.lower(), result.stdout + result.stderr
    broken = set(re.findall(r"^(.+) BROKEN", result.stdout, re.MULTILINE))
    assert (result.returncode == 0) == (not broken), result.stdout + result.stderr
    print(result.stdout)  # a failure shows which import is wrong
    return broken


def test_the_contracts_are_kept(copy: Path) -> None:
    assert broken_contracts(copy) == set()


@pytest.mark.parametrize(
    ("module", "text", "broken"),
    [
        ("pages/__init__.py", "import morphogen.query", "rooms point down"),
        ("engine/base.py", "def late():\n    import morphogen.service.run", "rooms point down"),
        ("service/app.py", "from morphogen.client import rules", "rooms point down"),
        ("wire/__init__.py", "if TYPE_CHECKING:\n    import morphogen.keyword", "rooms point down"),
        (
            "service/metrics.py",
            "import morphogen.service.app",
            "no cycles, in rooms or between them",
        ),
        ("engine/cuda/ptx.py", "from cuda.bindings import driver", "the driver has one home"),
        ("query.py", "import morphogen.engine.base", "keys, queries and plans know no device"),
        ("planner.py", "import morphogen.engine.cpu", "keys, queries and plans know no device"),
    ],
)
def test_a_wrong_import_breaks_a_contract(copy: Path, module: str, text: str, broken: str) -> None:
    with (copy / module).open("a", encoding="utf-8") as file:
        file.write(f"\n{text}\n")
    assert broken in broken_contracts(copy)


def test_a_new_module_costs_its_file(copy: Path) -> None:
    """No contract and no other list names the modules of a room."""
    (copy / "engine" / "newcomer.py").write_text("import morphogen.engine.base\n")
    assert broken_contracts(copy) == set()
    lists = [ROOT / "pyproject.toml", ROOT / ".pre-commit-config.yaml"]
    lists += [
        path for name in ("tests", "tools", "asv_bench") for path in (ROOT / name).rglob("*.py")
    ]
    rooms = [folder for folder in SOURCE.iterdir() if len([*folder.glob("*.py")]) > 3]
    assert len(rooms) > 5
    for room in rooms:
        modules = [f"{room.name}.{path.stem}" for path in room.glob("[a-z]*.py")]
        naming = [path for path in lists if all(name in path.read_text() for name in modules)]
        assert naming == []


@pytest.mark.parametrize(
    "text",
    [
        "cdef int x = 1\nfrom morphogen cimport dpf",
        "cimport morphogen.dpf",
        "from morphogen.dpf cimport (\n    gen,  # keys\n    key_size,\n)\ncdef f(): pass",
        "cdef void f() noexcept nogil:\n    pass\n    import morphogen.dpf",
    ],
)
def test_imports_of_cython_are_seen(text: str) -> None:
    (statement,) = ast.parse(imports_of_cython(text)).body
    assert re.search(r"morphogen(\.| import )dpf", ast.unparse(statement))


@pytest.mark.parametrize(
    "words",
    [
        r"^\s*from morphogen import ",  # a sibling through the package itself
        r"^\s*import morphogen as ",
        r"^\s*from \.",
        # import-linter does not see these at all, or not in Cython.
        r"^\s*include ",
        r"import .*\\$",
        r";.*import ",
    ],
)
def test_nothing_is_imported_in_another_way(words: str) -> None:
    sources = [path for path in SOURCE.rglob("*") if path.suffix in {".py", ".pyx", ".pxd", ".pyi"}]
    assert len(sources) > 50
    found = re.compile(words, re.MULTILINE)
    assert [path for path in sources if found.search(path.read_text(encoding="utf-8"))] == []


def test_nothing_is_imported_that_pyproject_does_not_ask_for(copy: Path) -> None:
    # The repository's own folders are no part of the package either: tools, tests, asv_bench.
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    requirements = [*project["dependencies"]]
    for name in ("cuda", "server", "client", "arrow", "sign", "plot", "ray"):
        requirements += extras[name]
    asked = {re.split("[^a-z0-9-]", line)[0] for line in requirements}
    packages = set()
    for path in copy.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                packages.add(str(node.module).partition(".")[0])
            elif isinstance(node, ast.Import):
                packages |= {alias.name.partition(".")[0] for alias in node.names}
    foreign = packages - sys.stdlib_module_names - WITHOUT_DISTRIBUTION - {"morphogen"}
    assert {DISTRIBUTIONS.get(name, name) for name in foreign} <= asked
