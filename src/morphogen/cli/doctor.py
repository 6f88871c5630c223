"""``morphogen doctor``."""

from __future__ import annotations

import argparse

from morphogen.cli.output import FAILED, OK, PrintResult
from morphogen.progress import StagedProgress

SUMMARY = "say what engine and instruction set will be used, why, and test them"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add nothing: the command takes no arguments."""


def run(args: argparse.Namespace, progress: StagedProgress, print_result: PrintResult) -> int:
    """Examine this installation, print the findings, and say whether all checks passed."""
    import morphogen.cli.show as show
    from morphogen.cli.diagnosis import examine

    diagnosis = examine()
    print_result(diagnosis.as_dict(), lambda console: show.show_diagnosis(diagnosis, console))
    return OK if diagnosis.ok else FAILED
