"""TLS of a server: its releases and ciphers, certificates of clients, files that are none."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from crowd import Crowd, LoggedServer, connect, many_open_files, read_to_end
from morphogen.service.tls import server_context

HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True)
class Files:
    """Certificates of a server, and of a client of another authority."""

    cert: Path
    key: Path
    ca: Path
    client_cert: Path
    client_key: Path
    client_ca: Path
    pages: Path

    @property
    def options(self) -> tuple[str, ...]:
        return ("--tls-cert", str(self.cert), "--tls-key", str(self.key))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("tls")
    paths: list[Path] = []
    for name in ("127.0.0.1", "client.example"):
        authority = trustme.CA()
        certificate = authority.issue_cert(name)
        for kind in ("cert", "key", "ca"):
            paths.append(folder / f"{name}.{kind}.pem")
        for blob in certificate.cert_chain_pems:
            blob.write_to_path(paths[-3], append=True)
        certificate.private_key_pem.write_to_path(paths[-2])
        authority.cert_pem.write_to_path(paths[-1])
    pages = folder / "pages.bin"
    pages.write_bytes(bytes(10_000))
    cert, key, ca, client_cert, client_key, client_ca = paths
    return Files(cert, key, ca, client_cert, client_key, client_ca, pages)


@pytest.fixture(scope="module")
def server(files: Files) -> Iterator[LoggedServer]:
    with LoggedServer(files.pages, (*files.options, "--head-timeout", "1")) as running:
        yield running


def client_context(files: Files) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=files.ca)


def ask(server: LoggedServer, context: ssl.SSLContext) -> bytes:
    with (
        connect(server.address) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
    ):
        secure.sendall(HEALTH)
        return read_to_end(secure)


def test_every_cipher_has_forward_secrecy_and_authenticates(files: Files) -> None:
    context = server_context(files.cert, files.key)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    ciphers = context.get_ciphers()
    assert {cipher["protocol"] for cipher in ciphers} == {"TLSv1.2", "TLSv1.3"}
    for cipher in ciphers:
        assert cipher["aead"], cipher["name"]
        assert cipher["kea"] in ("kx-ecdhe", "kx-any"), cipher["name"]  # any: of TLS 1.3
        assert cipher["auth"] != "auth-null", cipher["name"]


@pytest.mark.parametrize(
    ("version", "ciphers", "served"),
    [
        (ssl.TLSVersion.TLSv1_3, "ALL", True),
        (ssl.TLSVersion.TLSv1_2, "ECDHE+AESGCM", True),
        (ssl.TLSVersion.TLSv1_2, "ECDHE+CHACHA20", True),
        (ssl.TLSVersion.TLSv1_2, "ECDHE+AES256+SHA384:ECDHE+AES:!AESGCM:!AESCCM", False),
        (ssl.TLSVersion.TLSv1_2, "kRSA+AESGCM", False),
    ],
    ids=["1.3", "gcm", "chacha20", "cbc", "no-forward-secrecy"],
)
def test_what_a_server_speaks(
    server: LoggedServer, files: Files, version: ssl.TLSVersion, ciphers: str, served: bool
) -> None:
    context = client_context(files)
    context.minimum_version = context.maximum_version = version
    context.set_ciphers(ciphers)
    if served:
        assert ask(server, context).startswith(b"HTTP/1.1 200 ")
    else:
        with pytest.raises(ssl.SSLError):
            ask(server, context)


@pytest.mark.parametrize(("version", "spoken"), [("0302", False), ("0303", True)])
def test_a_release_before_1_2_is_not_spoken(
    server: LoggedServer, version: str, spoken: bool
) -> None:
    # Greetings of TLS 1.1, which most libraries of today cannot send, and of 1.2.
    ciphers, extensions = "0006 c013 c02b c02f", "0012 000d 0006 0004 0403 0804 000a 0004 0002 0017"
    hello = bytes.fromhex(f"{version} {bytes(32).hex()} 00 {ciphers} 01 00 {extensions}")
    hello = b"\x01" + len(hello).to_bytes(3, "big") + hello
    hello = b"\x16\x03\x01" + len(hello).to_bytes(2, "big") + hello
    with connect(server.address, hello) as client:
        assert read_to_end(client).startswith(b"\x16") == spoken  # a handshake


def test_only_clients_of_the_authority_are_served(files: Files) -> None:
    options = (*files.options, "--tls-client-ca", str(files.client_ca))
    with LoggedServer(files.pages, options) as server:
        context = client_context(files)
        assert not ask_or_fail(server, context)
        context.load_cert_chain(files.cert, files.key)  # of another authority
        assert not ask_or_fail(server, context)
        context = client_context(files)
        context.load_cert_chain(files.client_cert, files.client_key)
        assert ask_or_fail(server, context).startswith(b"HTTP/1.1 200 ")
        server.stop()
        assert [event["event"] for event in server.events] == ["started", "request", "stopped"]


def ask_or_fail(server: LoggedServer, context: ssl.SSLContext) -> bytes:
    try:
        return ask(server, context)
    except (ssl.SSLError, ConnectionError):
        return b""


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01\x02\x00", b"GET / HTTP/1.1\r\n\r\n"])
def test_connections_that_do_not_finish_tls_are_counted_and_end(
    server: LoggedServer, files: Files, sent: bytes
) -> None:
    with many_open_files(), Crowd(server.address, 600, sent) as crowd:
        assert ask(server, client_context(files)).startswith(b"HTTP/1.1 200 ")
        for connection in crowd.sockets:
            read_to_end(connection)
    assert {event["event"] for event in server.events} <= {"started", "request", "cut_off"}


def test_a_large_answer_over_tls_comes_whole(files: Files, tmp_path: Path) -> None:
    with LoggedServer(files.pages, files.options) as server:
        context = client_context(files)
        with (
            connect(server.address) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
        ):
            request = b"GET /schema/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
            secure.sendall(request * 500 + HEALTH)
            whole = read_to_end(secure)
        assert whole.count(b"HTTP/1.1 200 ") == 501
        assert whole.endswith(b'{"live":true,"ready":true}')


def test_an_authority_that_is_none_is_named(files: Files) -> None:
    with pytest.raises(ValueError, match=f"^{files.key} is no certificate in PEM"):
        server_context(files.cert, files.key, files.key)
