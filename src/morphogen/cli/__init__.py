"""The command line: ``morphogen demo | bench | serve | get | table | tune | doctor``.

Each command is a module of this package: SUMMARY describes it in a line, add_arguments declares its
arguments, and run runs it. A command imports its other modules when it runs, so that ``--help`` and
errors come at once.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import morphogen
from morphogen.cli import streams
from morphogen.cli.output import (
    BROKEN_PIPE,
    EXIT_CODES,
    FAILED,
    INTERRUPTED,
    OK,
    USAGE,
    Show,
    print_help,
    print_json,
    print_text,
)
from morphogen.cli.progress_bar import ProgressBar
from morphogen.cli.signals import EndedBySignal, cleaning_up
from morphogen.errors import IntegrityError, MorphogenError

COMMANDS = ("demo", "bench", "serve", "get", "table", "tune", "doctor")  # in the order of --help
_NO_THREAD = "can't start new thread"  # what CPython says, in a RuntimeError


class _UsageError(Exception):
    pass


class _Parser(argparse.ArgumentParser):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.register("type", Path, _path)

    def error(self, message: str) -> NoReturn:
        # One clear line, not the whole usage.
        raise _UsageError(f"{message} (see {self.prog} --help)")

    def _print_message(self, message: str, file: object = None) -> None:
        # The help, or the version. argparse would say nothing of an output that fails.
        streams.write(message)


def _path(text: str) -> Path:
    """A path that an argument names. An empty one is a mistake, not the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("must name a file, not ''")
    return Path(text)


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
        3 a key is not in the table, 130 interrupted, 141 done but the reader of the output went
        away.
    """
    streams.prepare()
    code = _outcome(argv)
    try:
        streams.finish()
    except OSError as lost:
        code = _tell_lost(lost, code)
    return code


def _outcome(argv: Sequence[str] | None) -> int:
    """Run a command, and turn its errors into a line and an exit code."""
    try:
        with cleaning_up():
            return _run(_parser().parse_args(argv))
    except SystemExit as stop:  # --help and --version
        return stop.code if isinstance(stop.code, int) else OK
    except EndedBySignal as end:
        return _complain(str(end), end.exit_code)
    except KeyboardInterrupt:
        return _complain("interrupted", INTERRUPTED)
    except BrokenPipeError:
        return BROKEN_PIPE
    except OSError as error:
        return _complain(_describe(error), USAGE)
    except IntegrityError as error:
        return _complain(str(error), FAILED)
    except (
        _UsageError,
        ImportError,  # an extra is missing, or a library of it cannot be loaded
        MorphogenError,
        ValueError,
        OverflowError,
    ) as error:
        return _complain(str(error), USAGE)
    except MemoryError as error:
        return _complain(str(error) or "out of memory", USAGE)
    except RuntimeError as error:
        if str(error) != _NO_THREAD:
            raise
        return _complain(
            "the system starts no more threads: memory or threads are at their limit", USAGE
        )


def _complain(message: str, code: int) -> int:
    streams.complain(message)
    return code


def _tell_lost(lost: OSError, code: int) -> int:
    """The exit code of a command whose output was lost: its own, if that says more than "done"."""
    if isinstance(lost, BrokenPipeError):
        return code or BROKEN_PIPE
    return _complain(_describe(lost), code or USAGE)


def _describe(error: OSError) -> str:
    reason = error.strerror or str(error)
    return f"{error.filename}: {reason}" if error.filename else reason


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="morphogen",
        description="Two-server private page retrieval: a page is read, and neither server learns "
        "which.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"morphogen {morphogen.__version__}")
    parser.set_defaults(run=lambda *_: print_help(parser))
    commands = parser.add_subparsers(metavar="command")
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
    lost: list[OSError] = []

    def print_result(data: dict[str, Any], show: Show) -> None:
        bar.close()
        try:
            if args.json:
                print_json(data)
            else:
                print_text(show)
        except OSError as error:  # the rest of the work is done, and its outcome told, all the same
            lost.append(error)

    try:
        code: int = args.run(args, bar.update, print_result)
    finally:
        bar.close()
    return _tell_lost(lost[0], code) if lost else code
