"""The package as a whole: what the import costs, the public names."""

from __future__ import annotations

import importlib
import importlib.resources
import re
import subprocess
import sys
from pathlib import Path

import pytest

import morphogen as mg
from morphogen.cli.get import SERVERS
from morphogen.engine.cuda.tuning import VARIABLE

SOURCE = Path(__file__).resolve().parents[2] / "src" / "morphogen"


def modules_loaded_by(statement: str) -> set[str]:
    """Return the modules that a statement loads into a fresh interpreter."""
    script = (
        f"import sys; before = set(sys.modules); {statement}; print(*set(sys.modules) - before)"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(result.stdout.split())


def foreign(modules: set[str]) -> set[str]:
    """Return the packages among modules that are neither Python's own nor morphogen."""
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
    "IntegrityError",
    "InvalidKeyError",
    "KeyDomainError",
    "ManifestError",
    "MorphogenError",
    "OverloadedError",
    "ServerError",
    "SourceError",
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
        mg.nothing  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(ImportError):
        exec("from morphogen import nothing")


def test_completion_offers_what_is_public() -> None:
    assert {"__version__", *mg.__all__} <= set(dir(mg))
    assert not {"Any", "TYPE_CHECKING", "annotations", "importlib"} & set(dir(mg))


@pytest.mark.parametrize("missing", ["certifi", "h11", "idna", "msgspec"])
def test_without_the_extra_the_clients_name_it_and_are_not_offered(missing: str) -> None:
    script = (
        f"import rlcompleter, sys; sys.modules[{missing!r}] = None\n"
        "import morphogen as mg\n"
        "completer = rlcompleter.Completer({'mg': mg})\n"
        "assert completer.complete('mg.open_e', 0).startswith('mg.open_engine')\n"
        "assert completer.complete('mg.Cli', 0) is None\n"
        "for name in ('Client', 'AsyncClient'):\n"
        "    assert name not in mg.__all__ and name not in dir(mg)\n"
        "    try: getattr(mg, name)\n"
        "    except ModuleNotFoundError as error: print(error)\n"
        "from morphogen import *\n"
        "assert open_engine is mg.open_engine\n"
        "assert 'Client' not in globals()\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (result.stdout.splitlines(), result.stderr) == (
        [
            f"morphogen.{name} needs {missing}: pip install 'morphogen[client]'"
            for name in ("Client", "AsyncClient")
        ],
        "",
    )


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


def test_the_package_reads_the_environment_variables_that_the_reference_names() -> None:
    root = SOURCE.parent.parent
    reference = (root / "docs/reference/outputs.md").read_text()
    assert re.findall(r"^\| `(MORPHOGEN_\w+)` \|", reference, re.M) == [SERVERS, VARIABLE]
    suffixes = {".py", ".pyx", ".h", ".cpp"}
    files = [*SOURCE.rglob("*"), *(root / "kernels").rglob("*")]
    sources = [path for path in files if path.suffix in suffixes]
    assert len(sources) > 50
    reads = re.compile(r"\benviron\b|\bgetenvb?\b|\bsecure_getenv\b")
    readers = [path for path in sources if reads.search(path.read_text(encoding="utf-8"))]
    # Ray takes its settings from nowhere else.
    rays = [SOURCE / "cluster" / "security.py", SOURCE / "cluster" / "tls.py"]
    engine = SOURCE / "engine"
    own = [engine / "cores.py", engine / "cuda" / "tuning.py"]
    assert sorted(readers) == [SOURCE / "cli" / "get.py", *rays, *own]


def test_the_package_says_that_it_is_typed() -> None:
    assert importlib.resources.files("morphogen").joinpath("py.typed").is_file()


def test_the_instruction_sets() -> None:
    compiled, supported = mg.instruction_set.compiled(), mg.instruction_set.supported()
    assert compiled[-1] == supported[-1] == "baseline"
    assert [name for name in compiled if name in supported] == list(supported)
