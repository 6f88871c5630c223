"""The shards of a server that runs, as its metrics tell of them."""

from __future__ import annotations

import urllib.request
from collections import defaultdict
from dataclasses import dataclass
from http.client import HTTPException

from morphogen.checks import needs_extra

_SECONDS = 10.0  # that a server may take to show its metrics
_MOST_BYTES = 16 << 20
_PREFIX = "morphogen_shard_"
_COUNTS = (
    "passes",
    "retries",
    "hedges",
    "hedges_won",
    "gaps",
    "gap_seconds",
    "longest_gap_seconds",
    "mismatches",
    "replaced",
)


@dataclass(frozen=True, slots=True)
class ServedShards:
    """The shards of one table of a server.

    Attributes
    ----------
    table : str
        Its name; empty if the server has one table alone.
    replicas, usable : tuple of int
        For each shard its replicas, and those of them that answer.
    counts : dict of str to float
        By the names of the metrics: passes, retries, hedges, gaps and so on, since the server
        started.
    """

    table: str
    replicas: tuple[int, ...]
    usable: tuple[int, ...]
    counts: dict[str, float]

    @property
    def ok(self) -> bool:
        """Whether every shard has a replica that answers."""
        return all(self.usable)


def read_shards(url: str) -> tuple[ServedShards, ...]:
    """Ask a server for its metrics, and read what they tell of shards.

    Parameters
    ----------
    url : str
        Of its metrics: "http://127.0.0.1:9000/metrics".

    Returns
    -------
    tuple of ServedShards
        One for each table that has shards.

    Raises
    ------
    ModuleNotFoundError
        If the extra ``server`` is not installed.
    OSError
        If the server cannot be asked.
    ValueError
        If that is no such address, or what it shows are no metrics of a server.
    """
    if not url.startswith(("http://", "https://")):
        raise ValueError(
            f"--metrics must be a URL such as http://127.0.0.1:9000/metrics, not {url!r}"
        )
    # Who asks for an address means that one, and no proxy of the environment's.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=_SECONDS) as response:
            text = response.read(_MOST_BYTES).decode(errors="replace")
    except (OSError, HTTPException) as error:
        raise ConnectionError(f"{url} cannot be asked: {error}") from None
    return parse_shards(text, url)


def parse_shards(text: str, url: str) -> tuple[ServedShards, ...]:
    """Read what metrics tell of shards.

    Parameters
    ----------
    text : str
        In Prometheus's text format.
    url : str
        Where they are from, for the message.

    Returns
    -------
    tuple of ServedShards
        In the order of the tables' names.

    Raises
    ------
    ModuleNotFoundError
        If the extra ``server`` is not installed.
    ValueError
        If they are no metrics of a server of this package.
    """
    with needs_extra("server", "morphogen doctor --metrics"):
        from prometheus_client.parser import text_string_to_metric_families
    counts: dict[str, dict[str, float]] = defaultdict(dict)
    numbers: dict[str, dict[tuple[str, int], int]] = defaultdict(dict)
    try:
        samples = [one for family in text_string_to_metric_families(text) for one in family.samples]
        if not any(one.name == "morphogen_server_info" for one in samples):
            raise ValueError("there is no morphogen_server_info")
        for one in samples:
            name = one.name.removeprefix(_PREFIX).removesuffix("_total")
            table = one.labels.get("table", "")
            if one.name == name:
                continue
            if "shard" in one.labels:
                numbers[table][name, int(one.labels["shard"])] = int(one.value)
            elif name in _COUNTS:
                counts[table][name] = one.value
        for table in numbers:
            if missing := sorted(set(_COUNTS) - counts[table].keys()):
                raise ValueError(f"there is no {_PREFIX}{missing[0]}")
    except ValueError as error:
        raise ValueError(
            f"{url} must show the metrics of a server, and does not: {error}"
        ) from None
    return tuple(
        ServedShards(table, _row(found, "replicas"), _row(found, "replicas_usable"), counts[table])
        for table, found in sorted(numbers.items())
    )


def _row(found: dict[tuple[str, int], int], name: str) -> tuple[int, ...]:
    return tuple(number for (kind, _), number in sorted(found.items()) if kind == name)
