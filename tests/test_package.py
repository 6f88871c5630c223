"""The package as a whole: what the import costs, the public names, the layers of the source."""

from __future__ import annotations

import ast
import importlib
import importlib.resources
import re
import subprocess
import sys
from pathlib import Path

import pytest

import morphogen as mg

SOURCE = Path(__file__).resolve().parent.parent / "src" / "morphogen"


def modules_loaded_by(statement: str) -> set[str]:
    """What a statement adds to the modules of a fresh interpreter."""
    script = (
        f"import sys; before = set(sys.modules); {statement}; print(*set(sys.modules) - before)"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(result.stdout.split())


def foreign(modules: set[str]) -> set[str]:
    """The packages among modules that are neither Python's own nor morphogen."""
    return {name.partition(".")[0] for name in modules} - {*sys.stdlib_module_names, "morphogen"}


# The import


def test_the_import_loads_nothing_but_numpy() -> None:
    modules = modules_loaded_by("import morphogen")
    assert "morphogen" in modules
    assert foreign(modules) <= {"numpy"}
    assert not any(name.startswith("morphogen.engine") for name in modules)


def test_use_on_the_cpu_loads_nothing_but_numpy() -> None:
    modules = modules_loaded_by(
        "import numpy as np, morphogen as mg; pages = mg.PageMatrix(np.ones((9, 9), np.uint8));"
        "engine = mg.open_engine(pages, device='cpu'); q0, q1 = mg.make_query([1], 9);"
        "mg.reconstruct(engine.answer([q0]), engine.answer([q1])); engine.close()"
    )
    assert "morphogen.engine.cpu" in modules
    foreigners = {name for name in foreign(modules) if not name.startswith(("numpy", "_"))}
    assert not foreigners - {"cython_runtime"}
    assert not any("cuda" in name for name in modules)


# Public names

FUNCTIONS = ["driver_status", "make_query", "make_queries", "open_engine", "reconstruct"]
CLASSES = [
    "Answer",
    "AsyncClient",
    "BatcherStatistics",
    "Client",
    "DeviceStatus",
    "DriverStatus",
    "Engine",
    "MicroBatcher",
    "PageMatrix",
    "Query",
]
ERRORS = [
    "BatcherClosedError",
    "DeadlineError",
    "DeviceError",
    "DeviceOutOfMemoryError",
    "DeviceUnavailableError",
    "DomainMismatchError",
    "EngineClosedError",
    "EpochMismatchError",
    "InvalidKeyError",
    "KeyDomainError",
    "MorphogenError",
    "OverloadedError",
    "ServerError",
    "TableBuildError",
    "TableFileError",
    "TableMismatchError",
    "WireError",
]
MODULES = {
    "dpf": ["MAX_PAGES", "eval_at", "eval_full", "gen", "key_size"],
    "instruction_set": ["compiled", "supported"],
    "planner": ["KeyPacker", "micro_batch_ranges"],
}


@pytest.mark.parametrize("name", [*FUNCTIONS, *CLASSES, *ERRORS])
def test_public_name(name: str) -> None:
    value = getattr(mg, name)
    assert callable(value)
    assert value.__doc__
    assert getattr(mg, name) is value
    assert name in mg.__all__
    assert name in dir(mg)


@pytest.mark.parametrize("name", MODULES)
def test_public_module(name: str) -> None:
    module = getattr(mg, name)
    assert module is importlib.import_module(f"morphogen.{name}")
    assert name in mg.__all__
    assert name in dir(mg)
    for member in MODULES[name]:
        assert hasattr(module, member)


def test_every_listed_name_is_there() -> None:
    assert list(mg.__all__) == sorted(set(mg.__all__))
    for name in mg.__all__:
        assert getattr(mg, name) is not None
    namespace: dict[str, object] = {}
    exec("from morphogen import *", namespace)
    assert set(mg.__all__) <= set(namespace)


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match=r"^module 'morphogen' has no attribute 'nothing'$"):
        mg.nothing  # noqa: B018
    with pytest.raises(ImportError):
        exec("from morphogen import nothing")


def test_version() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+([a-z]+\d+)?", mg.__version__)
    pyproject = (SOURCE.parent.parent / "pyproject.toml").read_text(encoding="utf-8")
    assert f'\nversion = "{mg.__version__}"\n' in pyproject


def test_every_error_is_a_morphogen_error() -> None:
    for name in ERRORS:
        assert issubclass(getattr(mg, name), mg.MorphogenError)
    assert issubclass(mg.InvalidKeyError, ValueError)
    assert issubclass(mg.DomainMismatchError, ValueError)
    assert issubclass(mg.KeyDomainError, mg.DomainMismatchError)
    assert issubclass(mg.KeyDomainError, mg.InvalidKeyError)
    assert not issubclass(mg.EpochMismatchError, ValueError)
    assert issubclass(mg.DeviceUnavailableError, mg.DeviceError)
    assert issubclass(mg.DeviceOutOfMemoryError, mg.DeviceError)
    assert issubclass(mg.DeviceOutOfMemoryError, MemoryError)


def test_the_package_says_that_it_is_typed() -> None:
    assert importlib.resources.files("morphogen").joinpath("py.typed").is_file()


