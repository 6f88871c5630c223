"""A small repository with a package, a suite and a history, for the gate's own tests.

The package answers by hashing bytes; `PASSES` says how often it does, which a benchmark sees as a
ratio to one hash, and `launch` is called once for each chunk, which another counts. The names are
those that the gate's table has rules for.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

PACKAGE = '''
"""Answers by hashing."""

import hashlib

PASSES = {passes}
launches = 0


def launch():
    global launches
    launches += {launches}


def answer(data):
    launch()
    for _ in range(PASSES):
        hashlib.sha256(data)
{more}
'''

SCAN = """
import hashlib, time
import tiny

DATA = bytes(4_000_000)


def least_seconds(call):
    # Of the processor, and the least: other programs hardly show.
    times = []
    for _ in range(15):
        start = time.thread_time()
        call(DATA)
        times.append(time.thread_time() - start)
    return min(times)


class Answer:
    params = (["1 x 1"], [1])

    def track_ratio_to_read(self, shape, threads):
        return least_seconds(tiny.answer) / least_seconds(hashlib.sha256)

    def track_ratio_without_a_rule(self, shape, threads):
        return least_seconds(tiny.answer)
"""

HOST = """
import tiny


class Calls:
    params = ([1, 2],)

    def track_launches_a_call(self, queries):
        before = tiny.launches
        for _ in range(queries):
            tiny.answer(b"")
        return tiny.launches - before

    def track_blocks_kept(self, queries):
        return tiny.blocks_kept(queries) if hasattr(tiny, "blocks_kept") else float("nan")


def time_answer():
    tiny.answer(b"")
"""

# A package of one file needs no compiler, and asv no wheel, to be installed.
CONFIG = {
    "version": 1,
    "project": "tiny",
    "repo": ".",
    "branches": ["main"],
    "environment_type": "virtualenv",
    "build_command": [
        "python -c \"import shutil; shutil.copytree('{build_dir}/tiny', '{build_cache_dir}/tiny')\""
    ],
    "install_command": [
        'in-dir={build_cache_dir} python -c "import shutil, sysconfig;'
        " shutil.copytree('tiny', sysconfig.get_path('purelib') + '/tiny')\""
    ],
    "uninstall_command": [
        'python -c "import shutil, sysconfig;'
        " shutil.rmtree(sysconfig.get_path('purelib') + '/tiny', ignore_errors=True)\""
    ],
    "benchmark_dir": "benchmarks",
}


class TinyRepository:
    """A repository below a folder, whose commits a test makes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.git("init", "--quiet", "--initial-branch=main")
        (folder / "tiny").mkdir()
        (folder / "benchmarks").mkdir()
        (folder / "benchmarks" / "__init__.py").touch()
        self.write("asv.conf.json", json.dumps(CONFIG))
        self.write("benchmarks/scan.py", SCAN)
        self.write("benchmarks/host.py", HOST)

    def git(self, *arguments: str) -> str:
        identity = ("-c", "user.name=nobody", "-c", "user.email=nobody@localhost")
        command = ["git", "-C", str(self.folder), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def write(self, name: str, content: str) -> None:
        (self.folder / name).write_text(content, encoding="utf-8")

    def commit(
        self, message: str, *, passes: int = 2, launches: int = 1, more: str = "", **files: str
    ) -> str:
        """Commit the package so, and other files of the suite."""
        package = PACKAGE.format(passes=passes, launches=launches, more=more)
        self.write("tiny/__init__.py", package)
        for name, content in files.items():
            self.write(f"benchmarks/{name}.py", content)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)
        return self.git("rev-parse", "HEAD")
