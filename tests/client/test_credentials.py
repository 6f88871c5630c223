"""Each server is shown its own headers and certificate, which nobody else ever sees."""

from __future__ import annotations

import asyncio
import logging
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from fake_server import PATIENCE, client, two_servers
from morphogen.client import AsyncClient, Client
from morphogen.errors import MorphogenError, ServerError
from server_faults import instead, problem

URLS = ["https://one.example", "https://two.example"]
SECRET = "s3cr3t"


def test_each_server_gets_its_own_headers() -> None:
    headers = [{"Authorization": f"Bearer {SECRET}"}, {"X-Key": "other", "Cookie": "a=1; b=2"}]
    with two_servers() as servers, client(servers, headers=headers) as reader:
        reader.get([4])
        for server, own in zip(servers, headers, strict=True):
            for seen in server.seen:
                names = {name.lower() for name, _ in seen.headers}
                assert own.items() <= dict(seen.headers).items()
                usual = {"host", "accept", "accept-encoding", "content-type", "content-length"}
                assert names - {name.lower() for name in own} <= usual


def test_one_server_may_have_headers_and_the_other_none() -> None:
    with two_servers() as servers, client(servers, headers=[None, {"X-Key": SECRET}]) as reader:
        reader.get([4])
        assert SECRET not in repr(servers[0].seen)
        assert SECRET in repr(servers[1].seen)


def test_headers_do_not_follow_a_redirect() -> None:
    with two_servers() as servers, client(servers, headers=[{"X-Key": SECRET}, None]) as reader:
        moved = problem(307, Location=servers[1].url)
        servers[0].then(instead(moved))
        with pytest.raises(ServerError, match="redirects are not followed"):
            reader.get([4])
        assert SECRET not in repr(servers[1].seen)


def test_credentials_are_not_said_or_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def fail(urls: list[str]) -> str:
        asyncio.get_running_loop().set_debug(True)
        headers = [{"X-Key": SECRET}, {"X-Key": SECRET}]
        async with AsyncClient(urls, headers=headers, timeout=PATIENCE, retries=0) as reader:
            with pytest.raises(MorphogenError) as failure:
                await reader.get([4])
            return f"{failure.value!r} {reader!r} {reader!s} {vars(reader)!r}"

    with two_servers() as servers:
        servers[0].then(instead(problem(401, SECRET)))
        said = asyncio.run(fail([server.url for server in servers]))
    assert "401 Unauthorized" in said
    assert SECRET not in said + caplog.text


@pytest.mark.parametrize(
    ("headers", "error", "message"),
    [
        ({"X-Key": SECRET}, TypeError, "a sequence of 2, one for each server, not dict"),
        (f"X-Key: {SECRET}", TypeError, "a sequence of 2, one for each server, not str"),
        ([{"X-Key": SECRET}], ValueError, "must have 2 members, one for each server, not 1"),
        ([f"X-Key: {SECRET}", None], TypeError, "must be a mapping, not str"),
        ([{"X-Key": SECRET.encode()}, None], TypeError, "must be str"),
        ([{f"X-Key: {SECRET}": ""}, None], ValueError, "letters, digits and hyphens"),
        ([{"": SECRET}, None], ValueError, "letters, digits and hyphens"),
        ([{"X-Key": f"{SECRET}\r\nX-Other: 1"}, None], ValueError, "X-Key must be printable ASCII"),
        ([{"X-Key": f"{SECRET}\n"}, None], ValueError, "X-Key must be printable ASCII"),
        ([{"X-Key": f" {SECRET}"}, None], ValueError, "without spaces around it"),
        ([{"X-Key": f"{SECRET}\xe9"}, None], ValueError, "X-Key must be printable ASCII"),
        ([{"Content-Length": SECRET}, None], ValueError, "Content-Length is the message's own"),
        ([{"HOST": SECRET}, None], ValueError, "HOST is the message's own"),
        ([{"transfer-encoding": SECRET}, None], ValueError, "is the message's own"),
    ],
)
def test_headers_are_checked_and_not_repeated(
    headers: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as refused:
        Client(URLS, headers=headers)
    assert SECRET not in str(refused.value)


class Pem:
    """The files of an authority, and of a certificate that it issued."""

    def __init__(self, folder: Path, name: str) -> None:
        self.authority = trustme.CA()
        self.issued = self.authority.issue_cert("127.0.0.1")
        self.ca_file = folder / f"{name}-ca.pem"
        self.authority.cert_pem.write_to_path(str(self.ca_file))
        self.both = folder / f"{name}.pem"
        self.issued.private_key_and_cert_chain_pem.write_to_path(str(self.both))
        self.certificate, self.key = folder / f"{name}-cert.pem", folder / f"{name}-key.pem"
        self.issued.cert_chain_pems[0].write_to_path(str(self.certificate))
        self.issued.private_key_pem.write_to_path(str(self.key))

    def server_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.issued.configure_cert(context)
        return context


@pytest.fixture
def ours(tmp_path: Path) -> Pem:
    return Pem(tmp_path, "ours")


@pytest.fixture
def theirs(tmp_path: Path) -> Pem:
    return Pem(tmp_path, "theirs")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=str)