def test_the_instruction_sets() -> None:
    compiled, supported = mg.instruction_set.compiled(), mg.instruction_set.supported()
    assert compiled[-1] == supported[-1] == "baseline"
    assert [name for name in compiled if name in supported] == list(supported)


# Layers: imports point down this list

LAYERS = [
    "morphogen",
    "morphogen.__main__",
    "morphogen.cli",
    "morphogen.cli_bench",
    "morphogen.cli_serve",
    "morphogen.cli_get",
    "morphogen.cli_table",
    "morphogen.cli_arguments",
    "morphogen.tables",
    "morphogen.tables_bench",
    "morphogen.doctor",
    "morphogen.demo_lookup",
    "morphogen.demo",
    "morphogen.bench_plot",
    "morphogen.bench",
    "morphogen.bench_matrix",
    "morphogen.bench_trial",
    "morphogen.bench_rounds",
    "morphogen.bench_concurrency",
    "morphogen.bench_phases",
    "morphogen.bench_expected",
    "morphogen.bench_csv",
    "morphogen.bench_pages",
    "morphogen.bench_config",
    "morphogen.bench_strategies",
    "morphogen.bench_recommend",
    "morphogen.bench_statistics",
    "morphogen.workload",
    "morphogen.describe",
    "morphogen.client",
    "morphogen.async_client",
    "morphogen.client_transport",
    "morphogen.client_rules",
    "morphogen.client_servers",
    "morphogen.server_process",
    "morphogen.server",
    "morphogen.service",
    "morphogen.outermost",
    "morphogen.metrics",
    "morphogen.openapi",
    "morphogen.batcher",
    "morphogen.batcher_statistics",
    "morphogen.waiting",
    "morphogen.table_file",
    "morphogen.keyword",
    "morphogen.cuckoo",
    "morphogen.table_layout",
    "morphogen.wire",
    "morphogen.wire_forms",
    "morphogen.engine",
    "morphogen.engine.cuda",
    "morphogen.engine.cpu",
    "morphogen.engine.lane",
    "morphogen.engine.page_kernel",
    "morphogen.engine.device_pages",
    "morphogen.engine.grid",
    "morphogen.engine.phases",
    "morphogen.engine.status",
    "morphogen.engine.ptx",
    "morphogen.engine._driver",
    "morphogen.engine.driver_errors",
    "morphogen.engine.base",
    "morphogen.engine.strategy",
    "morphogen.query",
    "morphogen.planner",
    "morphogen.pages",
    "morphogen.dpf",
    "morphogen.instruction_set",
    "morphogen.kernels",
    "morphogen.errors",
]


def source_files() -> list[Path]:
    files = sorted(path for path in SOURCE.rglob("*") if path.suffix in {".py", ".pyx", ".pxd"})
    assert len(files) > 10
    return files


def module_of(path: Path) -> str:
    parts = ["morphogen", *path.relative_to(SOURCE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def parsed(path: Path) -> ast.AST:
    """The syntax tree of a file; of a Cython file, that of its imports."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        # Cython is not Python, but its import statements are, once cimport is import.
        statement = r"^[ \t]*(?:from[ \t]+\S+[ \t]+c?import[ \t]+(?:\([^)]*\)|.+)|c?import[ \t].+)$"
        found = re.findall(statement, text, flags=re.MULTILINE)
        text = "\n".join(re.sub(r"\bcimport\b", "import", line).strip() for line in found)
    return ast.parse(text)


def imported_modules(path: Path) -> set[str]:
    """The modules of the package that a file imports, wherever in the file it does.

    `import morphogen` for nothing but the version does not count.
    """
    names = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names if alias.name != "morphogen"}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            names |= {f"morphogen.{node.attr}"} if node.value.id == "morphogen" else set()
    names -= {"morphogen.__version__"}
    ours = {name for name in names if name.partition(".")[0] == "morphogen"}
    return {name if name in LAYERS else name.rpartition(".")[0] for name in ours}


def test_the_parser_of_imports_sees_them() -> None:
    assert {"morphogen.dpf", "morphogen.kernels"} <= imported_modules(SOURCE / "planner.pyx")
    assert "morphogen.instruction_set" in imported_modules(SOURCE / "dpf.pyx")
    assert "morphogen.engine.cpu" in imported_modules(SOURCE / "engine" / "__init__.py")


def test_every_module_has_its_layer() -> None:
    assert {module_of(path) for path in source_files()} - set(LAYERS) == set()


@pytest.mark.parametrize("path", source_files(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_down(path: Path) -> None:
    above = LAYERS[: LAYERS.index(module_of(path))]
    assert imported_modules(path) & set(above) == set()


@pytest.mark.parametrize("name", ["planner.pyx", "planner.pxd", "query.py", "pages.py", "dpf.pyx"])
def test_what_knows_no_device(name: str) -> None:
    assert "cuda" not in (SOURCE / name).read_text(encoding="utf-8").lower()


def test_the_driver_has_one_home() -> None:
    users = {path.stem for path in source_files() if "cydriver" in path.read_text(encoding="utf-8")}
    assert users == {"_driver"}


@pytest.mark.parametrize("path", source_files(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_modules_are_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) < 400
