"""A small repository with this project's asv settings, with its own paths."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
SUITE = HERE.parents[1] / "asv_bench"


class SmallRepository:
    def __init__(self, folder: Path, **settings: Any) -> None:
        util = pytest.importorskip("asv.util", reason="needs asv: pip install '.[bench]'")
        ours = util.load_json(str(SUITE / "asv.conf.json"), js_comments=True)
        ours |= {"repo": str(folder), "benchmark_dir": str(SUITE / "benchmarks"), **settings}
        self.folder, self.html = folder, folder / ours["html_dir"]
        self.config = folder / "asv.conf.json"
        self.config.write_text(json.dumps(ours))
        self.commits = 0
        self.run("git", "init", "--quiet", "--initial-branch=main")

    def commit(self) -> None:
        """Commit the Python files, a day after the last commit: asv orders them by date."""
        self.commits += 1
        self.run("git", "add", "--all", "--", "*.py")
        user = ("-c", "user.name=nobody", "-c", "user.email=nobody@localhost")
        self.run("git", *user, "commit", "--quiet", "--allow-empty", "--message=one")

    def asv(self, *arguments: str) -> None:
        """Run asv, which must succeed."""
        self.run(sys.executable, "-m", "asv", *arguments).check_returncode()

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {
            "HOME": str(self.folder),  # asv keeps facts of the machine there
            "PYTHONPATH": str(HERE),
            "PYTHONDONTWRITEBYTECODE": "1",  # Python mixes up versions within one second
            "MORPHOGEN_BENCH_BYTES": str(1 << 20),
            "GIT_COMMITTER_DATE": f"2026-01-{self.commits:02} 12:00 +0000",
        }
        result = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )
        print(result.stdout, result.stderr)
        return result
