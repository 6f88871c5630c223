"""The addresses of the two servers: never one server under two names, never in the clear."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from morphogen.checks import is_loopback

PARTIES = 2
_PORTS = {"http": 80, "https": 443}
_SAME_MACHINE = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """The address of one server.

    Attributes
    ----------
    url : str
        The normalised base: scheme, host, port if it is not the scheme's own, path without a
        slash at its end.
    endpoint : tuple of (str, int)
        Host and port. Two addresses that share them are one server.
    """

    url: str
    endpoint: tuple[str, int]

    @classmethod
    def parse(cls, url: str, *, insecure: bool = False) -> ServerAddress:
        """Normalise a URL and check that keys may be sent there.

        Parameters
        ----------
        url : str
            ``https://host[:port][/path]``; ``http`` only to this machine.
        insecure : bool, optional
            Allow ``http`` to other machines.

        Returns
        -------
        ServerAddress

        Raises
        ------
        ValueError
            If it is no such URL.
        """
        if not isinstance(url, str):
            raise TypeError(f"a server's URL must be a str, not {type(url).__name__}")
        try:
            parts = urlsplit(url.strip())
            port = parts.port
        except ValueError as error:
            raise ValueError(f"a server's URL is malformed: {error}") from None
        scheme = parts.scheme.lower()
        if scheme not in _PORTS:
            # Not all of it, which may hold a password.
            given = f"{scheme}://" if "://" in url else "a host"
            raise ValueError(f"a server's URL begins with https:// or http://, not with {given}")
        if parts.username is not None or parts.password is not None:
            raise ValueError("a server's URL has no user name or password in it")
        if parts.query or parts.fragment:
            raise ValueError("a server's URL has no query and no fragment")
        host = _normal_host(parts.hostname or "")
        if port is None:
            port = _PORTS[scheme]
        if scheme == "http" and not insecure and not is_loopback(host):
            raise ValueError(
                f"http:// to {host} would show both keys to whoever sees the network: use https://"
                " (insecure=True, or --insecure, sends them all the same)"
            )
        shown = f"[{host}]" if ":" in host else host
        if port != _PORTS[scheme]:
            shown = f"{shown}:{port}"
        machine = "localhost" if host in _SAME_MACHINE else host
        return cls(f"{scheme}://{shown}{parts.path.rstrip('/')}", (machine, port))


def _normal_host(host: str) -> str:
    if not host:
        raise ValueError("a server's URL names a host")
    try:
        # First of all: it turns other scripts' dots and digits into our own.
        host = host.encode("idna").decode("ascii").lower().rstrip(".")
    except UnicodeError:
        raise ValueError("a server's URL has a host name that cannot be one") from None
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        # The system would read 127.1 and 0x7f000001 as addresses.
        if not host or re.fullmatch(r"\d+|0x[0-9a-f]*", host.rpartition(".")[2]):
            raise ValueError("a server's URL has a host that is no name and no address") from None
        return host
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def two_servers(urls: Sequence[str], *, insecure: bool) -> tuple[ServerAddress, ServerAddress]:
    """Check that the URLs name two different servers.

    Parameters
    ----------
    urls : sequence of str
        Two URLs.
    insecure : bool
        Allow ``http`` to other machines.

    Returns
    -------
    tuple of (ServerAddress, ServerAddress)
        In the order of the URLs.

    Raises
    ------
    ValueError
        If there are not two, or they are one server, which would get both keys of every pair.
    """
    if isinstance(urls, str):
        raise TypeError("urls must be a sequence of two URLs, not one str")
    if len(urls) != PARTIES:
        raise ValueError(f"a client needs the URLs of {PARTIES} servers, not of {len(urls)}")
    one, other = (ServerAddress.parse(url, insecure=insecure) for url in urls)
    if one.endpoint == other.endpoint:
        raise ValueError(
            "the two URLs name one server, which would see both keys of every query: "
            f"{one.url} and {other.url}"
        )
    return one, other
