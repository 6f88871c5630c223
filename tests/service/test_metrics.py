"""Metrics of chunks whose width is a number of keys."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

import morphogen as mg
from morphogen.service import Generation, Generations, describe_table
from morphogen.service.metrics import Metrics
from naive import open_engine, random_pages, random_rows


@pytest.mark.parametrize(("keys", "widest"), [(1, 96), (2, 48), (3, 32)])
def test_chunks_are_counted_up_to_the_widest_of_the_queries_that_are_served(
    keys: int, widest: int
) -> None:
    with open_engine(random_pages(700, 48)) as engine, mg.MicroBatcher(engine) as batcher:
        info = describe_table(engine, 0, keys_per_query=keys)
        metrics = Metrics()
        metrics.tables = {"": Generations(Generation(info, engine, batcher))}
        queries, _ = mg.make_queries(random_rows(widest + 1, keys, 700), 700)
        for future in batcher.submit_many(queries):
            future.result()
        (family,) = (
            family
            for family in text_string_to_metric_families(metrics.text().decode())
            if family.name == "morphogen_chunk_size"
        )
    counts = {sample.labels["le"]: sample.value for sample in family.samples if sample.labels}
    sizes = [str(float(size)) for size in range(1, widest + 1)]
    assert counts == {**dict.fromkeys(sizes, 1), sizes[-1]: 2, "+Inf": 2}
