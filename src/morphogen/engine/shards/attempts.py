"""What is under way: passes, and the attempts of replicas at them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from morphogen.engine.shards.transport import Part, Pass, ShardTransport
from morphogen.sharding import Coverage

NEVER_BEFORE = float("-inf")  # a time from which on all times are


@dataclass(slots=True, eq=False)
class Replica:
    """One replica of one shard.

    Attributes
    ----------
    transport : ShardTransport
        The way to it.
    outstanding : deque of Attempt
        In the order in which it was asked. It works on the first.
    replaced : bool
        Whether another is in its place.
    """

    transport: ShardTransport
    outstanding: deque[Attempt] = field(default_factory=deque)
    replaced: bool = False


@dataclass(slots=True, eq=False)
class Attempt:
    """A pass that one replica of one shard was asked for.

    Attributes
    ----------
    chunk : Chunk
        The pass.
    shard : int
        The shard's number.
    replica : Replica
        The replica.
    is_hedge : bool
        Whether another replica has the pass, too.
    begun : float or None
        When it became the first of the replica's outstanding ones: when the replica began it.
    told : bool
        Whether its outcome is known.
    """

    chunk: Chunk
    shard: int
    replica: Replica
    is_hedge: bool
    begun: float | None = None
    told: bool = False

    def tell(self, outcome: Part | Exception) -> None:
        """Take the outcome.

        Parameters
        ----------
        outcome : Part or Exception
            The replica's part, or what went wrong.
        """
        self.chunk.tell(self, outcome)


@dataclass(slots=True, eq=False)
class Slot:
    """What one shard was asked for one pass.

    Attributes
    ----------
    attempts : list of Attempt
        Those that have told nothing yet.
    failures : dict of Replica to int
        How often each failed.
    error : Exception or None
        The last of these failures.
    look_at : float
        When to look for a replica again.
    pauses : int
        How often there was none to ask.
    rested : bool
        Whether that was so since the last failure.
    """

    attempts: list[Attempt] = field(default_factory=list)
    failures: dict[Replica, int] = field(default_factory=dict)
    error: Exception | None = None
    look_at: float = NEVER_BEFORE
    pauses: int = 0
    rested: bool = False


@dataclass(slots=True, eq=False)
class Chunk:
    """One pass under way.

    Attributes
    ----------
    job : Pass
        The pass.
    out : numpy.ndarray
        The array of its sum.
    deadline : float
        When it fails.
    tell : callable
        Takes the outcome of an attempt.
    coverage : Coverage
        Its parts.
    slots : list of Slot
        Of all shards.
    ended : bool
        Whether nobody waits for its parts any more.
    broken : Exception or None
        Why its parts cannot be added up, such as a lack of memory.
    """

    job: Pass
    out: npt.NDArray[np.uint8]
    deadline: float
    tell: Callable[[Attempt, Part | Exception], None]
    coverage: Coverage
    slots: list[Slot]
    ended: bool = False
    broken: Exception | None = None
