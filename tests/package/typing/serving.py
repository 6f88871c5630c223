"""Batchers, services, clients and keyword tables. Checked, never run."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import Any, assert_type

import numpy as np
import numpy.typing as npt
from litestar.types import ASGIApp

import morphogen as mg
import morphogen.wire as wire
from morphogen.authentication import Tree, tree_of_pages
from morphogen.batcher import MAX_QUEUED
from morphogen.keyword import BuiltTable, TableLayout, build, build_table
from morphogen.keyword.file import (
    OpenedTable,
    TableHeader,
    is_table,
    open_table,
    read_cap,
    read_header,
    write_table,
)
from morphogen.keyword.sealing import seal_file
from morphogen.service import create_app, describe_table, digest_pages
from morphogen.service.metrics import Metrics
from morphogen.service.run import ServerConfig, serve

Bytes = npt.NDArray[np.uint8]


def batchers(engine: mg.Engine, query: mg.Query) -> None:
    with mg.MicroBatcher(engine, max_micro_batch=2, max_queued=MAX_QUEUED) as batcher:
        assert_type(batcher, mg.MicroBatcher)
        future = batcher.submit(query, timeout=1.5)
        assert_type(future, Future[mg.Answer])
        assert_type(future.result().pages, Bytes)
        assert_type(batcher.submit_many([query, query]), list[Future[mg.Answer]])
    assert_type(batcher.engine, mg.Engine)
    assert_type((batcher.max_micro_batch, batcher.max_queued), tuple[int, int])
    assert_type(batcher.closed, bool)
    assert_type(batcher.close(timeout=1), bool)
    done = batcher.statistics()
    assert_type(done, mg.BatcherStatistics)
    assert_type(done.chunk_sizes, dict[int, int])
    assert_type(done.answered + done.failed + done.cancelled + done.expired + done.refused, int)
    assert_type(done.queued + done.running, int)
    assert_type((done.waiting_seconds, done.running_seconds), tuple[float, float])
    assert_type(done.mean_chunk_size, float)


async def batchers_of_tasks(batcher: mg.MicroBatcher, query: mg.Query) -> None:
    assert_type(await batcher.answer(query), mg.Answer)
    assert_type(await batcher.answer_many((query, query), timeout=0.1), list[mg.Answer])


def clients(urls: list[str], authorities: Path) -> None:
    with mg.Client(urls) as client:
        assert_type(client, mg.Client)
    mg.Client(urls, timeout=3, retries=0, backoff=0, ca_file=authorities, insecure=False)
    mg.Client(urls, root=bytes(32), verify=True, cache_dir=Path("caps"))
    mg.Client(urls, root="00" * 32, cache_dir="caps")
    assert_type(client.root, bytes | None)
    assert_type(client.authenticated, bool)
    assert_type(client.get([1, 2, 3]), Bytes)
    client.get(np.int64(at) for at in range(3))
    client.get(range(3))
    assert_type(client.lookup(b"key"), bytes | None)
    assert_type(client.lookup_many({b"key", b"another"}), list[bytes | None])
    assert_type(client.info, wire.TableInfo)
    assert_type(client.close(), None)


async def clients_of_tasks(urls: tuple[str, str]) -> None:
    async with mg.AsyncClient(urls, ca_file="authorities.pem") as client:
        assert_type(client, mg.AsyncClient)
        assert_type(await client.connect(), wire.TableInfo)
        assert_type(await client.get([1]), Bytes)
        assert_type(await client.lookup(b"key"), bytes | None)
        assert_type(await client.lookup_many([b"key"]), list[bytes | None])
    assert_type(client.info, wire.TableInfo)
    await client.close()


def services(engine: mg.Engine, batcher: mg.MicroBatcher) -> None:
    info = describe_table(engine, 0, keys_per_query=3, layout={"version": 1})
    assert_type(info, wire.TableInfo)
    assert_type(info.table, dict[str, Any] | None)
    assert_type((info.party, info.epoch_id, info.num_pages), tuple[int, int, int])
    assert_type((info.digest, info.device), tuple[str, str])
    application: ASGIApp = create_app(batcher, info, max_wait=5)
    sealed = describe_table(engine, 0, tree=tree_of_pages(engine.pages, 4))
    assert_type((sealed.root, sealed.proof_levels), tuple[str | None, int | None])
    application = create_app(batcher, sealed, cap=b"")
    assert_type(wire.cap_path(7), str)
    assert_type(digest_pages(engine.pages), str)
    assert_type(Metrics().text(), bytes)
    serve(ServerConfig(path=Path("words.table"), party=1, device="cpu"))
    print(application)


def messages(info: wire.TableInfo, queries: list[mg.Query], pages: Bytes) -> None:
    body = wire.encode_request(queries, epoch_id=3, num_pages=1000, content_type=wire.JSON)
    assert_type(body, bytes)
    request = wire.decode_request(body, wire.media_type("application/json"), info)
    assert_type(request, wire.BatchRequest)
    assert_type(request.queries, list[mg.Query])
    assert_type((request.epoch_id, request.num_pages), tuple[int | None, int | None])
    response = wire.BatchResponse(epoch_id=3, num_pages=1000, digest="", pages=pages)
    encoded = wire.encode_response(response, wire.MSGPACK)
    assert_type(wire.decode_response(encoded, wire.MSGPACK, info, 2), wire.BatchResponse)
    assert_type(wire.decode_info(b"{}"), wire.TableInfo)
    assert_type(wire.max_body_bytes(info), int)
    too_many: type[mg.WireError] = wire.WireTooManyError
    conflict: type[mg.WireError] = wire.WireConflictError
    print(too_many, conflict)


def keyword_tables(words: dict[bytes, bytes], path: Path) -> None:
    pages, layout = build(words.items(), page_size=4096, load=0.8, seed=bytes(16))
    assert_type(pages, Bytes)
    assert_type(layout, TableLayout)
    built = build_table(iter(words.items()), progress=lambda done, total: None)
    assert_type(built, BuiltTable)
    assert_type(built.tries, int)
    assert_type(layout.candidates(b"key"), tuple[int, ...])
    assert_type(layout.find(b"key", pages), bytes | None)
    assert_type((layout.slot_size, layout.load), tuple[int, float])
    assert_type(TableLayout.from_dict(layout.as_dict()), TableLayout)
    assert_type(write_table(path, pages, layout), TableHeader)
    opened = open_table(path, epoch=1, verify=False)
    assert_type(opened, OpenedTable)
    assert_type((opened.pages, opened.layout), tuple[mg.PageMatrix, TableLayout | None])
    assert_type((opened.header, opened.tree), tuple[TableHeader, Tree | None])
    assert_type(seal_file(path, path, page_size=512, proof_levels=2), TableHeader)
    assert_type(read_cap(path), Bytes)
    assert_type(read_header(path).digest, bytes)
    assert_type(is_table(path), bool)
