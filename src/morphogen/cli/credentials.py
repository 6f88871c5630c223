"""What each server is shown, and how it is trusted, from the command line.

Headers come from a file: everybody on a machine sees the arguments of its programs.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from morphogen.cli.lookup import read_input
from morphogen.cli.streams import input_file


def add_credential_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for headers, certificates and authorities."""
    each = "give it once for each server, in their order ('' for a server without)"
    parser.add_argument(
        "--ca-file",
        action="append",
        metavar="FILE",
        help="certificates of authorities to trust, PEM; once for both servers, or once for each "
        "('' for a server that the usual ones vouch for)",
    )
    parser.add_argument(
        "--header-file",
        action="append",
        metavar="FILE",
        help=f"HTTP headers that the proxy before a server asks for, NAME: VALUE in a line; {each}",
    )
    parser.add_argument(
        "--client-cert",
        action="append",
        metavar="FILE",
        help=f"the client's certificate and its private key, PEM; {each}",
    )


def read_credentials(args: argparse.Namespace) -> dict[str, Any]:
    """Take the options of `add_credential_options`.

    Parameters
    ----------
    args : argparse.Namespace

    Returns
    -------
    dict
        Arguments of `morphogen.Client`.

    Raises
    ------
    OSError, ValueError
        If a file cannot be read, or has something other than headers. The error names it, and
        repeats nothing. Or if no file of authorities is named.
    """
    authorities: list[str] | None = args.ca_file
    headers: list[str] | None = args.header_file
    certificates: list[str] | None = args.client_cert
    if authorities is not None:
        if not any(authorities):  # the usual ones are trusted where none are named
            raise ValueError("--ca-file must name a file, not ''")
        if len(authorities) == 1:
            authorities = authorities * 2
    return {
        "ca_file": authorities and [_file(path) for path in authorities],
        "headers": headers and [_read_headers(Path(path)) if path else None for path in headers],
        "certificates": certificates and [_file(path) for path in certificates],
    }


def _file(path: str) -> Path | None:
    return input_file(Path(path)) if path else None


def _read_headers(path: Path) -> dict[str, str]:
    headers: dict[str, str] = {}
    for number, line in enumerate(read_input(path).decode("latin-1").split("\n"), 1):
        if not line.strip():
            continue
        name, colon, value = line.partition(":")
        if not colon or name in headers:
            raise ValueError(f"{path}, line {number}: a header is NAME: VALUE, each name once")
        headers[name] = value.strip()
    return headers
