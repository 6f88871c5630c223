"""``morphogen tune``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from morphogen.cli.arguments import add_device, byte_size
from morphogen.cli.output import FAILED, OK, PrintResult
from morphogen.cli.streams import complain
from morphogen.progress import StagedProgress

if TYPE_CHECKING:
    from rich.console import Console

SUMMARY = "measure which kernels are best on a GPU, and let engines take them from then on"

_SIZES = (1, 2, 4, 8)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_device(parser, "cuda")
    parser.add_argument(
        "--pages",
        type=int,
        default=65536,
        metavar="N",
        help="random pages, made on the device: as many as your table has (default: 65536)",
    )
    parser.add_argument(
        "--page-size",
        type=byte_size,
        default=4096,
        metavar="BYTES",
        help="bytes a page (default: 4k)",
    )
    parser.add_argument(
        "--iterations", type=int, default=30, metavar="I", help="timed rounds (default: 30)"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="the file of choices (default: that of the environment variable MORPHOGEN_TUNING, "
        "else morphogen/tuning.json in the folder of your configuration)",
    )


def run(args: argparse.Namespace, progress: StagedProgress, print_result: PrintResult) -> int:
    """Measure, write the choice, and print it."""
    from morphogen.bench import run_benchmark
    from morphogen.bench.config import BenchmarkConfig, choose_device
    from morphogen.bench.describe import describe_size
    from morphogen.bench.variants import ALL, describe_best
    from morphogen.engine.cuda.status import driver_status
    from morphogen.engine.cuda.tuning import VARIABLE, check_output, tuning_path, write_tuning
    from morphogen.engine.cuda.variants import DEFAULT

    path = args.output or tuning_path()
    if path is None:
        raise ValueError(f"{VARIABLE} names no file, so that no choice is read: give --output FILE")
    config = BenchmarkConfig(
        num_pages=args.pages,
        page_size=args.page_size,
        batch_sizes=_SIZES,
        keys_per_query=3,
        iterations=args.iterations,
        warmup=3,
        device=choose_device(args.device),
        variants=(ALL,),
    )
    check_output(path)
    result = run_benchmark(config, progress=progress)
    for failure in result.failures:
        complain(failure)
    if result.failures:
        return FAILED
    kernels = {best.keys: best.name for best in result.best_variants if best.name != DEFAULT}
    table = f"{config.num_pages} pages of {config.page_size} bytes"
    status = driver_status()
    write_tuning(path, status, status.devices[config.ordinal], kernels, table)
    words = [f"chunks of {one.width}: {describe_best(one)}" for one in result.best_variants]

    def show(console: Console) -> None:
        size = describe_size(config.num_pages * config.page_size)
        console.print(f"{result.device_name}, {table} ({size}), {config.iterations} rounds")
        for line in words:
            console.print(f"  {line}", soft_wrap=True)
        where = "from now on" if path == tuning_path() else f"where {VARIABLE} names the file"
        console.print(f"Engines on this device take these {where}: {path}", soft_wrap=True)

    data: dict[str, Any] = {
        "device": result.device,
        "device_name": result.device_name,
        "kernels": {str(keys): name for keys, name in kernels.items()},
        "output": str(path),
    }
    print_result(data, show)
    return OK