def test_a_server_that_asks_for_a_certificate_gets_it(
    version: ssl.TLSVersion, ours: Pem, theirs: Pem
) -> None:
    # By TLS 1.3 a server refuses when the client has sent its request. The end of the connection
    # may then overtake the reason.
    unsaid = "|connection lost" if version == ssl.TLSVersion.TLSv1_3 else ""
    context = ours.server_context()
    context.maximum_version = version
    context.verify_mode = ssl.CERT_REQUIRED
    theirs.authority.configure_trust(context)
    with two_servers(tls=context) as servers:
        for taken in (theirs.both, (theirs.certificate, theirs.key)):
            with client(servers, ca_file=ours.ca_file, certificates=[taken] * 2) as reader:
                assert (reader.get([4]) == servers[0].table[[4]]).all()
        for shown, message in (
            (None, "ask(s)? for a client's certificate"),
            (ours.both, "it does not take the client's certificate"),
        ):
            certificates = [shown, theirs.both]
            with pytest.raises(ServerError, match=message + unsaid) as refused:
                client(servers, ca_file=ours.ca_file, certificates=certificates, retries=2)
            assert servers[0].url in str(refused.value)


def test_each_server_is_trusted_by_its_own_authorities(ours: Pem, theirs: Pem) -> None:
    with (
        two_servers(tls=ours.server_context()) as (one, _),
        two_servers(tls=theirs.server_context()) as (_, other),
    ):
        with client((one, other), ca_file=[ours.ca_file, theirs.ca_file]) as reader:
            assert (reader.get([4]) == one.table[[4]]).all()
        for files in ([theirs.ca_file, ours.ca_file], ours.ca_file, [ours.ca_file, None]):
            with pytest.raises(ServerError, match="certificate is not to be trusted"):
                client((one, other), ca_file=files)


def test_files_that_are_none_are_named(ours: Pem, theirs: Pem, tmp_path: Path) -> None:
    encrypted = tmp_path / "encrypted.pem"
    key = serialization.load_pem_private_key(ours.key.read_bytes(), None)
    encrypted.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(SECRET.encode()),
        )
    )
    nothing = tmp_path / "nothing.pem"
    nothing.write_text("nothing")
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"ca_file": tmp_path / "away"}, FileNotFoundError, "away"),
        ({"ca_file": [None, tmp_path / "away"]}, FileNotFoundError, "away"),
        ({"ca_file": nothing}, ValueError, "nothing.pem is no certificate in PEM"),
        ({"ca_file": [ours.ca_file]}, ValueError, "ca_file must have 2 members"),
        ({"ca_file": ""}, ValueError, "^ca_file must name a file, not ''$"),
        ({"ca_file": ["", ours.ca_file]}, ValueError, "^ca_file must name a file, not ''$"),
        ({"certificates": ["", None]}, ValueError, "^certificates must name a file, not ''$"),
        (
            {"certificates": [(ours.certificate, ""), None]},
            ValueError,
            "^certificates must name a file, not ''$",
        ),
        ({"certificates": ours.both}, TypeError, "certificates must be a sequence of 2"),
        ({"certificates": [ours.both]}, ValueError, "certificates must have 2 members"),
        ({"certificates": [3, None]}, TypeError, "not int"),
        ({"certificates": [nothing, None]}, ValueError, "nothing.pem is no certificate in PEM"),
        ({"certificates": [ours.certificate, None]}, ValueError, "is no private key in PEM"),
        (
            {"certificates": [(ours.certificate, theirs.key), None]},
            ValueError,
            "theirs-key.pem is not the private key of",
        ),
        (
            {"certificates": [(ours.certificate, encrypted), None]},
            ValueError,
            "encrypted.pem is encrypted",
        ),
        (
            {"certificates": [(ours.certificate, tmp_path / "away"), None]},
            FileNotFoundError,
            "away",
        ),
    ]
    for options, error, message in cases:
        with pytest.raises(error, match=message):
            AsyncClient(URLS, **options)


def test_authorities_without_tls_are_refused(ours: Pem) -> None:
    urls = ["http://127.0.0.1:1", "https://two.example"]
    plain = ["http://127.0.0.1:1", "http://127.0.0.1:2"]
    words = r"ours-ca\.pem .*by https only, not about http://127\.0\.0\.1:1"
    for servers, files in ((urls, [ours.ca_file, None]), (plain, ours.ca_file)):
        with pytest.raises(ValueError, match=words):
            AsyncClient(servers, ca_file=files)
    # One file is for those that have a certificate.
    assert AsyncClient(urls, ca_file=ours.ca_file)


def test_a_certificate_without_tls_is_refused(ours: Pem) -> None:
    urls = ["http://127.0.0.1:1", "https://two.example"]
    with pytest.raises(ValueError, match=r"by https only, not by http://127\.0\.0\.1:1"):
        AsyncClient(urls, certificates=[ours.both, None])
    assert AsyncClient(urls, certificates=[None, ours.both])
