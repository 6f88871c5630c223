"""The files of TLS of a server and a client: a fault is one line that names the file."""

from __future__ import annotations

import os
import pty
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

import morphogen.service.run as serving
from morphogen.cli import USAGE, main
from morphogen.client import Client
from refusal import refusal


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A certificate, its key, the same encrypted, another key, and files that are neither."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(serving, "set_up_logs", lambda *_: None)  # of the whole process
    authority = trustme.CA()
    issued, other = (authority.issue_cert("127.0.0.1") for _ in range(2))
    for blob in issued.cert_chain_pems:
        blob.write_to_path("cert.pem", append=True)
    issued.private_key_pem.write_to_path("key.pem")
    other.private_key_pem.write_to_path("other.pem")
    key = load_pem_private_key(issued.private_key_pem.bytes(), None)
    encrypted = key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
    )
    (tmp_path / "encrypted.pem").write_bytes(encrypted)
    (tmp_path / "text.pem").write_text("no PEM")
    (tmp_path / "empty.pem").touch()
    (tmp_path / "broken.pem").write_text(
        "-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n"
    )
    (tmp_path / "pages").write_bytes(bytes(5000))
    return tmp_path


@pytest.mark.parametrize(
    ("cert", "key", "message"),
    [
        ("missing.pem", "key.pem", "missing.pem: No such file or directory"),
        ("cert.pem", "missing.pem", "missing.pem: No such file or directory"),
        (".", "key.pem", ".: Is a directory"),
        ("text.pem", "key.pem", "text.pem is no certificate in PEM"),
        ("empty.pem", "key.pem", "empty.pem is no certificate in PEM"),
        ("broken.pem", "key.pem", "broken.pem is no certificate in PEM"),
        ("key.pem", "key.pem", "key.pem is no certificate in PEM"),
        ("cert.pem", "text.pem", "text.pem is no private key in PEM"),
        ("cert.pem", "empty.pem", "empty.pem is no private key in PEM"),
        ("cert.pem", "cert.pem", "cert.pem is no private key in PEM"),
        ("cert.pem", "other.pem", "other.pem is not the private key of cert.pem"),
        (
            "cert.pem",
            "encrypted.pem",
            "encrypted.pem is encrypted: the private key must be readable without a password",
        ),
    ],
)
def test_a_server_names_the_file_that_it_cannot_use(
    cert: str, key: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ("--tls-cert", cert, "--tls-key", key)
    assert refusal(capsys, "pages", "--party", 0, *files) == message


def test_an_encrypted_key_asks_no_terminal_for_its_password() -> None:
    terminal, end = pty.openpty()
    try:
        run = subprocess.run(
            [
                *(sys.executable, "-m", "morphogen", "serve", "pages", "--party", "0"),
                *("--port", "0", "--tls-cert", "cert.pem", "--tls-key", "encrypted.pem"),
            ],
            stdin=end,
            stdout=end,
            stderr=subprocess.PIPE,
            start_new_session=True,
            timeout=60,
        )
        os.set_blocking(terminal, False)
        with pytest.raises(BlockingIOError):
            os.read(terminal, 1)
    finally:
        os.close(end)
        os.close(terminal)
    assert (run.returncode, run.stderr.count(b"\n")) == (2, 1)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.pem", "missing.pem: No such file or directory"),
        (".", ".: Is a directory"),
        ("text.pem", "text.pem is no certificate in PEM"),
        ("empty.pem", "empty.pem is no certificate in PEM"),
        ("broken.pem", "broken.pem is no certificate in PEM"),
        ("key.pem", "key.pem is no certificate in PEM"),
    ],
)
def test_a_client_names_the_file_that_it_cannot_use(
    name: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    servers = ("--server", "https://one.example", "--server", "https://two.example")
    assert main(["get", "1", *servers, "--ca-file", name]) == USAGE
    assert capsys.readouterr().err == f"morphogen: {message}\n"


def test_an_error_of_tls_is_not_taken_for_one_of_the_system() -> None:
    with pytest.raises(ValueError, match=r"text\.pem is no certificate") as caught:
        Client(["https://one.example", "https://two.example"], ca_file="text.pem")
    assert not isinstance(caught.value, ssl.SSLError)
