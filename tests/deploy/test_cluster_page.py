"""docs/cluster.md: its commands start a cluster with a token and TLS, beyond the loopback."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import pytest

import morphogen as mg
from documents import page_blocks, plain_environment
from morphogen.keyword.sealing import seal_file
from morphogen.service.process import ServerProcess

pytestmark = [pytest.mark.ray, pytest.mark.slow]  # a cluster of four processes
BLOCKS = [block.text for block in page_blocks("docs/cluster.md") if block.files]
SECONDS = 120.0


def own_address() -> str:
    """An address of this machine that is not its loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        try:
            one.connect(("192.0.2.1", 9))  # nothing is sent
        except OSError:
            pytest.skip("needs a network")
        address: str = one.getsockname()[0]
    return address


class Host:
    """A host of the page: this machine, with its own paths, address and ports."""

    def __init__(self, folder: Path) -> None:
        trustme = pytest.importorskip("trustme", reason="needs trustme")
        self.address = own_address()
        with socket.socket() as free:
            free.bind((self.address, 0))
            self.port = free.getsockname()[1]
        self.folder = folder
        certificates = trustme.CA()
        one = certificates.issue_cert(self.address, "127.0.0.1", "localhost")
        for name in ("ray", "tls"):
            one.cert_chain_pems[0].write_to_path(folder / f"{name}.crt")
            one.private_key_pem.write_to_path(folder / f"{name}.key")
        certificates.cert_pem.write_to_path(folder / "ray-ca.crt")
        (folder / "ray-token").write_text(secrets.token_hex(32))

    def here(self, text: str) -> str:
        places = {
            "/etc/morphogen": str(self.folder),
            "/srv": str(self.folder),
            "10.0.0.1:6379": f"{self.address}:{self.port}",
            "10.0.0.1": self.address,
            "--port=6379": f"--port={self.port}",
            "--port 8000": "--port 0",
        }
        for place, mine in places.items():
            text = text.replace(place, mine)
        return text

    @contextmanager
    def running(self, text: str) -> Iterator[subprocess.Popen[str]]:
        """Run a block in a shell with the page's environment, and end all that it started."""
        process = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", self.here(f"{BLOCKS[0]}\n{text}")],
            env=plain_environment() | {"HOME": str(self.folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.communicate(timeout=SECONDS)
            finally:
                process.kill()


def wait_for(process: subprocess.Popen[str], words: str) -> str:
    """Read until a line has some words."""
    assert process.stdout is not None
    read = []
    for line in process.stdout:
        read.append(line)
        if words in line:
            return line
    pytest.fail(f"{words!r} is not in\n{''.join(read)}")


def test_the_commands_of_the_page_serve_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pages").write_bytes(bytes(range(256)) * 4096)
    table = tmp_path / "words-1.table"
    seal_file(tmp_path / "pages", table, 1024)
    host = Host(tmp_path)
    _, head, member, serve = BLOCKS
    with ExitStack() as stack:
        # Paths of sockets are short.
        short = stack.enter_context(TemporaryDirectory(dir="/tmp"))
        monkeypatch.setenv("RAY_TMPDIR", short)
        for command in (head, member):
            wait_for(stack.enter_context(host.running(command)), "--block")
        log = json.loads(wait_for(stack.enter_context(host.running(serve)), '"url"'))
        other = ServerProcess(table, 1)
        stack.callback(other.stop)
        urls = [f"https://{host.address}:{urlsplit(log['url']).port}", other.url]
        authority = tmp_path / "ray-ca.crt"
        with mg.Client(urls, ca_file=authority, verify=True, timeout=SECONDS) as client:
            assert client.get([0])[0].tobytes()[:256] == bytes(range(256))
