"""Builds shared libraries of tests/emulator/native; it compiles changed files only, each once."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

NATIVE = Path(__file__).resolve().parent / "native"
OPTIONS = ("-std=c++17", "-O2", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra")


def cxx() -> str:
    """Return the C++ compiler, or skip the test."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        pytest.skip("needs a C++ compiler")
    return compiler


@pytest.fixture(scope="session")
def native_folder(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder for libraries, which pytest's cache keeps from one session to the next."""
    cache: pytest.Cache | None = getattr(pytestconfig, "cache", None)
    return cache.mkdir("native") if cache else tmp_path_factory.mktemp("native")


def build_library(
    name: str, patterns: tuple[str, ...], directory: Path, *, link: tuple[str, ...] = ()
) -> Path:
    """Build a shared library, unless it exists.

    Return a file of that name, in a folder below ``directory`` named by the content. Libraries may
    share sources, and each source is compiled once.
    """
    compiler = cxx()
    headers = b"".join(path.read_bytes() for path in sorted(NATIVE.glob("*.h")))

    def compiled(source: Path) -> Path:
        digest = _digest(compiler, *OPTIONS, headers, source.read_bytes())
        target = directory / f"{source.stem}-{digest}.o"
        return _made(target, [compiler, *OPTIONS, "-c", str(source)])

    sources = [path for pattern in patterns for path in sorted(NATIVE.glob(pattern))]
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        objects = [str(path) for path in threads.map(compiled, sources)]
    target = directory / _digest(compiler, *link, *objects) / name
    target.parent.mkdir(exist_ok=True)
    return _made(target, [compiler, "-shared", "-Wl,--no-undefined", *link, *objects])


def _digest(*parts: str | bytes) -> str:
    whole = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        whole.update(len(data).to_bytes(8, "little") + data)
    return whole.hexdigest()[:16]


def _made(target: Path, command: list[str]) -> Path:
    # Other sessions and worker processes may need the same file: one of them makes it.
    with Path(f"{target}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            # The file appears complete, since a build may be interrupted.
            with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
                output = Path(temporary) / target.name
                subprocess.run([*command, "-o", str(output)], check=True)
                output.replace(target)
    return target
