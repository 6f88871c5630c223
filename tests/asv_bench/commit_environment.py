"""An environment of asv that needs no network: this interpreter, and a package as checked out."""

from __future__ import annotations

import sysconfig
import venv
from pathlib import Path
from typing import Any

from asv.environment import Environment  # type: ignore[import-untyped]


class CommitEnvironment(Environment):  # type: ignore[misc]
    """Finds the package where asv checks the commit out, all else where this interpreter does."""

    tool_name = "commit"

    def __init__(self, conf: Any, python: str, requirements: Any, variables: Any) -> None:
        self._requirements = requirements
        super().__init__(conf, python, requirements, variables)

    def _setup(self) -> None:
        venv.create(self._path, symlinks=True)
        (packages,) = Path(self._path).glob("lib/python*/site-packages")
        places = (self._build_root, sysconfig.get_path("purelib"))
        (packages / "places.pth").write_text("\n".join(places))

    def install_project(self, conf: Any, repo: Any, commit_hash: str) -> None:
        self.checkout_project(repo, commit_hash)

    def run(self, args: list[str], **kwargs: Any) -> Any:
        return self.run_executable("python", args, **kwargs)
