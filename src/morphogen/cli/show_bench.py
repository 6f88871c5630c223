"""Results of a benchmark, shown to people. Imports rich."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from morphogen.bench import BenchmarkResult
from morphogen.bench.config import REQUESTS
from morphogen.bench.describe import describe_chunks, describe_size
from morphogen.bench.phases import PhaseRow
from morphogen.bench.recommend import describe_cap, describe_choice
from morphogen.bench.statistics import Spread
from morphogen.bench.variants import describe_best
from morphogen.cli.tables import print_table
from morphogen.engine.cuda.variants import DEFAULT


def show_benchmark(result: BenchmarkResult, console: Console) -> None:
    """Print a run.

    Parameters
    ----------
    result : BenchmarkResult
    console : rich.console.Console
    """
    config = result.config
    device = f"{result.device}, {result.instruction_set}, threads: {result.threads}"
    where = "random pages" if config.matrix_file is None else f"pages of {config.matrix_file.name}"
    if config.on_gpu:
        device = f"{result.device} ({result.device_name}), {result.instruction_set}, {result.grid}"
        device += "" if result.kernels == DEFAULT else f", kernels: {result.kernels}"
        where += f", made on the {'device' if config.generated else 'host'}"
        where += "" if config.layout == "plain" else f", layout {config.layout}"
    console.print(
        f"{config.num_pages:,} pages of {config.page_size:,} bytes "
        f"({describe_size(config.num_pages * config.page_size)}), {config.keys_per_query} keys a "
        f"query\n{device}; {where}\nMedians of {config.iterations} interleaved rounds, quartiles "
        "in brackets",
        soft_wrap=True,
    )
    _show_rows(result, console)
    if result.strategies:
        _show_strategies(result, console)
    if result.variants:
        _show_variants(result, console)
    elif config.variants:
        console.print("\nVariants of the kernels: none of these runs whole batches in even chunks")
    if result.concurrency:
        _show_concurrency(result, console)
    if result.phases:
        _show_phases(result.phases, console)


def _columns(title: str, headings: Sequence[str], left: str = "") -> Table:
    rows = Table(
        title=title,
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),  # so that a terminal of 80 holds the loops and the batch
        title_justify="left",
    )
    for heading in headings:
        rows.add_column(heading, justify="left" if heading == left else "right")
    return rows


def _show_rows(result: BenchmarkResult, console: Console) -> None:
    names = ("sync", "single", "batch", "read")
    rows = _columns("\nTime of a batch, ms", ("queries", *names))
    for rounds in result.rounds:
        spreads = [Spread.of(rounds.ms[name]) for name in names]
        rows.add_row(str(rounds.q), *(_spread(spread, _ms) for spread in spreads))
    print_table(rows, console)
    rows = _columns(
        "Ratios, each taken within a round",
        (
            *("queries", "sync\n/ read", "single\n/ read", "batch\n/ read", "speed-up"),
            *("queries\n/ s", "chunks", "checked"),
        ),
    )
    for row, rounds in zip(result.rows, result.rounds, strict=True):
        rows.add_row(
            str(row.q),
            f"{row.sync_vs_read:.2f}",
            f"{row.single_vs_read:.2f}",
            _spread(Spread.of_ratio(rounds.ms["batch"], rounds.ms["read"]), _ratio),
            _spread(Spread.of_ratio(rounds.ms["single"], rounds.ms["batch"]), _ratio),
            _rate(row.batch_qps),
            describe_chunks(row.micro_batch_sizes),
            _checked(row.correct),
            style=None if row.correct else "bold red",
        )
    print_table(rows, console)
    console.print(
        "sync: one call for each query, which waits for its answer; single: the same queries in "
        "one call, one by one; read: all pages are read, and nothing else is done; speed-up: "
        "single over batch."
    )


def _show_strategies(result: BenchmarkResult, console: Console) -> None:
    tails = any(row.p99_ms is not None for row in result.strategies)
    rows = _columns(
        "\nStrategies, in the same rounds",
        (
            *("queries", "strategy", "chunks", "ms", *(["p99\nms"] if tails else [])),
            *("queries\n/ s", "speed-up", "vs\ndefault", "/ read", "checked"),
        ),
        left="strategy",
    )
    before = None
    for row in result.strategies:
        if before not in (None, row.q):
            rows.add_section()
        rows.add_row(
            "" if before == row.q else str(row.q),
            f"{row.name} *" if row.default else row.name,
            describe_chunks(row.micro_batch_sizes),
            _ms(row.ms.median),
            *([_tail(row.p99_ms)] if tails else []),
            _rate(row.qps),
            _spread(row.vs_single, _ratio),
            f"{row.vs_default.median:.2f}x",
            f"{row.vs_read.median:.2f}",
            _checked(row.correct),
            style=None if row.correct else "bold red",
        )
        before = row.q
    print_table(rows, console)
    console.print(
        "*: what the engine does when nothing is asked for. A strategy that would do with a batch "
        "what another does already is not run for it."
    )
    if result.strategies_lacking:
        console.print(f"This engine has no {', '.join(result.strategies_lacking)}.")
    recommendation = result.recommendation
    if recommendation is None:
        return
    latency = recommendation.latency
    lone = "not measured: no batch of 1" if latency is None else describe_choice(latency)
    throughput = recommendation.throughput
    console.print("\nRecommended for this device and table", style="bold")
    for label, words in (
        (f"throughput (batches of {throughput.q})", describe_choice(throughput)),
        ("latency of a lone query", lone),
        ("width", describe_cap(recommendation.cap)),
    ):
        console.print(f"  {label}: {words}")


def _show_variants(result: BenchmarkResult, console: Console) -> None:
    rows = _columns(
        "\nVariants of the kernels, in the same rounds",
        ("queries", "variant", "chunks", "ms", "queries\n/ s", "/ read", "checked"),
        left="variant",
    )
    for row in result.variants:
        rows.add_row(
            str(row.q),
            row.variant,
            describe_chunks(row.micro_batch_sizes),
            _ms(row.batch_ms_per_batch),
            _rate(row.batch_qps),
            f"{row.batch_vs_read:.3f} [{row.batch_vs_read_low:.3f}-{row.batch_vs_read_high:.3f}]",
            _checked(row.correct),
            style=None if row.correct else "bold red",
        )
    print_table(rows, console)
    console.print("\nBest for this device and table", style="bold")
    for best in result.best_variants:
        console.print(f"  chunks of {best.width} ({best.keys} keys): {describe_best(best)}")


def _show_concurrency(result: BenchmarkResult, console: Console) -> None:
    rows = _columns(
        "\nConcurrent callers: latency in ms, and throughput",
        (
            *("callers", "way", "p50", "p90", "p99", "max", "queries\n/ s"),
            *("vs\ndirect", "mean\nchunk", "checked"),
        ),
        left="way",
    )
    before = None
    for row in result.concurrency:
        if before not in (None, row.callers):
            rows.add_section()
        rows.add_row(
            "" if before == row.callers else str(row.callers),
            row.way,
            _ms(row.p50_ms),
            _ms(row.p90_ms),
            _tail(row.p99_ms),
            _ms(row.max_ms),
            _spread(row.qps, _rate),
            f"{row.vs_direct.median:.2f}x",
            f"{row.mean_chunk:.2f}",
            _checked(row.correct),
            style=None if row.correct else "bold red",
        )
        before = row.callers
    print_table(rows, console)
    console.print(
        f"Each caller asks {REQUESTS} times in a round, without a pause. direct: all call the "
        "engine, each with a chunk of its own; batcher: all submit to a MicroBatcher, which lets "
        "them share chunks; lone: one caller alone. p99 needs 100 requests."
    )


def _show_phases(phases: Sequence[PhaseRow], console: Console) -> None:
    parts = (f"{part}\na chunk" for part in ("submit", "device", "wait", "copy"))
    rows = _columns(
        "Phases of a batch and of its chunks: medians in us",
        ("queries", "chunks", "prepare", "total", *parts),
    )
    for row in phases:
        times = (
            *(row.prepare_us, row.total_us, row.submit_us, row.device_us),
            *(row.wait_us, row.copy_us),
        )
        rows.add_row(
            str(row.q),
            describe_chunks(row.micro_batch_sizes),
            *(f"{time:,.1f}" for time in times),
        )
    print_table(rows, console)
    console.print("Timed in one lane: a batch that keeps two lanes busy takes less in all.")


def _ms(value: float) -> str:
    decimals = 3 if value < 10 else 2 if value < 100 else 1 if value < 1000 else 0
    return f"{value:,.{decimals}f}"


def _tail(value: float | None) -> str:
    return "-" if value is None else _ms(value)


def _ratio(value: float) -> str:
    return f"{value:.2f}"


def _rate(value: float) -> str:
    return f"{value:,.0f}"


def _spread(spread: Spread, text: Callable[[float], str]) -> str:
    return f"{text(spread.median)} [{text(spread.low)}-{text(spread.high)}]"


def _checked(correct: bool) -> str:
    return "equal" if correct else "DIFFERS"
