"""The layers of the source: imports only ever point down one list of all modules.

All imports count: those inside of functions, those for type checkers only, Cython's cimports.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "morphogen"

# From the top down: a module imports none that stands above it. A new module takes the lowest place
# that its imports allow.
LAYERS = [
    "morphogen",
    "morphogen.__main__",
    "morphogen.server",
    "morphogen.server_process",
    "morphogen.table_file",
    "morphogen.table_layout",
    "morphogen.cli",
    "morphogen.cli.bench",
    "morphogen.cli.serve",
    "morphogen.cli.get",
    "morphogen.cli.table",
    "morphogen.cli.arguments",
    "morphogen.cli.show",
    "morphogen.cli.show_bench",
    "morphogen.cli.doctor",
    "morphogen.demo.lookup",
    "morphogen.demo",
    "morphogen.bench.plot",
    "morphogen.bench",
    "morphogen.bench.result",
    "morphogen.bench.matrix",
    "morphogen.bench.trial",
    "morphogen.bench.rounds",
    "morphogen.bench.concurrency",
    "morphogen.bench.phases",
    "morphogen.bench.expected",
    "morphogen.bench.csv",
    "morphogen.bench.pages",
    "morphogen.bench.config",
    "morphogen.bench.strategies",
    "morphogen.bench.recommend",
    "morphogen.bench.statistics",
    "morphogen.bench.workload",
    "morphogen.bench.describe",
    "morphogen.client",
    "morphogen.client.aio",
    "morphogen.client.loop",
    "morphogen.client.transport",
    "morphogen.client.rules",
    "morphogen.client.addresses",
    "morphogen.service.process",
    "morphogen.service.run",
    "morphogen.service",
    "morphogen.service.app",
    "morphogen.service.middleware",
    "morphogen.service.metrics",
    "morphogen.service.openapi",
    "morphogen.batcher",
    "morphogen.batcher.statistics",
    "morphogen.batcher.queue",
    "morphogen.keyword.file",
    "morphogen.keyword",
    "morphogen.keyword.cuckoo",
    "morphogen.keyword.layout",
    "morphogen.wire",
    "morphogen.wire.forms",
    "morphogen.engine.grid",
    "morphogen.engine.phases",
    "morphogen.engine",
    "morphogen.engine.cuda",
    "morphogen.engine.cuda.engine",
    "morphogen.engine.cpu",
    "morphogen.engine.cuda.lane",
    "morphogen.engine.cuda.page_kernel",
    "morphogen.engine.cuda.device_pages",
    "morphogen.engine.cuda.grid",
    "morphogen.engine.cuda.phases",
    "morphogen.engine.cuda.status",
    "morphogen.engine.cuda.ptx",
    "morphogen.engine.cuda._driver",
    "morphogen.engine.cuda.driver_errors",
    "morphogen.engine.base",
    "morphogen.engine.strategy",
    "morphogen.query",
    "morphogen.planner",
    "morphogen.pages",
    "morphogen.dpf",
    "morphogen.instruction_set",
    "morphogen.kernels",
    "morphogen.checks",
    "morphogen.errors",
]

# What is imported besides Python and the package itself: what pyproject.toml asks for, whose
# packages have other names than their modules; Cython's own; typing_extensions, for type checkers.
DISTRIBUTIONS = {"cuda": "cuda-python", "prometheus_client": "prometheus-client"}
WITHOUT_DISTRIBUTION = {"cpython", "cython", "libc", "libcpp", "typing_extensions"}


def source_files() -> list[Path]:
    files = sorted(
        path for path in SOURCE.rglob("*") if path.suffix in {".py", ".pyx", ".pxd", ".pyi"}
    )
    assert len(files) > 10
    return files


each_file = pytest.mark.parametrize(
    "path", source_files(), ids=lambda path: str(path.relative_to(SOURCE))
)


def module_of(path: Path) -> str:
    parts = ["morphogen", *path.relative_to(SOURCE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def parse(text: str, suffix: str) -> ast.AST:
    """The syntax tree of a source; of a Cython source, that of its imports."""
    if suffix in {".pyx", ".pxd"}:
        # Cython is not Python, but its import statements are, once cimport is import.
        statement = r"^[ \t]*(?:from[ \t]+\S+[ \t]+c?import[ \t]+(?:\([^)]*\)|.+)|c?import[ \t].+)$"
        found = re.findall(statement, text, flags=re.MULTILINE)
        text = "\n".join(re.sub(r"\bcimport\b", "import", line).strip() for line in found)
    return ast.parse(text)


def imported(text: str, suffix: str = ".py") -> set[str]:
    """Dotted names of all that a source imports, wherever and however it does.

    `import morphogen` by itself, for the version, is none; a use of `morphogen.dpf` then is one.
    """
    names: set[str] = set()
    for node in ast.walk(parse(text, suffix)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name != "morphogen":
                    names.add(alias.name)
                elif alias.asname:
                    raise ValueError("the package is imported under another name than its own")
        elif isinstance(node, ast.ImportFrom):
            if node.level or node.module is None:
                raise ValueError("a relative import")
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            names |= {f"morphogen.{node.attr}"} if node.value.id == "morphogen" else set()
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            argument = node.args[0]
            # What is put together while it runs has no name yet.
            names.add(str(argument.value) if isinstance(argument, ast.Constant) else "<computed>")
    return names - {"morphogen.__version__"}


def imported_modules(path: Path) -> set[str]:
    """The modules of the package that a file imports."""
    names = imported(path.read_text(encoding="utf-8"), path.suffix)
    ours = {name for name in names if name.partition(".")[0] == "morphogen"}
    return {name if name in LAYERS else name.rpartition(".")[0] for name in ours}


# What the parser sees


@pytest.mark.parametrize(
    ("text", "suffix"),
    [
        ("import morphogen.dpf", ".py"),
        ("import os, morphogen.dpf as keys", ".py"),
        ("from morphogen import dpf", ".py"),
        ("from morphogen import (\n    dpf,\n)", ".py"),
        ("def late():\n    from morphogen import dpf", ".py"),
        ("if TYPE_CHECKING:\n    from morphogen import dpf", ".py"),
        ("try:\n    import morphogen.dpf\nexcept ImportError:\n    pass", ".py"),
        ("import morphogen\nmorphogen.dpf.gen(1, 2)", ".py"),
        ("importlib.import_module('morphogen.dpf')", ".py"),
        ("cdef int x = 1\nfrom morphogen cimport dpf", ".pyx"),
        ("cimport morphogen.dpf", ".pxd"),
        ("cdef void f() noexcept nogil:\n    pass\n    from morphogen import dpf", ".pyx"),
        ("from morphogen cimport (\n    dpf,  # keys\n)\ncdef f(): pass", ".pyx"),
    ],
)
def test_no_import_goes_unseen(text: str, suffix: str) -> None:
    assert "morphogen.dpf" in imported(text, suffix)


@pytest.mark.parametrize("text", ["from . import dpf", "from .dpf import gen", "from .. import x"])
def test_relative_imports_are_refused(text: str) -> None:
    for suffix in (".py", ".pyx"):
        with pytest.raises(ValueError, match="relative"):
            imported(text, suffix)


def test_the_package_under_another_name_is_refused() -> None:
    with pytest.raises(ValueError, match="another name"):
        imported("import morphogen as mg")


# The rule


def test_every_module_stands_in_the_list_once_and_nothing_else_does() -> None:
    assert [name for name, count in Counter(LAYERS).items() if count > 1] == []
    assert set(LAYERS) == {module_of(path) for path in source_files()}


@each_file
def test_imports_point_down(path: Path) -> None:
    above = LAYERS[: LAYERS.index(module_of(path))]
    assert imported_modules(path) & set(above) == set()


@each_file
def test_only_the_public_names_and_the_command_line_compute_what_they_import(path: Path) -> None:
    computed = "<computed>" in imported(path.read_text(encoding="utf-8"), path.suffix)
    assert not computed or module_of(path) in {"morphogen", "morphogen.cli"}


@each_file
def test_cython_includes_no_text(path: Path) -> None:
    # Nothing here would look at it. Nor does it see two imports on a line, or one on two.
    text = path.read_text(encoding="utf-8")
    if path.suffix in {".pyx", ".pxd"}:
        assert not re.search(r"^\s*include\s|import\b.*\\$|;\s*(from\s.*)?c?import\b", text, re.M)


@each_file
def test_nothing_is_imported_that_pyproject_does_not_ask_for(path: Path) -> None:
    # The folders of this repository, too, are no part of the package: tools, tests, asv_bench.
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    requirements = [*project["dependencies"]]
    requirements += [line for name in ("cuda", "server", "client", "plot") for line in extras[name]]
    asked = {re.split("[^a-z-]", line)[0] for line in requirements}
    names = imported(path.read_text(encoding="utf-8"), path.suffix) - {"<computed>"}
    packages = {name.partition(".")[0] for name in names}
    foreign = packages - sys.stdlib_module_names - WITHOUT_DISTRIBUTION - {"morphogen"}
    assert {DISTRIBUTIONS.get(name, name) for name in foreign} <= asked


# CUDA


def reachable(module: str) -> set[str]:
    """A module of the package and all that its import may bring."""
    found, new = set(), {module}
    while new:
        found |= new
        files = [path for path in source_files() if module_of(path) in new]
        new = set().union(*map(imported_modules, files)) - found
    return found


@pytest.mark.parametrize("name", ["planner", "query", "pages", "dpf"])
def test_what_knows_no_device(name: str) -> None:
    reached = reachable(f"morphogen.{name}")
    assert not any(module.startswith("morphogen.engine") for module in reached)
    files = [path for path in source_files() if module_of(path) == f"morphogen.{name}"]
    assert not any("cuda" in path.read_text(encoding="utf-8").lower() for path in files)


def test_the_driver_has_one_home() -> None:
    users = {
        module_of(path)
        for path in source_files()
        if "cydriver" in path.read_text(encoding="utf-8")
        or any(
            name.partition(".")[0] == "cuda"
            for name in imported(path.read_text(encoding="utf-8"), path.suffix)
        )
    }
    assert users == {"morphogen.engine.cuda._driver"}
