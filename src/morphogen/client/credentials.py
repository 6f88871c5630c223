"""What each server is shown beside messages, and how it is trusted: to each server its own."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import certifi

from morphogen.checks import named_path
from morphogen.client.addresses import PARTIES, ServerAddress
from morphogen.wire.certificates import check_certificates, load_certificate

StrPath: TypeAlias = str | os.PathLike[str]
Headers: TypeAlias = Sequence[Mapping[str, str] | None] | None
Certificates: TypeAlias = Sequence[StrPath | tuple[StrPath, StrPath] | None] | None
Authorities: TypeAlias = StrPath | Sequence[StrPath | None] | None

T = TypeVar("T")
# Those of the messages themselves.
_RESERVED = frozenset(
    {
        "accept",
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_NAME = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]{1,256}")  # a token of RFC 9110
_VALUE = re.compile(r"(?:[!-~](?:[\t -~]*[!-~])?)?")


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """What one server is shown, and how it is trusted. It is never logged, and not in a repr.

    Attributes
    ----------
    headers : tuple of (str, str)
        Of each message.
    context : ssl.SSLContext or None
        For https.
    """

    headers: tuple[tuple[str, str], ...]
    context: ssl.SSLContext | None


def make_credentials(
    addresses: Sequence[ServerAddress],
    headers: Headers,
    certificates: Certificates,
    ca_file: Authorities,
) -> list[Credentials]:
    """Read the credentials of each server.

    Parameters
    ----------
    addresses : sequence of ServerAddress
        The servers.
    headers, certificates, ca_file
        As for `AsyncClient`.

    Returns
    -------
    list of Credentials
        In the order of the servers.

    Raises
    ------
    TypeError, ValueError
        If one has the wrong form, or a file does not hold what it should.
    OSError
        If a file cannot be read.
    """
    if ca_file is None or isinstance(ca_file, (str, os.PathLike)):
        # One file is for those of the servers that have a certificate to check.
        secure = [address.url.startswith("https:") for address in addresses]
        ca_file = [ca_file if one or not any(secure) else None for one in secure]
    each = zip(
        addresses,
        _for_each("headers", headers, _check_headers),
        _for_each("certificates", certificates, _check_certificate),
        _for_each("ca_file", ca_file, partial(named_path, "ca_file")),
        strict=True,
    )
    made = []
    for address, shown, certificate, authorities in each:
        context = None
        if address.url.startswith("https:"):
            context = tls_context(authorities, certificate)
        elif certificate:
            raise ValueError(
                f"a certificate is shown to a server by https only, not by {address.url}"
            )
        elif authorities:
            raise ValueError(
                f"the authorities of {authorities} can be asked about a server by https only, not "
                f"about {address.url}"
            )
        made.append(Credentials(shown or (), context))
    return made


def tls_context(
    ca_file: Path | None = None, certificate: tuple[Path, Path] | None = None
) -> ssl.SSLContext:
    """The rules by which a server is trusted, and the certificate that it is shown.

    Parameters
    ----------
    ca_file : pathlib.Path, optional
        Certificates of authorities, PEM, instead of the usual ones.
    certificate : tuple of (pathlib.Path, pathlib.Path), optional
        The client's certificate and its private key, PEM.

    Returns
    -------
    ssl.SSLContext

    Raises
    ------
    OSError, ValueError
        If a file cannot be read, or does not hold what it should. The error names the file.
    """
    if ca_file is not None:
        check_certificates(ca_file)
    context = ssl.create_default_context(cafile=ca_file or certifi.where())
    # The environment could ask for the secrets of both connections to be logged in one file.
    context.keylog_filename = None  # type: ignore[assignment]
    context.set_alpn_protocols(["http/1.1"])
    if certificate is not None:
        load_certificate(context, *certificate)
    return context


def _for_each(name: str, given: Sequence[Any] | None, check: Callable[[Any], T]) -> list[T | None]:
    """What is given for each server, in the order of the URLs."""
    if given is None:
        return [None] * PARTIES
    if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Sequence):
        # One for both would show each operator what the other's proxy takes.
        raise TypeError(
            f"{name} must be a sequence of {PARTIES}, one for each server, not "
            f"{type(given).__name__}"
        )
    if len(given) != PARTIES:
        raise ValueError(
            f"{name} must have {PARTIES} members, one for each server, not {len(given)}"
        )
    return [None if one is None else check(one) for one in given]


def _check_headers(headers: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    if not isinstance(headers, Mapping):
        raise TypeError(f"a server's headers must be a mapping, not {type(headers).__name__}")
    for name, value in headers.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError("a header's name and its value must be str")
        if not _NAME.fullmatch(name):
            # Not the name: it may be a whole line, secret included.
            raise ValueError("a header's name must be letters, digits and hyphens")
        if name.lower() in _RESERVED:
            raise ValueError(f"the header {name} is the message's own")
        if not _VALUE.fullmatch(value):
            raise ValueError(
                f"the value of the header {name} must be printable ASCII, without spaces around it"
            )
    return tuple(headers.items())


def _check_certificate(given: StrPath | tuple[StrPath, StrPath]) -> tuple[Path, Path]:
    if isinstance(given, (str, os.PathLike)):
        given = (given, given)
    if not isinstance(given, tuple) or len(given) != 2:
        raise TypeError(
            "a certificate must be a path, or a tuple of the paths of it and of its key, not "
            f"{type(given).__name__}"
        )
    return named_path("certificates", given[0]), named_path("certificates", given[1])
