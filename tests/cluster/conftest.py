"""Fixtures of the tests of clusters."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from connections import TLS_NAMES, certificates


@pytest.fixture
def closing() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture(params=["plain", "tls"])
def tls(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """What Ray takes from the environment, of this process, too."""
    for name in ("RAY_USE_TLS", *TLS_NAMES):
        monkeypatch.delenv(name, raising=False)
    if request.param == "plain":
        return {}
    environment = certificates(tmp_path)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return environment
