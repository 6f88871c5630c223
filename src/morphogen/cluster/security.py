"""What a cluster must have before it may be reached from other hosts.

Whoever reaches a port of Ray runs code as the user that started it. So a cluster listens on the
loopback only, or has Ray's token, which tells who may, and TLS, which keeps the token and the keys
of clients from those who listen.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from morphogen.checks import find_home, is_loopback
from morphogen.errors import MorphogenError

MODE = "RAY_AUTH_MODE"
TOKEN = "RAY_AUTH_TOKEN"
TOKEN_PATH = "RAY_AUTH_TOKEN_PATH"
TLS = "RAY_USE_TLS"
TLS_FILES = ("RAY_TLS_SERVER_CERT", "RAY_TLS_SERVER_KEY", "RAY_TLS_CA_CERT")
AUTO_CONNECT = "RAY_ENABLE_AUTO_CONNECT"
USAGE = "RAY_USAGE_STATS_ENABLED"
UNPRINTED = "RAY_DEDUP_LOGS_SKIP_REGEX"
NICENESS = "RAY_worker_niceness"
# Where it is off, Ray's processes listen on the loopback, and else on every interface. It is named
# for the systems where that is the default.
OTHER_HOSTS = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"


def has_token(environment: Mapping[str, str]) -> bool:
    """Whether Ray finds a token: in a variable, in the file that one names, or in the home.

    Parameters
    ----------
    environment : mapping
        As `os.environ`.

    Returns
    -------
    bool
    """
    if environment.get(TOKEN):
        return True
    home = find_home()
    path = environment.get(TOKEN_PATH) or (home and home / ".ray" / "auth_token")
    try:
        return path is not None and bool(Path(path).read_text().strip())
    except (OSError, ValueError):
        return False


def faults_of_token(environment: Mapping[str, str]) -> list[str]:
    """What is missing for Ray's token to be asked for.

    Parameters
    ----------
    environment : mapping
        As `os.environ`.

    Returns
    -------
    list of str
        Empty if nothing is.
    """
    faults = []
    mode = environment.get(MODE, "token")
    if mode.lower() != "token":
        faults.append(f"{MODE} must be token, not {mode}")
    if not has_token(environment):
        faults.append(f"{TOKEN} or {TOKEN_PATH} must give the token")
    return faults


def uses_tls(environment: Mapping[str, str]) -> bool:
    """Whether Ray uses TLS.

    Parameters
    ----------
    environment : mapping
        As `os.environ`.

    Returns
    -------
    bool
    """
    return environment.get(TLS, "0").lower() in ("1", "true")


def faults_of_tls(environment: Mapping[str, str]) -> list[str]:
    """What is missing for Ray to use TLS.

    Parameters
    ----------
    environment : mapping
        As `os.environ`.

    Returns
    -------
    list of str
        Empty if nothing is.
    """
    faults = []
    if not uses_tls(environment):
        faults.append(f"{TLS} must be 1")
    for name in TLS_FILES:
        path = environment.get(name)
        if not path:
            faults.append(f"{name} must name a file")
        elif not os.access(path, os.R_OK):
            faults.append(f"{name} must name a file that can be read, not {path}")
    return faults


def check_exposed(host: str, environment: Mapping[str, str] = os.environ) -> None:
    """Refuse a cluster that other hosts reach, unless it has both a token and TLS.

    Parameters
    ----------
    host : str
        A host of the cluster.
    environment : mapping, optional
        By default this process's own, from which Ray takes its settings.

    Raises
    ------
    MorphogenError
        If the host is not this machine's loopback, and the token or TLS is missing.
    """
    if is_loopback(host):
        return
    faults = faults_of_token(environment) + faults_of_tls(environment)
    if faults:
        raise MorphogenError(
            f"whoever reaches Ray at {host} runs code there, so off the loopback it needs both its "
            f"token and TLS: {'; '.join(faults)}"
        )


def check_token(environment: Mapping[str, str]) -> None:
    """Refuse a cluster without a token: other users of a machine reach its loopback, too.

    Parameters
    ----------
    environment : mapping
        As `os.environ`.

    Raises
    ------
    MorphogenError
        If there is none, or it is switched off.
    """
    faults = faults_of_token(environment)
    if faults:
        raise MorphogenError(f"a cluster must ask for Ray's token: {'; '.join(faults)}")


@contextmanager
def environment_of_ray(host: str | None) -> Iterator[None]:
    """Set what Ray takes from the environment when it is imported, and when it starts.

    Parameters
    ----------
    host : str or None
        Of the cluster to join; None to start one on this host.

    Yields
    ------
    None

    Raises
    ------
    MorphogenError
        If there is no token to join with, or the token is switched off.
    """
    if host is None and not has_token(os.environ):
        # It stays, since Ray reads it once in a process. And it is in no file.
        os.environ[TOKEN] = secrets.token_hex(32)
    check_token(os.environ)
    if host is not None:
        os.environ.setdefault(MODE, "token")
    os.environ[AUTO_CONNECT] = "0"  # a call must not start a cluster
    os.environ.setdefault(USAGE, "0")  # else Ray tells its makers of each cluster
    os.environ.setdefault(NICENESS, "0")  # else shards give way to all other programs of a host
    # Ray prints this to the standard output; the log has it from `morphogen.cluster.replica`.
    os.environ.setdefault(UNPRINTED, "^A worker died or was killed ")
    before = os.environ.get(OTHER_HOSTS)
    if host is None or is_loopback(host):
        os.environ[OTHER_HOSTS] = "0"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(OTHER_HOSTS, None)
        else:
            os.environ[OTHER_HOSTS] = before
