"""The command line: ``morphogen demo | bench | serve | get | table | doctor``.

What a command needs is imported when it runs, so that ``--help`` and errors come at once.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, NoReturn

import morphogen
from morphogen.cli.arguments import Print, Progress, add_device, int_list
from morphogen.errors import MorphogenError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichProgress

OK, FAILED, USAGE, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 130, 141
_EPILOG = """\
exit codes:
  0    done, and every answer was right
  1    an answer differed, or a check failed
  2    wrong usage or bad input, with the reason on stderr
  130  interrupted
"""
_PLAIN_WIDTH = 100
_SILENT_SECONDS = 2.0


class _UsageError(Exception):
    pass


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        # One clear line instead of the whole usage.
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
        args = _parser().parse_args(argv)
        code: int = args.command(args)
        sys.stdout.flush()
    except SystemExit as stop:  # --help and --version
        return stop.code if isinstance(stop.code, int) else OK
    except KeyboardInterrupt:
        return _complain("interrupted", INTERRUPTED)
    except BrokenPipeError:
        # Whoever read the output has gone. Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except OSError as error:
        reason = error.strerror or str(error)
        return _complain(f"{error.filename}: {reason}" if error.filename else reason, USAGE)
    except (_UsageError, MorphogenError, ValueError, OverflowError) as error:
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
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"morphogen {morphogen.__version__}")
    commands = parser.add_subparsers(metavar="command", required=True)

    def add(name: str, command: Callable[[argparse.Namespace], int], text: str) -> _Parser:
        sub = commands.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            epilog=_EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(command=command)
        sub.add_argument("--json", action="store_true", help="print JSON instead of tables")
        return sub

    demo = add("demo", _demo, "fetch pages of a file privately, several ways, and compare them")
    demo.add_argument(
        "file", nargs="?", metavar="FILE", help="default: a large file of the Python installation"
    )
    demo.add_argument(
        "--fetch",
        type=int_list,
        metavar="0,7,...",
        help="pages to fetch, 3 a query (default: 24 spread over the file)",
    )
    demo.add_argument("--page-size", type=int, default=4096, metavar="BYTES", help="default: 4096")
    demo.add_argument(
        "--lookups",
        action=argparse.BooleanOptionalAction,
        help="also start two servers and look keys up (default: where no FILE is given)",
    )
    add_device(demo, "auto")

    for name, module, run, text in (
        ("bench", "bench", _bench, "compare the batch with the single-query loop and a read"),
        ("serve", "serve", _serve, "serve a table's pages as one of the two servers"),
        ("get", "get", _get, "read pages, or look keys up, from two servers privately"),
        ("table", "table", _table, "build a keyword table from a CSV file"),
    ):
        importlib.import_module(f"morphogen.cli.{module}").add_arguments(add(name, run, text))

    add("doctor", _doctor, "say what engine and instruction set will be used, why, and test them")
    return parser


def _demo(args: argparse.Namespace) -> int:
    import morphogen.cli.show as tables
    import morphogen.demo as demo

    with_lookups = args.file is None if args.lookups is None else args.lookups
    lookups = None
    bar = _Bar()
    try:
        result = demo.run_demo(
            args.file,
            page_size=args.page_size,
            indices=args.fetch,
            device=args.device,
            progress=bar.update,
            upload=bar.upload,
        )
        if with_lookups:
            try:
                import morphogen.demo.lookup as demo_lookup
            except ModuleNotFoundError as missing:
                without = _needs_extra(missing, "client,server")
                if args.lookups:
                    raise _UsageError(without) from None
            else:
                lookups = demo_lookup.run_lookup_demo(
                    lambda done, total: bar.update(done, total, "looking up"), device=args.device
                )
    finally:
        bar.close()
    data = result.as_dict()
    if with_lookups:
        data["lookups"] = {"skipped": without} if lookups is None else lookups.as_dict()

    def show(console: Console) -> None:
        tables.show_demo(result, console)
        if lookups is not None:
            tables.show_lookups(lookups, console)
        elif with_lookups:
            console.print(f"\nNo private lookups: {without}", style="yellow")

    _print(args, data, show)
    return FAILED if result.differing or (lookups is not None and not lookups.ok) else OK


def _needs_extra(missing: ModuleNotFoundError, extra: str) -> str:
    return f"{missing.name} is not installed: pip install 'morphogen[{extra}]'"


def _bench(args: argparse.Namespace) -> int:
    import morphogen.cli.bench as cli_bench

    return _with_bar(args, cli_bench.run)


def _doctor(args: argparse.Namespace) -> int:
    import morphogen.cli.doctor as doctor
    import morphogen.cli.show as tables

    diagnosis = doctor.examine()
    _print(args, diagnosis.as_dict(), lambda console: tables.show_diagnosis(diagnosis, console))
    return OK if diagnosis.ok else FAILED


def _serve(args: argparse.Namespace) -> int:
    import morphogen.cli.serve as cli_serve

    bar = _Bar()
    try:
        return cli_serve.run(args, lambda done, total: bar.update(done, total, "reading"))
    except ModuleNotFoundError as missing:
        raise _UsageError(_needs_extra(missing, "server")) from None
    finally:
        bar.close()


def _get(args: argparse.Namespace) -> int:
    import morphogen.cli.get as cli_get

    return _with_bar(args, lambda args, bar, show: cli_get.run(args, _working(bar), show))


def _table(args: argparse.Namespace) -> int:
    import morphogen.cli.table as cli_table

    return _with_bar(args, lambda args, bar, show: cli_table.run(args, _working(bar), show))


def _working(bar: Progress) -> Callable[[int, int], None]:
    return lambda done, total: bar(done, total, "working")


def _with_bar(
    args: argparse.Namespace, run: Callable[[argparse.Namespace, Progress, Print], int]
) -> int:
    bar = _Bar()

    def show(data: dict[str, Any], text: Callable[[Console], None]) -> None:
        bar.close()
        _print(args, data, text)

    try:
        return run(args, bar.update, show)
    except ModuleNotFoundError as missing:
        extra = "plot" if missing.name == "matplotlib" else "client"
        raise _UsageError(_needs_extra(missing, extra)) from None
    finally:
        bar.close()


def _print(args: argparse.Namespace, data: dict[str, Any], show: Callable[[Console], None]) -> None:
    if args.json:
        print(json.dumps(data, indent=2))
        return
    from rich.console import Console

    # Names of files and words of pages are printed: they must not be read as markup.
    console = Console(
        markup=False,
        highlight=False,
        emoji=False,
        width=None if sys.stdout.isatty() else _PLAIN_WIDTH,
    )
    # Captured, because rich turns a broken pipe into exit code 1, which means something else here.
    with console.capture() as captured:
        show(console)
    sys.stdout.write(captured.get())


class _Bar:
    """A progress bar on a terminal, once there has been something to wait for."""

    def __init__(self) -> None:
        self._started = monotonic()
        self._progress: RichProgress | None = None

    def upload(self, done: int, total: int) -> None:
        """Pages go to a GPU: done and total are bytes."""
        self.update(done, total, "uploading")

    def update(self, done: int, total: int, what: str = "measuring") -> None:
        if self._progress is None:
            if not sys.stderr.isatty() or monotonic() - self._started < _SILENT_SECONDS:
                return
            from rich.console import Console
            from rich.progress import Progress as RichProgress

            # auto_refresh would draw from a thread of its own while something is being timed.
            self._progress = RichProgress(
                console=Console(stderr=True), transient=True, auto_refresh=False
            )
            self._progress.start()
            self._progress.add_task(what)
        task = self._progress.task_ids[0]
        self._progress.update(task, description=what, total=total, completed=done, refresh=True)

    def close(self) -> None:
        if self._progress is not None:
            self._progress.stop()
