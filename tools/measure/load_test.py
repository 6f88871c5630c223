"""Load two real servers with concurrent clients, and check every page that comes back.

    python tools/measure/load_test.py            64 clients, mixed batch sizes, 60 seconds
    python tools/measure/load_test.py --lone     a lone caller's latency beside a direct call

Both servers and all clients share this machine. It prints JSON. The exit code is 1 if a page was
wrong or lost, if memory grew by 5% or more after the warm-up (in a load of 30 seconds or more), if
chunks were smaller than 1.8 on average at a width of 2, or if, with --lone, the batcher took more
than 5% longer than a direct call.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter

import httpx
import numpy as np
import numpy.typing as npt

import morphogen as mg
import morphogen.wire as wire
from morphogen.cli.signals import cleaning_up
from morphogen.service.process import ServerProcess

Bytes = npt.NDArray[np.uint8]

BATCH_SIZES = (1, 1, 1, 2, 2, 3, 5, 8, 32)  # mixed: most callers want few pages at a time
KEYS = 3
SETTLED_SECONDS = 30
MAX_GROWTH, MIN_MEAN_CHUNK, MAX_LONE_RATIO = 1.05, 1.8, 1.05


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of a load. Latencies are in milliseconds, with both servers asked at once."""

    clients: int
    seconds: float
    requests: int
    queries: int
    wrong: int
    failed: int
    p50_ms: float
    p99_ms: float
    queries_per_second: float
    mean_chunk: float
    memory_growth: float


def make_table(num_pages: int, page_size: int) -> Bytes:
    return np.random.default_rng(0).integers(0, 256, (num_pages, page_size), dtype=np.uint8)


def resident(process: int) -> int:
    """Return a process's own resident memory in bytes, without files that it maps."""
    status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    (line,) = (line for line in status.splitlines() if line.startswith("RssAnon"))
    return 1024 * int(line.split()[1])


class Load:
    """Clients that each send one batch after the other and check the pages."""

    def __init__(self, servers: Sequence[ServerProcess], table: Bytes) -> None:
        self.servers = servers
        self.table = table
        self.latencies: list[float] = []
        self.queries = self.wrong = self.failed = 0

    async def client(self, number: int, until: float) -> None:
        choice = random.Random(number)
        async with httpx.AsyncClient(trust_env=False, timeout=120) as http:
            infos = [
                wire.decode_info((await http.get(server.url + wire.EPOCH_PATH)).content)
                for server in self.servers
            ]
            while perf_counter() < until:
                size = choice.choice(BATCH_SIZES)
                rows = [
                    [choice.randrange(len(self.table)) for _ in range(KEYS)] for _ in range(size)
                ]
                halves = mg.make_queries(rows, len(self.table))
                bodies = [
                    wire.encode_request(
                        half,
                        epoch_id=info.epoch_id,
                        num_pages=info.num_pages,
                        content_type=wire.MSGPACK,
                    )
                    for half, info in zip(halves, infos, strict=True)
                ]
                started = perf_counter()
                responses = await asyncio.gather(
                    *(
                        http.post(
                            server.url + wire.QUERY_PATH,
                            content=body,
                            headers={"Content-Type": wire.MSGPACK, "Accept": wire.MSGPACK},
                        )
                        for server, body in zip(self.servers, bodies, strict=True)
                    )
                )
                self.latencies.append(perf_counter() - started)
                self.queries += size
                refused = [response for response in responses if response.status_code != 200]
                if refused:
                    self.failed += 1
                    print(f"{refused[0].status_code}: {refused[0].text}", file=sys.stderr)
                    continue
                pages = [
                    wire.decode_response(response.content, wire.MSGPACK, info, size).pages
                    for response, info in zip(responses, infos, strict=True)
                ]
                self.wrong += not np.array_equal(pages[0] ^ pages[1], self.table[rows])


