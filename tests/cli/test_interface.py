"""The commands and options of the command line, as scripts use them: none goes."""

from __future__ import annotations

import argparse

import pytest

import morphogen.cli as cli

INTERFACE = {
    "morphogen": "-h/--help --version",
    "morphogen demo": "-h/--help --json FILE --fetch --page-size --lookups/--no-lookups --breached "
    "--entries --device",
    "morphogen bench": "-h/--help --json --pages --page-size --matrix-file --pages-on --layout "
    "--device --threads --instruction-set --batch-sizes --keys-per-query --iterations --warmup "
    "--seed --strategies --concurrency --phases --csv --plot",
    "morphogen serve": "-h/--help --json PAGES --party --port --page-size --keys-per-query --epoch "
    "--max-queued --max-micro-batch --max-wait --host --device --threads --tls-cert --tls-key "
    "--insecure --log-level",
    "morphogen get": "-h/--help --json PAGE --server --lookup --lookup-file -o/--output --timeout "
    "--retries --ca-file --header-file --client-cert --insecure",
    "morphogen table": "-h/--help --json",
    "morphogen table build": "-h/--help FILE --key -o/--output --value --page-size "
    "--delimiter --force --json --format --columns --sql-table --query --duplicates --value-size "
    "--proof-levels",
    "morphogen table diff": "-h/--help OLD NEW -o/--output --epoch --from-epoch --force --json",
    "morphogen table apply": "-h/--help OLD DELTA -o/--output --force --json",
    "morphogen table info": "-h/--help TABLE --json",
    "morphogen table verify": "-h/--help TABLE --json",
    "morphogen table get": "-h/--help TABLE KEY --lookup-file -o/--output --json",
    "morphogen doctor": "-h/--help --json",
}


def parsers(parser: argparse.ArgumentParser) -> dict[str, set[str]]:
    """The arguments of a command and of those below it, by the command's name."""
    found: dict[str, set[str]] = {parser.prog: set()}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                found |= parsers(below)
        else:
            name = "/".join(action.option_strings) or str(action.metavar or action.dest)
            found[parser.prog].add(name)
    return found


@pytest.mark.parametrize("command", INTERFACE)
def test_no_argument_goes(command: str) -> None:
    assert set(INTERFACE[command].split()) <= parsers(cli._parser())[command]
