"""The addresses of the two servers: never one server under two names, never in the clear."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

import idna

from morphogen.checks import check_range, is_loopback

PARTIES = 2
MAX_URL = 8000  # characters: as many as every server has to read (RFC 9110, 4.1)
_MAX_HOST = 253
_PORTS = {"http": 80, "https": 443}
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
# The system would read 127.1 and 0x7f000001 as addresses.
_NUMBER = re.compile(r"\d+|0x[0-9a-f]*")
_BRACKETS = re.compile(r"\[[^\[\]]*\](?::.*)?")
_NOT_PRINTABLE = re.compile(r"[\x00-\x20\x7f-\xa0\u2028\u2029\ud800-\udfff\\]")
# Everything that a path may have (RFC 3986), and the sign of what was quoted already.
_PATH = "/:@!$&'()*+,;=-._~%"


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """The address of one server.

    Attributes
    ----------
    scheme : str
        "http" or "https".
    host : str
        A name in ASCII, or an address without brackets.
    port : int
    path : str
        Without a slash at its end.
    """

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """Host and port as a URL has them, the port if it is not the scheme's own."""
        shown = f"[{self.host}]" if ":" in self.host else self.host
        return shown if self.port == _PORTS[self.scheme] else f"{shown}:{self.port}"

    @property
    def url(self) -> str:
        """The normalised base."""
        return f"{self.scheme}://{self.authority}{self.path}"

    @property
    def endpoint(self) -> tuple[str, int]:
        """Machine and port. Two addresses that share them are one server."""
        return ("localhost" if is_loopback(self.host) else self.host, self.port)

    @property
    def is_name(self) -> bool:
        """Whether the host is a name, which may have several addresses."""
        return ":" not in self.host and not _NUMBER.fullmatch(self.host.rpartition(".")[2])

    @classmethod
    def parse(cls, url: str, *, insecure: bool = False) -> ServerAddress:
        """Normalise a URL and check that keys may be sent there.

        Parameters
        ----------
        url : str
            ``https://host[:port][/path]``; ``http`` only to this machine. An international host is
            encoded as browsers do: by UTS 46 without transition, with the rules of IDNA 2008.
        insecure : bool, optional
            Allow ``http`` to other machines.

        Returns
        -------
        ServerAddress

        Raises
        ------
        ValueError
            If it is no such URL. The message has nothing of what may be a password.
        """
        if not isinstance(url, str):
            raise TypeError(f"a server's URL must be a str, not {type(url).__name__}")
        if len(url) > MAX_URL:
            raise ValueError(
                f"a server's URL may have {MAX_URL} characters at most, not {len(url)}"
            )
        url = url.strip()
        if _NOT_PRINTABLE.search(url):
            raise ValueError("a server's URL has no spaces, backslashes or control characters")
        try:
            parts = urlsplit(url)
        except ValueError:  # its text quotes the URL
            raise ValueError("a server's URL is malformed") from None
        scheme = parts.scheme.lower()
        if scheme not in _PORTS:
            # Not all of it, which may hold a password.
            given = f"{scheme[:16]}://" if "://" in url else "a host"
            raise ValueError(f"a server's URL begins with https:// or http://, not with {given}")
        if "@" in parts.netloc:
            raise ValueError("a server's URL has no user name or password in it")
        if "?" in url or "#" in url:
            raise ValueError("a server's URL has no query and no fragment")
        try:
            port = parts.port
        except ValueError:
            raise ValueError("a server's URL has a malformed port") from None
        if port is None:
            port = _PORTS[scheme]
        check_range("the port of a server's URL", port, 1, 65535)
        host = _normal_host(parts.netloc, parts.hostname or "")
        if scheme == "http" and not insecure and not is_loopback(host):
            raise ValueError(
                f"http:// to {host} would show both keys to whoever sees the network: use https://"
                " (insecure=True, or --insecure, sends them all the same)"
            )
        return cls(scheme, host, port, quote(parts.path.rstrip("/"), safe=_PATH))


def _normal_host(authority: str, given: str) -> str:
    bracketed = "[" in authority
    if bracketed and not _BRACKETS.fullmatch(authority):
        raise ValueError("a server's URL has brackets, but not around its host")
    if not given:
        raise ValueError("a server's URL names a host")
    host = given if bracketed else _ascii_host(given)
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        if bracketed or not _HOST.fullmatch(host) or len(host) > _MAX_HOST:
            raise ValueError("a server's URL has a host name that cannot be one") from None
        if _NUMBER.fullmatch(host.rpartition(".")[2]):
            raise ValueError("a server's URL has a host that is no name and no address") from None
        return host
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            raise ValueError("a server's URL has no zone (%...) in its IPv6 address")
        address = address.ipv4_mapped or address
    if address.is_unspecified or address.is_multicast:
        raise ValueError(f"a server's URL names one machine, which {address} does not")
    return str(address)


def _ascii_host(host: str) -> str:
    """A host as it is looked up. It turns other scripts' dots and digits into our own."""
    if not host.isascii() and len(host) <= _MAX_HOST:
        try:
            host = idna.encode(host, uts46=True, transitional=False).decode("ascii")
        except UnicodeError:
            raise ValueError(
                "a server's URL has an international host name that IDNA 2008 does not allow"
            ) from None
    return host.lower().removesuffix(".")


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
    TypeError
        If they are no sequence.
    ValueError
        If there are not two, or they are one server, which would get both keys of every pair.
    """
    if isinstance(urls, str):
        raise TypeError("urls must be a sequence of two URLs, not one str")
    if not isinstance(urls, Sequence):
        raise TypeError(f"urls must be a sequence of two URLs, not {type(urls).__name__}")
    if len(urls) != PARTIES:
        raise ValueError(f"a client needs the URLs of {PARTIES} servers, not of {len(urls)}")
    one, other = (ServerAddress.parse(url, insecure=insecure) for url in urls)
    if one.endpoint == other.endpoint:
        raise ValueError(
            "the two URLs name one server, which would see both keys of every query: "
            f"{one.url} and {other.url}"
        )
    return one, other
