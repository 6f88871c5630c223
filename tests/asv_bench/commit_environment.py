"""An asv environment that needs no network: this interpreter with the package of a commit."""

from __future__ import annotations

import sysconfig
import venv
from pathlib import Path
from typing import Any, ClassVar

from asv.environment import Environment  # type: ignore[import-untyped]


class CommitEnvironment(Environment):  # type: ignore[misc]
    """Finds the package in asv's checkout of the commit, and all else in this interpreter."""

    tool_name = "commit"
    _requirements: ClassVar[dict[str, str]] = {}  # asv reads it before it sets it

    def _setup(self) -> None:
        venv.create(self._path, symlinks=True)
        (packages,) = Path(self._path).glob("lib/python*/site-packages")
        places = (self._build_root, sysconfig.get_path("purelib"))
        (packages / "places.pth").write_text("\n".join(places))

    def install_project(self, conf: Any, repo: Any, commit_hash: str) -> None:
        self.checkout_project(repo, commit_hash)

    def run(self, args: list[str], **kwargs: Any) -> Any:
        return self.run_executable("python", args, **kwargs)
