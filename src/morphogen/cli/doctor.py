"""``morphogen doctor``."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING

from morphogen.cli.output import FAILED, OK, PrintResult
from morphogen.progress import StagedProgress

if TYPE_CHECKING:
    from rich.console import Console

SUMMARY = "say what engine and instruction set will be used, why, and test them"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "--metrics",
        metavar="URL",
        help="of the metrics of a server that runs, such as http://127.0.0.1:9000/metrics: say, "
        "too, how its shards are",
    )


def run(args: argparse.Namespace, progress: StagedProgress, print_result: PrintResult) -> int:
    """Examine this installation, print the findings, and say whether all checks passed."""
    import morphogen.cli.show as show
    from morphogen.cli.diagnosis import examine

    served = None
    if args.metrics is not None:
        from morphogen.cli.served_shards import read_shards

        served = read_shards(args.metrics)
    diagnosis = examine()
    data = diagnosis.as_dict()
    if served is not None:
        data["shards"] = [{**asdict(one), "ok": one.ok} for one in served]
        data["ok"] = diagnosis.ok and all(one.ok for one in served)

    def shown(console: Console) -> None:
        show.show_diagnosis(diagnosis, console)
        if served is not None:
            show.show_shards(served, console)

    print_result(data, shown)
    return OK if data["ok"] else FAILED
