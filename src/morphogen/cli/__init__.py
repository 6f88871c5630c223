"""The command line: ``morphogen demo | bench | serve | get | table | doctor``.

Each command is a module of this package: SUMMARY describes it in a line, add_arguments declares its
arguments, and run runs it. A command imports its other modules when it runs, so that ``--help`` and
errors come at once.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import morphogen
from morphogen.cli.output import (
    BROKEN_PIPE,
    EXIT_CODES,
    INTERRUPTED,
    OK,
    USAGE,
    Show,
    print_json,
    print_text,
)
from morphogen.cli.progress_bar import ProgressBar
from morphogen.errors import MorphogenError

COMMANDS = ("demo", "bench", "serve", "get", "table", "doctor")  # in the order of --help


class _UsageError(Exception):
    pass


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        # One clear line, not the whole usage.
        raise _UsageError(f"{message} (see {self.prog} --help)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; by default those of the process.

    Returns
    -------
    int
        The exit code: 0 done, 1 an answer differed or a check failed, 2 wrong usage or bad input,
        130 interrupted.
    """
    try:
        code = _run(_parser().parse_args(argv))
        sys.stdout.flush()
    except SystemExit as stop:  # --help and --version
        return stop.code if isinstance(stop.code, int) else OK
    except KeyboardInterrupt:
        return _complain("interrupted", INTERRUPTED)
    except BrokenPipeError:
        # The reader of the output has gone. Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except OSError as error:
        reason = error.strerror or str(error)
        return _complain(f"{error.filename}: {reason}" if error.filename else reason, USAGE)
    except (
        _UsageError,
        ModuleNotFoundError,  # an extra is missing
        MorphogenError,
        ValueError,
        OverflowError,
    ) as error:
        return _complain(str(error), USAGE)
    except MemoryError as error:
        return _complain(str(error) or "out of memory", USAGE)
    return code


def _complain(message: str, code: int) -> int:
    print(f"morphogen: {message}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="morphogen",
        description="Two-server private page retrieval: a page is read, and neither server learns "
        "which.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"morphogen {morphogen.__version__}")
    commands = parser.add_subparsers(metavar="command", required=True)
    for name in COMMANDS:
        command = importlib.import_module(f"morphogen.cli.{name}")
        text: str = command.SUMMARY
        sub = commands.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            epilog=EXIT_CODES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(run=command.run)
        sub.add_argument("--json", action="store_true", help="print JSON instead of tables")
        command.add_arguments(sub)
    return parser


def _run(args: argparse.Namespace) -> int:
    bar = ProgressBar()

    def print_result(data: dict[str, Any], show: Show) -> None:
        bar.close()
        if args.json:
            print_json(data)
        else:
            print_text(show)

    try:
        code: int = args.run(args, bar.update, print_result)
    finally:
        bar.close()
    return code
