"""The commands of README and docs that start a server, run as they stand.

Hosts that a page names lead to this machine, and ports are free ones.
"""

from __future__ import annotations

import csv
import json
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import trustme

from documents import Block, page_blocks, plain_environment

SECONDS = 60.0
HOSTS = ("one.example", "two.example")
# Python reads this as it starts. It maps the servers' names to this machine, and makes all clients
# trust their authority.
SITE = """
import certifi, socket
certifi.where = lambda: {authority!r}
def resolve(host, *rest, real=socket.getaddrinfo, **more):
    name = host.decode() if isinstance(host, bytes) else host
    return real("127.0.0.1" if name in {hosts!r} else host, *rest, **more)
socket.getaddrinfo = resolve
"""


def block_of(page: str, words: str) -> Block:
    """Return the one block of a page that this file runs and that contains these words."""
    (block,) = (
        block
        for block in page_blocks(page)
        if Path(__file__).name in block.marker and words in block.text
    )
    return block


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make the files that the pages need: a table, a certificate and its key."""
    with (tmp_path / "characters.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerows([("name", "code"), ("SNOWMAN", "U+2603")])
        rows.writerows((f"NAME {number}", "x" * 700) for number in range(25_000))
    (tmp_path / "PAGES").write_bytes(os.urandom(10_000))
    authority = trustme.CA()
    certificate = authority.issue_cert(*HOSTS, "127.0.0.1")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    for number, pem in enumerate(certificate.cert_chain_pems):
        pem.write_to_path(tmp_path / "cert.pem", append=number > 0)
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    return tmp_path


@contextmanager
def running(command: str, folder: Path) -> Iterator[str]:
    """Run a server by a command line, and return the URL in its log."""
    process = subprocess.Popen(
        ["bash", "-c", f"exec {command}"],
        cwd=folder,
        env=plain_environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        started = json.loads(process.stderr.readline())
        yield started["url"]
        process.terminate()
        assert process.wait(SECONDS) == 0
    finally:
        process.kill()
        process.communicate()


def on_any_port(command: str, party: int = 0) -> str:
    assert "--port 8000" in command
    assert "--party 0" in command
    return command.replace("--port 8000", "--port 0").replace("--party 0", f"--party {party}")


def test_readme_serves_a_table_and_reads_it(folder: Path) -> None:
    build, serve = block_of("README.md", "morphogen serve").commands
    environment = plain_environment()
    subprocess.run(
        ["bash", "-euo", "pipefail", "-c", build],
        cwd=folder,
        env=environment,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    with (
        running(on_any_port(serve), folder) as one,
        running(on_any_port(serve, party=1), folder) as other,
    ):
        program = block_of("README.md", "mg.Client").text
        for host, url in zip(HOSTS, (one, other), strict=True):
            assert f"{host}:8000" in program
            program = program.replace(f"{host}:8000", f"{host}:{url.rpartition(':')[2]}")
        (folder / "sitecustomize.py").write_text(
            SITE.format(authority=str(folder / "authority.pem"), hosts=HOSTS)
        )
        program = f"import morphogen as mg\n{program}print(value, pages.shape, pages.dtype)\n"
        result = subprocess.run(
            [sys.executable, "-W", "error", "-c", program],
            cwd=folder,
            env={**environment, "PYTHONPATH": str(folder)},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    assert result.stderr == "", result.stderr
    assert result.stdout == """b'{"name":"SNOWMAN","code":"U+2603"}' (2, 4096) uint8\n"""


def test_a_server_is_started_as_its_page_says(folder: Path) -> None:
    (serve,) = block_of("docs/serving.md", "morphogen serve").commands
    with running(on_any_port(serve), folder) as url:
        port = url.rpartition(":")[2]
        told = httpx.get(
            f"https://127.0.0.1:{port}/epoch",
            verify=ssl.create_default_context(cafile=folder / "authority.pem"),
            trust_env=False,
            timeout=SECONDS,
        ).json()
    assert (told["party"], told["epoch_id"], told["num_pages"]) == (0, 7, 3)
