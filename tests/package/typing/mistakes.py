"""Mistakes that type checkers must find. A mistake that a checker misses is an error here.

Each line names the error of mypy, then that of pyright.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

import morphogen as mg
from morphogen.keyword import build


def keys(key: bytes) -> None:
    mg.dpf.gen("3", 1000)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    mg.dpf.gen(3.0, 1000)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    mg.dpf.gen(3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    mg.dpf.gen(3, 1000, key)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    mg.dpf.eval_full("key", 1000)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    mg.dpf.eval_at(key, None, 9)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    mg.dpf.expand(key)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    print(mg.nothing)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownArgumentType]


def tables(floats: npt.NDArray[np.float64], pages: mg.PageMatrix) -> None:
    mg.PageMatrix(floats)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    mg.PageMatrix(b"pages")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    pages.epoch = 8  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


def queries(query: mg.Query) -> None:
    mg.make_query(3, 1000)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    mg.make_query(["3"], 1000)  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    mg.Query([1])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    query.keys = ()  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


def answers(engine: mg.Engine, query: mg.Query, answer: mg.Answer) -> None:
    engine.answer(query)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    engine.answer((query,))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    engine.answer([query], 1)  # type: ignore[call-arg, arg-type]  # pyright: ignore[reportCallIssue]
    engine.answer([query], lanes="2")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    mg.reconstruct(answer)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    mg.reconstruct(answer.pages, answer.pages)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    mg.Engine(engine.table)  # type: ignore[abstract, call-arg]  # pyright: ignore[reportAbstractUsage, reportCallIssue]
    mg.open_engine(engine.pages, 0)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def plans(packer: mg.planner.KeyPacker) -> None:
    mg.planner.micro_batch_ranges(2.5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    packer.key_size = 112  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    mg.planner.KeyPacker()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def batchers(batcher: mg.MicroBatcher, query: mg.Query) -> None:
    batcher.submit([query])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    print(batcher.submit(query).pages)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownArgumentType]
    batcher.answer(query)  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]


def clients(client: mg.Client) -> None:
    mg.Client(7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    client.get(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    client.lookup("key")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    client.lookup(b"key").decode()  # type: ignore[union-attr]  # pyright: ignore[reportOptionalMemberAccess]


def keyword_tables() -> None:
    build({"key": 5}.items())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    build([(b"key", b"value")], 512)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
