"""Whose request it is: the address of the connection, or that which a trusted proxy tells."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, cast

from litestar.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from morphogen.service.logs import log

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NOBODY = "unknown"  # all that have no address
_FORWARDING = frozenset({b"x-forwarded-for", b"forwarded"})
_UNTRUSTED = (
    "a request was passed on by a proxy that is not trusted: all of its clients have one address's "
    "share of the queue. --trusted-proxies names those to be believed. This is told once"
)


def client_network(host: str) -> str:
    """The part of an address that belongs to one client.

    Parameters
    ----------
    host : str
        An IP address.

    Returns
    -------
    str
        Of IPv6 the first 64 bits, since a client may use any address that begins so.

    Raises
    ------
    ValueError
        If it is no address.
    """
    address = _parse(host)
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    return str(ipaddress.ip_network((address, 64), strict=False))


def client_of(scope: Scope) -> str:
    """Whose share of the queue a request waits in.

    Parameters
    ----------
    scope : dict
        Of the request.

    Returns
    -------
    str
        From `client_network`.
    """
    client = scope.get("client")
    try:
        return client_network(client[0] if client else "")
    except ValueError:  # a proxy may pass on what a client wrote
        return _NOBODY


class Proxies:
    """Proxies whose ``X-Forwarded-For`` is believed.

    Parameters
    ----------
    trusted : iterable of str
        Their addresses or networks: "192.0.2.7", "10.0.0.0/8".

    Raises
    ------
    ValueError
        If one is neither.
    """

    def __init__(self, trusted: Iterable[str]) -> None:
        self._networks = tuple(map(_parse_network, trusted))

    def __contains__(self, host: str) -> bool:
        address = _parse(host)
        return any(address in network for network in self._networks)

    def _trust(self, client: tuple[str, int] | None) -> bool:
        with suppress(ValueError):  # a program's own server may say anything
            return client is not None and client[0] in self
        return False

    def before(self, app: ASGIApp) -> ASGIApp:
        """Stand before an application: a request that a proxy passes on is its client's.

        Parameters
        ----------
        app : ASGI application

        Returns
        -------
        ASGI application
        """
        inner = app
        if self._networks:
            inner = cast(Any, ProxyHeadersMiddleware)(app, list(map(str, self._networks)))
        warned = False

        async def passed_on(scope: Scope, receive: Receive, send: Send) -> None:
            nonlocal warned
            client = scope.get("client")
            if not warned and _is_forwarded(scope) and not self._trust(client):
                warned = True
                log("untrusted_proxy", logging.WARNING, message=_UNTRUSTED)
            if client and self._networks:
                # A socket of IPv6 writes addresses of IPv4 in its own way.
                scope["client"] = (str(_parse(client[0])), client[1])
            await inner(scope, receive, send)

        return passed_on


def _is_forwarded(scope: Scope) -> bool:
    return any(name in _FORWARDING for name, _ in scope.get("headers", ()))


def _parse(host: str) -> _Address:
    address = ipaddress.ip_address(host.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address


def _parse_network(text: str) -> _Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        raise ValueError(
            f"a trusted proxy must be an address or a network, such as 10.0.0.0/8, not {text!r}"
        ) from None
