"""``morphogen demo``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from morphogen.checks import needs_extra
from morphogen.cli.arguments import add_device, byte_size, int_list
from morphogen.cli.output import FAILED, OK, PrintResult
from morphogen.cli.streams import input_file
from morphogen.progress import StagedProgress, stage

if TYPE_CHECKING:
    from rich.console import Console

SUMMARY = "fetch pages of a file privately, several ways, and compare them"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "file",
        nargs="?",
        type=Path,
        metavar="FILE",
        help="default: a large file of the Python installation; - for the standard input",
    )
    parser.add_argument(
        "--fetch",
        type=int_list,
        metavar="0,7,...",
        help="pages to fetch, 3 a query (default: 24 spread over the file)",
    )
    parser.add_argument(
        "--page-size", type=byte_size, default=4096, metavar="BYTES", help="default: 4k"
    )
    parser.add_argument(
        "--lookups",
        action=argparse.BooleanOptionalAction,
        help="also start two servers and look keys up (default: where no FILE is given)",
    )
    parser.add_argument(
        "--breached",
        action="store_true",
        help="another demo: is this password among the breached ones? An authenticated table, two "
        "servers, proven misses, and one server that lies",
    )
    parser.add_argument(
        "--entries",
        type=int,
        metavar="N",
        help="passwords in the list of --breached (default: 1000000)",
    )
    add_device(parser, "auto")


def run(args: argparse.Namespace, progress: StagedProgress, print_result: PrintResult) -> int:
    """Run the demo, print its result, and say whether every page and value was right."""
    if args.breached:
        return _run_breached(args, progress, print_result)
    if args.entries is not None:
        raise ValueError("--entries is the size of --breached's list")
    import morphogen.cli.show as show
    import morphogen.demo as demo

    result = demo.run_demo(
        args.file and input_file(args.file),
        page_size=args.page_size,
        indices=args.fetch,
        device=args.device,
        progress=stage(progress, "measuring"),
        upload=stage(progress, "uploading"),
    )
    data = result.as_dict()
    lookups, skipped = None, ""
    if args.lookups or (args.lookups is None and args.file is None):
        try:
            with needs_extra("client,server"):
                import morphogen.demo.lookup as demo_lookup
        except ModuleNotFoundError as error:
            if args.lookups:
                raise
            skipped = str(error)
            data["lookups"] = {"skipped": skipped}
        else:
            lookups = demo_lookup.run_lookup_demo(stage(progress, "looking up"), device=args.device)
            data["lookups"] = lookups.as_dict()

    def show_all(console: Console) -> None:
        show.show_demo(result, console)
        if lookups is not None:
            show.show_lookups(lookups, console)
        elif skipped:
            console.print(f"\nNo private lookups: {skipped}", style="yellow")

    print_result(data, show_all)
    return FAILED if result.differing or (lookups is not None and not lookups.ok) else OK


def _run_breached(
    args: argparse.Namespace, progress: StagedProgress, print_result: PrintResult
) -> int:
    if args.file is not None or args.fetch is not None or args.lookups is not None:
        raise ValueError("--breached makes its own list: it takes no FILE, --fetch or --lookups")
    with needs_extra("client,server"):
        import morphogen.demo.breached as breached
    from morphogen.cli.show_breached import show_breached

    result = breached.run_breached_demo(
        breached.ENTRIES if args.entries is None else args.entries,
        page_size=args.page_size,
        device=args.device,
        progress=progress,
    )
    print_result(result.as_dict(), lambda console: show_breached(result, console))
    return OK if result.ok else FAILED
