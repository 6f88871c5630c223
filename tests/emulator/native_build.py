"""Compiles tests/emulator/native into shared libraries: each changed file, and none twice."""

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
    """The C++ compiler."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        pytest.skip("needs a C++ compiler")
    return compiler


@pytest.fixture(scope="session")
def native_folder(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where libraries are kept, if pytest has a cache from one session to the next."""
    cache: pytest.Cache | None = getattr(pytestconfig, "cache", None)
    return cache.mkdir("native") if cache else tmp_path_factory.mktemp("native")


def build_library(
    name: str, patterns: tuple[str, ...], directory: Path, *, link: tuple[str, ...] = ()
) -> Path:
    """Build a shared library, unless it is there.

    Returns a file of that name, in a folder below ``directory`` whose name tells the content.
    Libraries may have sources in common: each is compiled once.
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
    # Sessions, and the processes of one, run side by side: the second waits for the first.
    with Path(f"{target}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            # Complete, or not there: a build may be interrupted.
            with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
                output = Path(temporary) / target.name
                subprocess.run([*command, "-o", str(output)], check=True)
                output.replace(target)
    return target
