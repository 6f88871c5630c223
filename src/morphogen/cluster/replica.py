"""One replica of one shard: the process that answers now, and the epochs that it must have."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

from morphogen.cluster.host_shard import Rows, ShardFacts, Version
from morphogen.cluster.process import ProcessGoneError, ShardProcess, ask
from morphogen.cluster.source import Source
from morphogen.engine.shards.transport import named_version
from morphogen.errors import ShardMismatchError, ShardUnavailableError
from morphogen.sharding import ShardRange

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Recipe:
    """How a process opens an epoch: what the file has, and what has changed since.

    Attributes
    ----------
    source : Source
        The file.
    range : ShardRange
        The pages to answer for.
    verify : bool
        Whether to read and hash all of them first.
    facts : ShardFacts or None
        What the first process said that opened it. A later one must say the same of the table and
        its pages.
    rows : Rows or None
        Pages that are others than the file's.
    """

    source: Source
    range: ShardRange
    verify: bool
    facts: ShardFacts | None = None
    rows: Rows | None = None

    def open(self, process: ShardProcess, version: Version) -> ShardFacts:
        """Have a process open the epoch.

        Parameters
        ----------
        process : ShardProcess
            The process.
        version : tuple of (int, bytes or None)
            Epoch and root.

        Returns
        -------
        ShardFacts
            What the process says of it.

        Raises
        ------
        ShardMismatchError
            If its file is not the one that was opened first.
        Exception
            As from `HostShard.open`.
        """
        facts: ShardFacts = ask(
            process, "open", self.source, self.range, version, self.verify, self.rows
        )
        first = self.facts
        for name in () if first is None else ("table", "root", "digest", "release"):
            one, other = getattr(first, name), getattr(facts, name)
            if one != other:
                raise ShardMismatchError(
                    f"{self.source.path} must have the {name} {_shown(one)} on {facts.host}, as "
                    f"before, not {_shown(other)}"
                )
        return facts


def _shown(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


class Replica:
    """One replica of one shard. Its process may be replaced by another at any time.

    Parameters
    ----------
    shard, at : int
        Which replica of which shard this is.
    process : ShardProcess
        The first process.
    lost : callable
        Called when the process is gone, from any thread.
    dropped : callable
        Called after an epoch was closed.
    """

    def __init__(
        self,
        shard: int,
        at: int,
        process: ShardProcess,
        lost: Callable[[Replica], None],
        dropped: Callable[[], None] = lambda: None,
    ) -> None:
        self.shard: int = shard
        self.at: int = at
        self._process = process
        self._usable = True
        self._retired = False
        self._recipes: dict[Version, Recipe] = {}
        self._lost = lost
        self._dropped = dropped
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """For messages: shard, replica and host."""
        return f"shard {self.shard}, replica {self.at} on {self._process.name}"

    @property
    def process(self) -> ShardProcess:
        """The process that answers now, or did last."""
        return self._process

    @property
    def usable(self) -> bool:
        """Whether the process answers, as far as is known."""
        return self._usable

    @property
    def retired(self) -> bool:
        """Whether no process is to be started any more."""
        return self._retired

    def open(self, version: Version, recipe: Recipe) -> ShardFacts:
        """Open an epoch from its file, for the first time.

        Parameters
        ----------
        version : tuple of (int, bytes or None)
            Epoch and root.
        recipe : Recipe
            How to open it again, but for the facts.

        Returns
        -------
        ShardFacts
            What the process says of it.

        Raises
        ------
        Exception
            As from `HostShard.open`.
        """
        process = self._process
        facts = recipe.open(process, version)
        self.adopt(version, replace(recipe, facts=facts), process)
        return facts

    def adopt(
        self, version: Version, recipe: Recipe, opened_by: ShardProcess | None = None
    ) -> None:
        """Have an epoch, now or from the next process on.

        Parameters
        ----------
        version : tuple of (int, bytes or None)
            Epoch and root.
        recipe : Recipe
            How to open it, with the facts of this or another replica.
        opened_by : ShardProcess, optional
            A process that has it already.

        Raises
        ------
        Exception
            As from `Recipe.open`, if the process is there and cannot open it.
        """
        with self._lock:
            self._recipes[version] = recipe
            process, usable = self._process, self._usable
        if process is opened_by or not usable:
            return  # whoever puts another in its place has it open this
        try:
            recipe.open(process, version)
        except ProcessGoneError as error:
            self.lose(process, error)

    @property
    def versions(self) -> tuple[Version, ...]:
        """Epochs and roots that it has, or will have with its next process."""
        with self._lock:
            return tuple(self._recipes)

    def change(self, before: Version, rows: Rows, after: Version) -> None:
        """Open the next epoch from changed pages.

        A process that is gone is replaced by one that has it.

        Parameters
        ----------
        before : tuple of (int, bytes or None)
            Epoch and root that are open.
        rows : Rows
            The pages that change.
        after : tuple of (int, bytes or None)
            Epoch and root that these make.

        Raises
        ------
        ShardMismatchError
            If the epoch before is not open, or the one after is.
        Exception
            As from `HostShard.change`.
        """
        with self._lock:
            base = self._recipes.get(before)
            if base is None:
                raise ShardMismatchError(f"{self.name} does not have epoch {before[0]}")
            if after in self._recipes:  # that recipe is of other pages
                raise ShardMismatchError(
                    f"{named_version(*after)} must be opened once, and is open"
                )
            merged = rows if base.rows is None else base.rows.then(rows)
            self._recipes[after] = replace(base, rows=merged)
            process, usable = self._process, self._usable
        if not usable:
            return
        try:
            ask(process, "change", before, rows, after)
        except ProcessGoneError as error:
            self.lose(process, error)
        except BaseException:
            with self._lock:
                self._recipes.pop(after, None)
            raise

    def drop(self, version: Version) -> None:
        """Close an epoch, if it is open.

        Parameters
        ----------
        version : tuple of (int, bytes or None)
            Epoch and root.
        """
        with self._lock:
            if self._recipes.pop(version, None) is None:
                return
            process, usable = self._process, self._usable
        if usable:
            process.call("drop", (version,), lambda told: None)
        self._dropped()

    def retire(self) -> None:
        """End the process, and start no other."""
        with self._lock:
            self._retired, self._usable = True, False
            process = self._process
        process.kill()

    def lose(self, process: ShardProcess, error: Exception) -> None:
        """Take note that a process is gone, or does not answer.

        Parameters
        ----------
        process : ShardProcess
            The process. If it was replaced already, nothing happens.
        error : Exception
            What tells so.
        """
        with self._lock:
            if process is not self._process or not self._usable:
                return
            self._usable = False
        _log.warning("%s is lost: %s", self.name, error)
        self._lost(self)

    def restore(self, process: ShardProcess) -> None:
        """Go on with another process, when it has all epochs that can be opened still.

        Whoever renames the next table to a file's name takes the epochs before from new processes.

        Parameters
        ----------
        process : ShardProcess
            The process, without any epochs yet.

        Raises
        ------
        Exception
            If it cannot have the highest epoch. The replica stays as it was.
        """
        opened: set[Version] = set()
        faults: dict[Version, Exception] = {}
        while True:
            with self._lock:
                if self._retired:
                    raise ShardUnavailableError(f"{self.name} is closed")
                missing = {
                    version: recipe
                    for version, recipe in self._recipes.items()
                    if version not in opened
                }
                if not missing:
                    highest = max((one[0] for one in self._recipes), default=-1)
                    for version, fault in faults.items():
                        if version in self._recipes and version[0] == highest:
                            raise fault
                    # Those that were dropped meanwhile.
                    extra = opened - self._recipes.keys()
                    self._process, self._usable = process, True
                    break
            for version, recipe in missing.items():
                try:
                    recipe.open(process, version)
                except ProcessGoneError:
                    raise
                except Exception as fault:
                    faults[version] = fault
                    ask(process, "drop", version)  # it may have another file's pages by that name
                opened.add(version)
        for version in extra:
            process.call("drop", (version,), lambda told: None)
