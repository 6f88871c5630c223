"""What the shards of a table's engines did, over all of its epochs, for metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from morphogen.engine.base import Engine
from morphogen.engine.sharded import ShardedEngine
from morphogen.engine.shards.statistics import ShardStatistics

_COUNTERS = {
    "passes": "Passes over all shards.",
    "parts": "Parts of answers that shards gave.",
    "retries": "Passes that went to a shard again, after a replica had failed.",
    "hedges": "Passes that also went to another replica, since one took long.",
    "hedges_won": "Those of them whose part came first.",
    "doubles": "Parts that nobody needed any more. None is in an answer.",
    "failures": "Errors that replicas told.",
    "mismatches": "Parts and errors of another version or range. None is in an answer.",
    "gaps": "Times that a shard had no replica to ask.",
    "gap_seconds": "Seconds that shards had none.",
}


def shards_of(engine: Engine) -> ShardStatistics | None:
    """What the shards of an engine did so far.

    Parameters
    ----------
    engine : Engine

    Returns
    -------
    ShardStatistics or None
        None if it has none.
    """
    return engine.statistics() if isinstance(engine, ShardedEngine) else None


def together(before: ShardStatistics | None, now: ShardStatistics | None) -> ShardStatistics | None:
    """The work of the shards of two engines, one after the other.

    Parameters
    ----------
    before, now : ShardStatistics or None

    Returns
    -------
    ShardStatistics or None
        The sums of both, with the replicas of now.
    """
    if before is None or now is None:
        return before if now is None else now
    sums = {name: getattr(before, name) + getattr(now, name) for name in _COUNTERS}
    return replace(now, **sums, longest_gap=max(before.longest_gap, now.longest_gap))


def families(
    tables: Mapping[str, ShardStatistics], replaced: Mapping[str, int], *, labelled: bool
) -> Iterator[Metric]:
    """The metrics of tables that have shards.

    Parameters
    ----------
    tables : mapping of str to ShardStatistics
        By the table's name.
    replaced : mapping of str to int
        Processes that were replaced, by the table's name.
    labelled : bool
        Whether the tables' names are labels.

    Yields
    ------
    prometheus_client.Metric
        None if there are no such tables.
    """
    if not tables:
        return
    label = ("table",) if labelled else ()
    counters = {
        name: CounterMetricFamily(f"morphogen_shard_{name}", text, labels=label)
        for name, text in _COUNTERS.items()
    }
    replacements = CounterMetricFamily(
        "morphogen_shard_replaced", "Processes of shards that were replaced.", labels=label
    )
    longest = GaugeMetricFamily(
        "morphogen_shard_longest_gap_seconds",
        "Seconds of the longest time that a shard had no replica to ask.",
        labels=label,
    )
    replicas = GaugeMetricFamily(
        "morphogen_shard_replicas", "Replicas of each shard.", labels=(*label, "shard")
    )
    usable = GaugeMetricFamily(
        "morphogen_shard_replicas_usable",
        "Replicas of each shard that can be asked.",
        labels=(*label, "shard"),
    )
    for table, now in tables.items():
        of = (table,) if labelled else ()
        for name, family in counters.items():
            family.add_metric(of, getattr(now, name))
        replacements.add_metric(of, replaced.get(table, 0))
        longest.add_metric(of, now.longest_gap)
        for gauge, numbers in ((replicas, now.replicas), (usable, now.usable)):
            for shard, number in enumerate(numbers):
                gauge.add_metric((*of, str(shard)), number)
    yield from (*counters.values(), replacements, longest, replicas, usable)
