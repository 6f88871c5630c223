"""Results of the demo and the doctor, shown to people. Imports rich: only printing loads it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

from morphogen.bench.describe import describe_chunks, describe_kernels, describe_size
from morphogen.cli.diagnosis import Diagnosis, KernelChoice
from morphogen.cli.served_shards import ServedShards
from morphogen.cli.tables import print_table
from morphogen.demo import KEYS_PER_QUERY, DemoResult, first_words
from morphogen.engine.cores import LIMITS
from morphogen.engine.cuda.status import DeviceStatus

if TYPE_CHECKING:
    from morphogen.demo.lookup import LookupResult  # needs the extras

# Fewer bytes of pages lie in the processor's caches, where a pass costs little.
_FEW_BYTES = 32 << 20
_ORDER_SOURCES = {
    "make": "was faster on processors of this make",
    "measurement": "was faster in a short measurement, since no processor of this make is known",
}


def show_demo(result: DemoResult, console: Console) -> None:
    """Print the result of the demo.

    Parameters
    ----------
    result : DemoResult
    console : rich.console.Console
    """
    nbytes = result.num_pages * result.page_size
    fetched = sum(len(row) for row in result.rows)
    padded = ", the last filled up with zeros" if nbytes != result.file_bytes else ""
    console.print(f"File   {result.path}", soft_wrap=True)
    console.print(
        f"       {result.file_bytes:,} bytes = {result.num_pages:,} pages of "
        f"{result.page_size:,} bytes{padded}"
    )
    console.print(
        f"Fetch  {fetched} pages from two servers ({result.device}): "
        f"{len(result.rows)} queries of {KEYS_PER_QUERY} keys in one batch\n"
    )

    rows = _columns("strategy", "chunks", "ms per server", "speed-up", left=1)
    for strategy in result.strategies:
        rows.add_row(
            strategy.name,
            describe_chunks(strategy.micro_batch_sizes),
            f"{strategy.median_ms:.3f}",
            f"{strategy.speedup:.2f}x",
        )
    print_table(rows, console)
    console.print(
        f"Medians of {2 * result.rounds} runs, {result.rounds} on each server. "
        "4x2 is four chunks of two queries; a chunk is one pass over the pages."
    )
    if nbytes < _FEW_BYTES:
        console.print(
            f"This table is small ({describe_size(nbytes)}) and lies in the processor's caches: "
            "the times are short and noisy. `morphogen bench` measures a large one."
        )

    rows = _columns("bytes", "per server", "both servers", left=1)
    for label, size in (
        ("sent (keys)", result.sent_per_server),
        ("received (pages)", result.received_per_server),
    ):
        rows.add_row(label, f"{size:,}", f"{2 * size:,}")
    total = result.sent_per_server + result.received_per_server
    rows.add_row("in all", f"{total:,}", f"{2 * total:,}")
    rows.add_row("to download the whole table instead", f"{nbytes:,}", "")
    print_table(rows, console)

    rows = _columns("key as seen by", "header", "seed", left=3)
    for server, (header, seed) in enumerate(result.seen):
        rows.add_row(f"server {server}", header.hex(" ", 4), seed.hex(" ", 4))
    print_table(rows, console)
    console.print(
        "The header is public: the format, the party (0 or 1) and the size of the table. The seed "
        "is fresh random bytes, and what follows it looks as random: nothing in one key depends "
        "on the page in a way that its server can see."
    )
    console.print(
        "Privacy is computational, and holds as long as the two servers do not collude: whoever "
        "has both keys knows the page.\n"
    )

    row = len(result.rows) // 2
    console.print(f"Page {result.rows[row][0]} begins: {first_words(result.pages[row, 0])}")
    if result.differing:
        for name, index in result.differing:
            console.print(f"WRONG  page {index}, {name}", style="bold red")
        console.print("Fetched pages differ from the file.", style="bold red")
    else:
        console.print(
            f"All {fetched} pages equal the file byte for byte, whatever the strategy.",
            style="green",
        )


def show_lookups(result: LookupResult, console: Console) -> None:
    """Print the result of the demo's private lookups.

    Parameters
    ----------
    result : LookupResult
    console : rich.console.Console
    """
    console.print(
        f"\nTable  {result.entries:,} characters by name, from a CSV file of Unicode data:\n"
        f"       {result.num_pages:,} pages of {result.page_size:,} bytes "
        f"({describe_size(result.table_bytes)}), {100 * result.load:.0f}% full"
    )
    console.print(
        f"       two servers ({result.device}), each a process of its own: "
        f"{', '.join(result.urls)}\n",
        soft_wrap=True,
    )
    rows = _columns("key", "value", "", left=3)
    for lookup in result.lookups:
        value = "not in the table" if lookup.value is None else lookup.value
        rows.add_row(repr(lookup.key), value, "as in the file" if lookup.right else "WRONG")
    print_table(rows, console)
    console.print(
        "Hit or miss, each lookup was one query of 3 keys to each server, alike in size, number "
        "and order.\n"
    )
    servers = (f"server {party}" for party in range(len(result.chunk_sizes)))
    rows = _columns("chunks of", *servers, left=0)
    for size in sorted({size for sizes in result.chunk_sizes for size in sizes}):
        rows.add_row(str(size), *(f"{sizes.get(size, 0):,}" for sizes in result.chunk_sizes))
    print_table(rows, console)
    console.print(
        f"{result.clients} clients looked {result.concurrent} keys up at once: queries that "
        "arrived while a chunk ran shared the next."
    )
    if result.ok:
        console.print("All lookups gave what the file says.", style="green")
    else:
        console.print("Lookups differ from the file.", style="bold red")


def show_diagnosis(diagnosis: Diagnosis, console: Console) -> None:
    """Print a diagnosis.

    Parameters
    ----------
    diagnosis : Diagnosis
    console : rich.console.Console
    """
    chosen, supported = diagnosis.instruction_set, diagnosis.supported
    missing = [name for name in diagnosis.compiled if name not in supported]
    lacks = f"; this machine lacks {', '.join(missing)}" if missing else ""
    driver = diagnosis.driver
    if not driver.usable:
        why = f"no GPU: {driver.reason}"
    elif diagnosis.device.startswith("cuda"):
        why = f"the first GPU that can be used; the driver supports CUDA {driver.driver_version}"
    else:
        why = "the GPU is refused, see its self test"
    rows = Table.grid(padding=(0, 2))
    for label, value in (
        ("morphogen", f"{diagnosis.morphogen}, {diagnosis.python}, numpy {diagnosis.numpy}"),
        ("machine", diagnosis.machine),
        ("device", f"{diagnosis.device}: {why}"),
        *((f"cuda:{found.ordinal}", _describe_gpu(found)) for found in driver.devices),
        *((f"kernels, {one.device}", _describe_kernels(one)) for one in diagnosis.gpu_kernels),
        ("instruction set", f"{chosen}: the widest of the compiled that runs here{lacks}"),
        ("read order", f"{diagnosis.read_order}: {_ORDER_SOURCES[diagnosis.read_order_source]}"),
        ("compiled", ", ".join(diagnosis.compiled)),
        ("supported", ", ".join(supported)),
        (
            "threads",
            f"{diagnosis.threads}: {LIMITS[diagnosis.threads_limit]} "
            f"(the machine has {diagnosis.cores})",
        ),
        ("chunks", f"up to {diagnosis.max_micro_batch} queries share a pass over the pages"),
        ("clusters", _describe_ray(diagnosis.ray)),
    ):
        rows.add_row(label, value)
    for name, fault, refused in (
        *((check.instruction_set, check.fault, "") for check in diagnosis.checks),
        *((check.device, check.fault, check.refused) for check in diagnosis.gpu_checks),
    ):
        outcome = f"FAILED: {fault}" if fault else "passed"
        rows.add_row(
            f"self test, {name}",
            f"not possible: {refused}" if refused else outcome,
            style="bold red" if fault else None,
        )
    for column in rows.columns:
        column.overflow = "fold"
    console.print(rows)
    if diagnosis.ok:
        console.print("All well.", style="green")
    else:
        console.print("This installation gives wrong results here. Do not use it.", style="red")


def show_shards(tables: Sequence[ServedShards], console: Console) -> None:
    """Print how the shards of a server are.

    Parameters
    ----------
    tables : sequence of ServedShards
    console : rich.console.Console
    """
    if not tables:
        console.print("The server has no shards.")
    for one in tables:
        name = f"shards of {one.table}" if one.table else "shards"
        pairs = zip(one.usable, one.replicas, strict=True)
        counts = one.counts
        rows = Table.grid(padding=(0, 2))
        for label, value in (
            (name, str(len(one.replicas))),
            ("replicas that answer", ", ".join(f"{usable} of {every}" for usable, every in pairs)),
            ("passes", f"{counts['passes']:,.0f}, and {counts['retries']:,.0f} retries"),
            ("hedges", f"{counts['hedges']:,.0f}, of which {counts['hedges_won']:,.0f} came first"),
            (
                "gaps",
                f"{counts['gaps']:,.0f}, {counts['gap_seconds']:.3f} s in all, the longest "
                f"{counts['longest_gap_seconds']:.3f} s",
            ),
            ("processes replaced", f"{counts['replaced']:,.0f}"),
            ("of another version", f"{counts['mismatches']:,.0f} parts and errors"),
        ):
            rows.add_row(label, value)
        console.print(rows)
        if not one.ok:
            console.print("A shard has no replica that answers: 503 until it has.", style="red")


def _describe_kernels(choice: KernelChoice) -> str:
    return f"{describe_kernels(choice.kernels)}: {choice.reason}"


def _describe_ray(version: str) -> str:
    return f"Ray {version}" if version else "none without Ray: pip install 'morphogen[ray]'"


def _columns(*headings: str, left: int) -> Table:
    """Rows under headings, the first columns of them flush left."""
    rows = Table(box=box.SIMPLE_HEAD)
    for at, heading in enumerate(headings):
        rows.add_column(heading, justify="left" if at < left else "right")
    return rows


def _describe_gpu(device: DeviceStatus) -> str:
    if not device.usable:
        return device.reason
    major, minor = device.compute_capability
    return (
        f"{device.name}, compute capability {major}.{minor}, {device.multiprocessors} "
        f"multiprocessors, {describe_size(device.memory)}, runs "
        f"{device.compiled or device.ptx}"
    )