def run(servers: Sequence[ServerProcess], table: Bytes, clients: int, seconds: float) -> Figures:
    """Warm up for a fifth of the time, then measure."""

    async def everyone(load: Load, duration: float) -> None:
        until = perf_counter() + duration
        await asyncio.gather(*(load.client(at, until) for at in range(clients)))

    asyncio.run(everyone(Load(servers, table), seconds / 5))
    before = [(resident(server.process.pid), server.chunk_sizes()) for server in servers]
    load = Load(servers, table)
    started = perf_counter()
    asyncio.run(everyone(load, seconds))
    elapsed = perf_counter() - started
    growth, means = [], []
    for server, (first, sizes_before) in zip(servers, before, strict=True):
        growth.append(resident(server.process.pid) / first)
        after = server.chunk_sizes()
        ran = {size: count - sizes_before.get(size, 0) for size, count in after.items()}
        means.append(sum(size * n for size, n in ran.items()) / sum(ran.values()))
    milliseconds = [1e3 * latency for latency in load.latencies]
    return Figures(
        clients=clients,
        seconds=elapsed,
        requests=len(milliseconds),
        queries=load.queries,
        wrong=load.wrong,
        failed=load.failed,
        p50_ms=median(milliseconds),
        p99_ms=quantiles(milliseconds, n=100)[98] if len(milliseconds) > 1 else milliseconds[0],
        queries_per_second=load.queries / elapsed,
        mean_chunk=min(means),
        memory_growth=max(growth),
    )


def lone(table: Bytes, rounds: int) -> dict[str, float]:
    """Time a lone caller of the batcher and direct calls of the same engine, interleaved."""
    queries = mg.make_queries([[at, at + 1, at + 2] for at in range(rounds)], len(table))[0]
    direct, submitted = [], []
    with (
        mg.open_engine(mg.PageMatrix(table), device="cpu") as engine,
        mg.MicroBatcher(engine) as batcher,
    ):
        for query in queries:
            started = perf_counter()
            engine.answer([query])
            between = perf_counter()
            batcher.submit(query).result()
            ended = perf_counter()
            direct.append(between - started)
            submitted.append(ended - between)
        mean = batcher.statistics().mean_chunk_size
    ratios = [after / before for before, after in zip(direct, submitted, strict=True)]
    return {
        "direct_ms": 1e3 * median(direct),
        "batcher_ms": 1e3 * median(submitted),
        "ratio": median(ratios),
        "mean_chunk": mean,
    }


def main() -> int:
    """Run the load that the arguments name, and tell by the exit code whether it passed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lone", action="store_true", help="a lone caller beside a direct call")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60.0, help="of the load")
    parser.add_argument("--pages", type=int, default=65536)
    parser.add_argument("--page-size", type=int, default=4096)
    parser.add_argument("--max-micro-batch", type=int, default=2, help="0: the engine's own width")
    args = parser.parse_args()
    table = make_table(args.pages, args.page_size)
    if args.lone:
        figures = lone(table, 200)
        print(json.dumps(figures, indent=2))
        return int(figures["ratio"] > MAX_LONE_RATIO or figures["mean_chunk"] != 1.0)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        path = Path(folder, "pages.bin")
        table.tofile(path)
        options = ["--page-size", str(args.page_size)]
        # All clients have one address: its share of the queue must hold all they ask for at once.
        room = str(max(wire.MAX_QUERIES, args.clients * max(BATCH_SIZES)))
        options += ["--max-queued", room, "--max-queued-per-client", room]
        if args.max_micro_batch:
            options += ["--max-micro-batch", str(args.max_micro_batch)]
        servers = [stack.enter_context(ServerProcess(path, at, options)) for at in (0, 1)]
        load = run(servers, table, args.clients, args.seconds)
    print(json.dumps(asdict(load), indent=2))
    bad = load.wrong > 0 or load.failed > 0
    # After a short warm-up the buffers may still grow.
    bad |= args.seconds >= SETTLED_SECONDS and load.memory_growth >= MAX_GROWTH
    bad |= args.max_micro_batch == 2 and load.mean_chunk < MIN_MEAN_CHUNK
    return int(bad)


if __name__ == "__main__":
    with cleaning_up():  # temporary files and servers
        sys.exit(main())
