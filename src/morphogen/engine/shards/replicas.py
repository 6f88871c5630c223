"""The replicas of each shard: what each has under way, and which one is asked next."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from morphogen.engine.locks import Condition
from morphogen.engine.shards.attempts import Attempt, Chunk, Replica
from morphogen.engine.shards.statistics import ShardStatistics, Tally
from morphogen.engine.shards.transport import ShardTransport

# Seconds after which a replica may be asked again that still owes a part which nobody waits for.
FORGET_SECONDS = 10.0


class Replicas:
    """All replicas of all shards, and counts of what they did.

    Parameters
    ----------
    shards : sequence of sequence of ShardTransport
        Of each shard, in order: its replicas.
    hedge : float or None
        Seconds after which a pass takes long.
    now : callable
        The time in seconds.
    tally : Tally
        Counts what they do.

    Attributes
    ----------
    places : tuple of tuple of Replica
        Of each shard, in order: its replicas. Another tuple from when one is replaced.
    tally : Tally
        As given.
    """

    def __init__(
        self,
        shards: Sequence[Sequence[ShardTransport]],
        hedge: float | None,
        now: Callable[[], float],
        tally: Tally,
    ) -> None:
        self.places: tuple[tuple[Replica, ...], ...] = tuple(
            tuple(map(Replica, replicas)) for replicas in shards
        )
        self._hedge = hedge
        self._now = now
        self._lock = Condition()
        self.tally = tally

    @property
    def shards(self) -> tuple[tuple[ShardTransport, ...], ...]:
        """Of each shard, in order: the ways to its replicas."""
        return tuple(tuple(replica.transport for replica in replicas) for replicas in self.places)

    def replace(
        self, shard: int, at: int, transport: ShardTransport
    ) -> tuple[ShardTransport, list[Attempt]]:
        """Put another replica in the place of one, which is asked no more.

        Parameters
        ----------
        shard, at : int
            Which one.
        transport : ShardTransport
            The way to the new one.

        Returns
        -------
        before : ShardTransport
            The way to the one before.
        attempts : list of Attempt
            What it has under way.
        """
        with self._lock:
            replicas = list(self.places[shard])
            before, replicas[at] = replicas[at], Replica(transport)
            places = list(self.places)
            places[shard] = tuple(replicas)
            self.places = tuple(places)
            before.replaced = True
            return before.transport, list(before.outstanding)

    def claim(
        self,
        chunk: Chunk,
        shard: int,
        avoid: Collection[Replica],
        failures: Mapping[Replica, int],
        kind: str,
    ) -> Attempt | None:
        """Choose the replica that a pass goes to: the usable one with the fewest outstanding.

        One that takes long is asked after others, and one that failed at this pass after those.

        Parameters
        ----------
        chunk : Chunk
            The pass.
        shard : int
            The shard.
        avoid : collection of Replica
            Those that may not be chosen.
        failures : mapping of Replica to int
            How often each failed at this pass.
        kind : str
            "first", "retries" or "hedges". A hedge goes to none that takes long or has failed.

        Returns
        -------
        Attempt or None
            None if there is no such replica.
        """
        # Outside of the lock: it is the transport's code, which may take locks of its own.
        usable = [
            replica
            for replica in self.places[shard]
            if replica not in avoid and replica.transport.usable
        ]
        now = self._now()
        with self._lock:
            chosen = self._choose(usable, failures, kind, now)
            if chosen is None:
                if kind != "hedges":
                    self.tally.gap_begins(shard, now)
                return None
            attempt = Attempt(chunk, shard, chosen, kind == "hedges")
            if not chosen.outstanding:
                attempt.begun = now
            chosen.outstanding.append(attempt)
        if kind != "first":
            self.tally.count(kind)
        return attempt

    def late_at(self, attempt: Attempt) -> float:
        """The time from which the replica of an attempt takes long.

        Its clock runs for the first of its outstanding passes: it works on that one, and others
        behind it have not begun. Once that one takes long, so do they.

        Parameters
        ----------
        attempt : Attempt
            Still outstanding.

        Returns
        -------
        float
        """
        with self._lock:
            return self._late_at(attempt.replica)

    def settle(self, attempt: Attempt) -> None:
        """Note that an attempt was answered: its replica begins the next.

        Parameters
        ----------
        attempt : Attempt
            It may be outstanding no more.
        """
        now = self._now()
        with self._lock:
            outstanding = attempt.replica.outstanding
            if outstanding and outstanding[0] is attempt:
                outstanding.popleft()
            elif attempt in outstanding:
                # What it was asked before and nobody waits for was lost: it keeps the order.
                earlier = list(outstanding)[: outstanding.index(attempt)]
                for one in (attempt, *(one for one in earlier if one.chunk.ended)):
                    outstanding.remove(one)
            if outstanding and outstanding[0].begun is None:
                outstanding[0].begun = now

    def statistics(self) -> ShardStatistics:
        """The counts so far.

        Returns
        -------
        ShardStatistics
        """
        shards = self.shards
        usable = [sum(replica.usable for replica in replicas) for replicas in shards]
        return self.tally.statistics(self._now(), list(map(len, shards)), usable)

    def _choose(
        self, usable: Collection[Replica], failures: Mapping[Replica, int], kind: str, now: float
    ) -> Replica | None:
        # In a function of its own, as all loops under a lock: see `morphogen.engine.locks`.
        chosen = None
        lowest: tuple[int, bool, int] | None = None
        for replica in usable:
            if replica.replaced:  # since it was found usable
                continue
            self._forget(replica, now)
            late = self._hedge is not None and now >= self._late_at(replica)
            rank = (failures.get(replica, 0), late, len(replica.outstanding))
            if kind == "hedges" and (rank[0] or late):
                continue
            if lowest is None or rank < lowest:
                chosen, lowest = replica, rank
        return chosen

    def _late_at(self, replica: Replica) -> float:
        if self._hedge is None or not replica.outstanding:
            return float("inf")
        begun = replica.outstanding[0].begun
        assert begun is not None
        return begun + self._hedge

    def _forget(self, replica: Replica, now: float) -> None:
        """Count no more what it was asked long ago, and nobody waits for."""
        outstanding = replica.outstanding
        while outstanding:
            first = outstanding[0]
            assert first.begun is not None
            if not first.chunk.ended or now < first.begun + FORGET_SECONDS:
                return
            outstanding.popleft()
            if outstanding and outstanding[0].begun is None:
                outstanding[0].begun = now
