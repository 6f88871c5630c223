"""``morphogen bench``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from morphogen.cli.arguments import add_device, byte_size, int_list
from morphogen.cli.output import FAILED, OK, PrintResult
from morphogen.cli.streams import (
    STANDARD,
    complain,
    input_file,
    takes_output,
    write,
    write_bytes,
)
from morphogen.progress import StagedProgress

if TYPE_CHECKING:
    from morphogen.bench.config import BenchmarkConfig

SUMMARY = "compare the batch with the single-query loop and a read"

_PAGES = 65536
_MOST = "max"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    pages = parser.add_argument_group("the table")
    pages.add_argument(
        "--pages",
        type=_page_count,
        metavar="N",
        help=f"pages in the table, random; on a GPU also: {_MOST}, as many as fit; with "
        f"--matrix-file no more than these of the file (default: {_PAGES}, or all of the file)",
    )
    pages.add_argument(
        "--page-size",
        type=byte_size,
        default=4096,
        metavar="BYTES",
        help="bytes a page (default: 4k)",
    )
    pages.add_argument(
        "--matrix-file",
        type=Path,
        metavar="FILE",
        help="measure the pages of a file (- for the standard input), which is mapped, not read "
        "into memory; a short last page is filled up with zeros",
    )
    pages.add_argument(
        "--pages-on",
        choices=("host", "device"),
        help="made on the host and uploaded, or made on the GPU (default on a GPU: device)",
    )
    pages.add_argument(
        "--layout",
        choices=("plain", "bits"),
        default="plain",
        help="bits: one GPU holds them a second time, for chunks of up to 32 queries "
        "(default: plain)",
    )

    engine = parser.add_argument_group("the engine")
    add_device(engine, "cpu")
    engine.add_argument(
        "--threads",
        type=int,
        metavar="T",
        help="on the CPU (default: one for each core this process may use)",
    )
    engine.add_argument(
        "--instruction-set",
        metavar="NAME",
        help="on the CPU (default: the widest, see morphogen doctor)",
    )

    measured = parser.add_argument_group("what is measured")
    measured.add_argument(
        "--batch-sizes",
        type=int_list,
        default=(1, 2, 4, 8, 16, 32),
        metavar="Q,Q,...",
        help="queries in a batch (default: 1,2,4,8,16,32)",
    )
    for option, default, metavar, text in (
        ("--keys-per-query", 3, "K", "keys in a query, 1 to 3"),
        ("--iterations", 10, "I", "rounds that are timed; 100 or more give a 99th percentile"),
        ("--warmup", 2, "W", "rounds before them that are not"),
        ("--seed", 0, "S", "of pages, indices and keys"),
    ):
        measured.add_argument(
            option, type=int, default=default, metavar=metavar, help=f"{text} (default: {default})"
        )
    measured.add_argument(
        "--strategies",
        type=_names,
        default=(),
        metavar="NAME,...",
        help="also run every batch in other ways, and say which is best: all, or names such as "
        "single, chunks-4, chunks-2-lanes-1, chunks-2-graph",
    )
    measured.add_argument(
        "--variants",
        type=_names,
        default=(),
        metavar="NAME,...",
        help="on a GPU: also run batches by other kernels, which give the same answers, in chunks "
        "of 2, 4 and 8 queries, and say which is best: all, or names such as red",
    )
    measured.add_argument(
        "--concurrency",
        type=int_list,
        default=(),
        metavar="N,...",
        help="also let N callers ask at the same time, by direct calls and through a MicroBatcher",
    )
    measured.add_argument(
        "--phases", action="store_true", help="on a GPU: measure the phases of a batch too"
    )

    output = parser.add_argument_group("output")
    output.add_argument(
        "--csv",
        type=Path,
        metavar="FILE",
        help="write the rows of the batch sizes to a file too; - for the standard output, which "
        "then gets nothing else",
    )
    output.add_argument(
        "--plot",
        type=Path,
        metavar="FILE",
        help="draw all that was measured into a .png or .svg file (needs the extra plot); - for "
        "SVG on the standard output, which then gets nothing else",
    )


def _page_count(text: str) -> int | str:
    """A number of pages, or "max" for as many as fit."""
    try:
        return text if text == _MOST else int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be a whole number or {_MOST}, not {text!r}"
        ) from None


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def run(args: argparse.Namespace, progress: StagedProgress, print_result: PrintResult) -> int:
    """Measure, print, and say whether every answer was right."""
    import morphogen.bench as bench
    import morphogen.cli.show_bench as show_bench
    from morphogen.bench.plot import check_extra, check_plot, draw_benchmark, plot_svg
    from morphogen.bench.result import csv_text

    taken = takes_output(args.json, {"--csv": args.csv, "--plot": args.plot})
    if args.plot == STANDARD:
        check_extra()
    elif args.plot is not None:
        check_plot(args.plot)
    csv_path = None if args.csv == STANDARD else args.csv
    result = bench.run_benchmark(_config(args), csv_path=csv_path, progress=progress)

    if args.csv == STANDARD:
        write(csv_text(result))
    if not taken:
        print_result(result.as_dict(), lambda console: show_bench.show_benchmark(result, console))
    for failure in result.failures:
        complain(failure)
    # Last: a full disk must not cost the measurements.
    if args.plot == STANDARD:
        write_bytes(plot_svg(result))
    elif args.plot is not None:
        draw_benchmark(result, args.plot)
    return FAILED if result.failures else OK


def _config(args: argparse.Namespace) -> BenchmarkConfig:
    from morphogen.bench.config import BenchmarkConfig, choose_device, most_pages
    from morphogen.bench.pages import pages_of_file

    cpu_only = args.threads is not None or args.instruction_set is not None
    device = "cpu" if cpu_only and args.device == "auto" else choose_device(args.device)
    pages: int | None = args.pages
    if args.pages == _MOST:
        pages = most_pages(device, args.page_size, args.layout)
    matrix_file = args.matrix_file and input_file(args.matrix_file)
    if matrix_file is not None:
        pages = pages_of_file(matrix_file, args.page_size, pages)
    return BenchmarkConfig(
        num_pages=_PAGES if pages is None else pages,
        page_size=args.page_size,
        batch_sizes=args.batch_sizes,
        keys_per_query=args.keys_per_query,
        iterations=args.iterations,
        warmup=args.warmup,
        seed=args.seed,
        device=device,
        threads=args.threads,
        instruction_set=args.instruction_set,
        pages_on=args.pages_on,
        layout=args.layout,
        phases=args.phases,
        matrix_file=matrix_file,
        strategies=args.strategies,
        concurrency=args.concurrency,
        variants=args.variants,
    )
