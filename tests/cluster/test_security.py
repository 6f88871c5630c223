"""Clusters that other hosts reach: refused without a token and TLS, before Ray is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from morphogen.cluster.ray_cluster import RayCluster, host_of
from morphogen.cluster.security import check_exposed, environment_of_ray
from morphogen.errors import MorphogenError

SET_BY_US = (
    "RAY_AUTH_TOKEN",
    "RAY_DEDUP_LOGS_SKIP_REGEX",
    "RAY_ENABLE_AUTO_CONNECT",
    "RAY_USAGE_STATS_ENABLED",
    "RAY_worker_niceness",
)


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """All that a cluster off the loopback needs."""
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "nobody")
    for name in ("cert", "key", "ca"):
        (tmp_path / name).write_text("PEM")
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "00" * 32,
        "RAY_USE_TLS": "1",
        "RAY_TLS_SERVER_CERT": str(tmp_path / "cert"),
        "RAY_TLS_SERVER_KEY": str(tmp_path / "key"),
        "RAY_TLS_CA_CERT": str(tmp_path / "ca"),
    }


def test_a_token_and_tls_let_other_hosts_in(environment: dict[str, str]) -> None:
    check_exposed("198.51.100.7", environment)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_the_loopback_needs_neither(host: str) -> None:
    check_exposed(host, {})


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"RAY_AUTH_TOKEN": ""}, "RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH must give the token"),
        ({"RAY_AUTH_MODE": "disabled"}, "RAY_AUTH_MODE must be token, not disabled"),
        ({"RAY_USE_TLS": "0"}, "RAY_USE_TLS must be 1"),
        ({"RAY_TLS_SERVER_KEY": ""}, "RAY_TLS_SERVER_KEY must name a file"),
        ({"RAY_TLS_CA_CERT": "/none/ca"}, "RAY_TLS_CA_CERT .* can be read, not /none/ca"),
    ],
    ids=["no token", "token off", "no TLS", "no key", "no such file"],
)
def test_without_one_of_them_the_error_says_what_is_missing(
    environment: dict[str, str], change: dict[str, str], fault: str
) -> None:
    with pytest.raises(MorphogenError, match=f"198.51.100.7.*both its token and TLS.*{fault}"):
        check_exposed("198.51.100.7", environment | change)


def test_without_all_of_them_the_error_names_both(environment: dict[str, str]) -> None:
    with pytest.raises(MorphogenError, match=r"RAY_AUTH_TOKEN.*RAY_USE_TLS"):
        check_exposed("198.51.100.7", {})


def test_a_token_in_a_file_counts_unless_it_is_empty(
    environment: dict[str, str], tmp_path: Path
) -> None:
    del environment["RAY_AUTH_TOKEN"]
    environment["RAY_AUTH_TOKEN_PATH"] = str(tmp_path / "token")
    (tmp_path / "token").write_text("\n")
    with pytest.raises(MorphogenError, match="RAY_AUTH_TOKEN_PATH must give the token"):
        check_exposed("198.51.100.7", environment)
    (tmp_path / "token").write_text("00ff")
    check_exposed("198.51.100.7", environment)


def test_a_cluster_off_the_loopback_is_refused_without_ray() -> None:
    program = """if True:
        import sys
        sys.modules["ray"] = None
        from morphogen.cluster import RayCluster
        RayCluster("198.51.100.7:6379")
    """
    environment = {name: value for name, value in os.environ.items() if "RAY_" not in name}
    ended = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert "whoever reaches Ray at 198.51.100.7 runs code there" in ended.stderr


def test_the_room_is_imported_without_ray() -> None:
    program = "import sys, morphogen.cluster; assert 'ray' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_without_ray_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SET_BY_US:
        monkeypatch.setenv(name, "0")  # or it would stay
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'morphogen\[ray\]'"):
        RayCluster()


@pytest.mark.parametrize(
    ("name", "ours", "other"),
    [
        ("RAY_USAGE_STATS_ENABLED", "0", "1"),  # whether Ray tells its makers of a cluster
        ("RAY_worker_niceness", "0", "15"),
        ("RAY_DEDUP_LOGS_SKIP_REGEX", "^A worker died or was killed ", "^anything"),
    ],
)
def test_what_ray_does_of_itself_is_ours_to_say_unless_the_operator_does(
    monkeypatch: pytest.MonkeyPatch, name: str, ours: str, other: str
) -> None:
    for one in SET_BY_US:
        monkeypatch.setenv(one, "00" * 32)
    monkeypatch.delenv(name)
    with environment_of_ray(None):
        assert os.environ[name] == ours
    monkeypatch.setenv(name, other)
    with environment_of_ray(None):
        assert os.environ[name] == other


def test_a_user_without_a_home_has_no_token(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", refuse)
    with pytest.raises(MorphogenError, match="must give the token"):
        check_exposed("198.51.100.7", environment | {"RAY_AUTH_TOKEN": ""})


def test_a_cluster_without_a_token_is_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "00" * 32)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(MorphogenError, match="RAY_AUTH_MODE must be token, not disabled"):
        RayCluster()


@pytest.mark.parametrize(
    "address", ["", "auto", "ray://host:1", "host", ":6379", "host:", "host:ray", "[::1]:٣"]
)
def test_other_addresses_are_refused(address: str) -> None:
    with pytest.raises(ValueError, match="address must be 'local' or 'HOST:PORT', not "):
        RayCluster(address)
    with pytest.raises(TypeError, match="address must be a str, not bytes"):
        RayCluster(b"local")  # type: ignore[arg-type]


def test_the_host_of_an_address_has_no_brackets() -> None:
    assert host_of("[::1]:6379") == "::1"
    assert host_of("10.0.0.1:6379") == "10.0.0.1"
