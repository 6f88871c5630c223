"""Tables in this process that get new epochs while they are served, over engines one can hold."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Self

from prometheus_client.parser import text_string_to_metric_families

import morphogen as mg
from held_engine import HeldEngine
from morphogen.authentication import Seal, Tree
from morphogen.service import Generation, Generations, create_tables_app, describe_table
from morphogen.service.metrics import Metrics
from naive import Bytes, open_engine
from served_table import SECONDS, LiveServer


class HeldGeneration(Generation):
    """A generation over an engine that a test can hold."""

    def __init__(
        self,
        table: Bytes,
        epoch: int,
        *,
        party: int = 0,
        seal: Seal | None = None,
        layout: dict[str, Any] | None = None,
        keys_per_query: int = 3,
        manifest: bytes | None = None,
        width: int = 2,
        **options: Any,
    ) -> None:
        self.table = table
        self.held = HeldEngine(open_engine(mg.PageMatrix(table, epoch), threads=1), width)
        info = describe_table(
            self.held,
            party,
            keys_per_query=keys_per_query,
            layout=layout,
            tree=None if seal is None else Tree(seal.cap, seal.root),
        )
        batcher = mg.MicroBatcher(self.held, **options)
        cap = None if seal is None else seal.cap.data
        super().__init__(info, self.held, batcher, cap, manifest)

    @property
    def ended(self) -> bool:
        return self.batcher.closed and self.held.closed


def publish(generations: Generations, generation: Generation) -> None:
    """Publish from another thread than the service's, which is the worst that it may meet."""
    asyncio.run(generations.publish(generation))


class LiveTables(LiveServer):
    """Serve tables on a socket, on a thread of this process."""

    def __init__(self, tables: Mapping[str, Generations], **options: Any) -> None:
        self.tables = tables
        self.metrics = Metrics()
        options.setdefault("hold_seconds", 0)
        super().__init__(
            create_tables_app(
                tables, metrics=self.metrics, max_wait=SECONDS, drain_seconds=SECONDS, **options
            )
        )

    def samples(self) -> dict[tuple[Any, ...], float]:
        """Return all metrics, by their name and labels."""
        return {
            (sample.name, *sorted(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(self.metrics.text().decode())
            for sample in family.samples
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for generations in self.tables.values():
            for generation in generations.held:
                if isinstance(generation, HeldGeneration):
                    generation.held.held.set()
        self.join()
        for generations in self.tables.values():
            generations.close()
