"""A client with an owner reads only what a manifest of that owner vouches for."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

import morphogen as mg
import morphogen.wire as wire
from fake_server import FakeServer, client, sealed_pages, two_servers
from morphogen.client import AsyncClient, Client
from morphogen.client.owner import Owner
from morphogen.epochs.manifest import MANIFEST_BYTES, Manifest, sign_manifest
from morphogen.errors import TableMismatchError
from morphogen.wire import TableInfo

pytest.importorskip("cryptography", reason="needs cryptography: pip install '.[sign]'")

Pair = tuple[FakeServer, FakeServer]
ROOT_FOLDER = Path(__file__).resolve().parents[2]
URLS = ["https://one.example", "https://two.example"]
SEALS = {epoch: sealed_pages(42 + epoch) for epoch in (7, 8, 9)}
KEY, OTHER_KEY = bytes(range(32)), bytes(range(1, 33))
ID, OTHER_ID = b"sixteen bytes id", b"another table id"


def signed(of: int, key: bytes = KEY, **changes: Any) -> Manifest:
    fields = {"table_id": ID, "epoch": of, "root": SEALS[of].root, **changes}
    return sign_manifest(key, **fields)


OWNER = signed(7).owner
INFO = TableInfo(
    party=0,
    epoch_id=7,
    num_pages=49,
    page_size=96,
    keys_per_query=3,
    format_version=1,
    digest=SEALS[7].root.hex(),
    device="cpu",
    root=SEALS[7].root.hex(),
    proof_levels=2,
    manifest=signed(7).pack().hex(),
)


def packed(manifest: Manifest) -> str:
    return manifest.pack().hex()


class Clock:
    """The time that clients see."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(Owner.__init__, "__defaults__", (lambda: self.now,))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def publish(servers: Pair, epoch: int, *manifests: str | None, keep: int = 2) -> None:
    """Publish an epoch at both, with a manifest for both or one for each."""
    for server, manifest in zip(servers, manifests * (3 - len(manifests)), strict=False):
        seal = SEALS[epoch]
        server.publish(seal.pages, epoch, seal=seal, manifest=manifest, keep=keep)


@contextmanager
def servers_with(*manifests: str | None, epoch: int = 7) -> Iterator[Pair]:
    with two_servers(seal=SEALS[epoch]) as servers:
        publish(servers, epoch, *manifests, keep=1)
        yield servers


def assert_refused(servers: Pair, message: str, **options: Any) -> None:
    options = {"owner": OWNER, **options}
    with pytest.raises(TableMismatchError, match=message):
        client(servers, **options)
    assert not servers[0].batches
    assert not servers[1].batches


@pytest.mark.parametrize(
    "owner", [OWNER, OWNER.hex(), OWNER.hex().upper()], ids=["bytes", "lower case", "upper case"]
)
@pytest.mark.parametrize("options", [{}, {"verify": True}, {"root": SEALS[7].root}], ids=str)
def test_an_epoch_with_a_manifest_of_the_owner_is_read(
    owner: bytes | str, options: dict[str, Any]
) -> None:
    with (
        servers_with(packed(signed(7))) as servers,
        client(servers, owner=owner, **options) as reader,
    ):
        assert reader.authenticated
        assert reader.root == SEALS[7].root
        assert (reader.get([4]) == SEALS[7].pages[[4]]).all()


def test_a_manifest_at_either_server_is_enough() -> None:
    for manifests in ((packed(signed(7)), None), (None, packed(signed(7)))):
        with servers_with(*manifests) as servers, client(servers, owner=OWNER) as reader:
            assert (reader.get([4]) == SEALS[7].pages[[4]]).all()


REFUSED: dict[str, tuple[str | None, str]] = {
    "none": (None, "is missing"),
    "zeros": ("00" * MANIFEST_BYTES, "is malformed"),
    "another owner": (packed(signed(7, OTHER_KEY)), "is by another owner"),
    "another root": (packed(signed(7, root=SEALS[8].root)), "is about another root"),
    "an earlier epoch": (packed(signed(7, epoch=6)), "is about another epoch"),
    "a later epoch": (packed(signed(7, epoch=8)), "is about another epoch"),
    "expired": (packed(signed(7, expires=1000)), "has expired"),
}


@pytest.mark.parametrize(("manifest", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_manifest_that_does_not_vouch_for_the_epoch_is_refused_before_a_key_is_sent(
    manifest: str | None, reason: str, clock: Clock
) -> None:
    with servers_with(manifest) as servers:
        message = f"epoch 7: the manifest of the first server {reason}, that of the second {reason}"
        assert_refused(servers, message)


@pytest.mark.parametrize("at", range(MANIFEST_BYTES))
def test_a_manifest_with_a_changed_byte_is_refused(at: int) -> None:
    raw = bytearray(signed(7).pack())
    raw[at] ^= 1
    changed = replace(INFO, manifest=raw.hex())
    with pytest.raises(TableMismatchError, match="does not vouch for"):
        Owner(OWNER).accept((changed, changed))


def test_what_a_server_states_is_not_repeated() -> None:
    with servers_with(packed(signed(7, OTHER_KEY))) as servers:
        with pytest.raises(TableMismatchError) as failure:
            client(servers, owner=OWNER)
        assert signed(7, OTHER_KEY).owner.hex() not in str(failure.value)


def test_a_table_without_a_root_is_refused() -> None:
    with two_servers() as servers:
        assert_refused(servers, "of epoch 7 has no root")


def test_an_epoch_is_read_until_its_manifest_expires(clock: Clock) -> None:
    with (
        servers_with(packed(signed(7, expires=2000))) as servers,
        client(servers, owner=OWNER) as reader,
    ):
        clock.now = 1999.0
        assert (reader.get([4]) == SEALS[7].pages[[4]]).all()
        clock.now = 2000.0
        sent = len(servers[0].batches)
        for _ in range(2):
            with pytest.raises(TableMismatchError, match="has expired"):
                reader.get([4])
        assert len(servers[0].batches) == sent
        # Signed again, for longer, at one of the servers.
        servers[1].set_table(SEALS[7].pages, 7, seal=SEALS[7])
        servers[1].said = {"manifest": packed(signed(7, expires=3000))}
        assert (reader.get([4]) == SEALS[7].pages[[4]]).all()
        clock.now = 3000.0
        with pytest.raises(TableMismatchError, match="has expired"):
            reader.get([4])


def test_the_manifest_that_lasts_longest_counts(clock: Clock) -> None:
    for one, other in ((0, 2000), (2000, 0), (2000, 4000), (4000, 2000)):
        manifests = (packed(signed(7, expires=one)), packed(signed(7, expires=other)))
        with servers_with(*manifests) as servers, client(servers, owner=OWNER) as reader:
            clock.now = 3000.0
            assert (reader.get([4]) == SEALS[7].pages[[4]]).all()
            # Nobody had to ask again for one that lasts.
            assert [seen.path for seen in servers[0].seen].count(wire.EPOCH_PATH) == 1
            clock.now = 1000.0


def test_the_next_epoch_needs_a_manifest_of_the_same_table() -> None:
    for manifest, message in (
        (signed(8, table_id=OTHER_ID), "is about another table than before"),
        (signed(8, OTHER_KEY), "is by another owner"),
        (None, "is missing"),
    ):
        with (
            servers_with(packed(signed(7))) as servers,
            client(servers, owner=OWNER) as reader,
        ):
            reader.get([4])
            publish(servers, 8, None if manifest is None else packed(manifest), keep=1)
            for _ in range(2):
                with pytest.raises(TableMismatchError, match=message):
                    reader.get([4])
            publish(servers, 9, packed(signed(9)))
            assert (reader.get([4]) == SEALS[9].pages[[4]]).all()
            assert reader.root == SEALS[9].root


def test_an_older_manifest_than_one_that_was_taken_is_refused() -> None:
    owner = Owner(OWNER)
    later = replace(INFO, epoch_id=8, root=SEALS[8].root.hex(), manifest=packed(signed(8)))
    for info in (INFO, INFO, later):
        assert owner.accept((info, info)).epoch == info.epoch_id
    with pytest.raises(TableMismatchError, match="is older than one before"):
        owner.accept((INFO, INFO))


def test_the_example_of_the_reference_reads_what_the_owner_signed() -> None:
    page = (ROOT_FOLDER / "docs/reference/client.md").read_text(encoding="utf-8")
    (block,) = [
        block for block in re.findall(r"```python\n(.*?)```", page, re.S) if "owner=" in block
    ]
    with servers_with(packed(signed(7))) as servers:
        names: dict[str, Any] = {"mg": mg, "urls": [s.url for s in servers], "owner": OWNER}
        exec(block, names)
        with names["client"] as reader:
            assert (reader.get([4]) == SEALS[7].pages[[4]]).all()


def test_both_clients_take_an_owner() -> None:
    async def read(servers: Pair) -> None:
        urls = [server.url for server in servers]
        async with AsyncClient(urls, owner=OWNER) as reader:
            assert (await reader.get([4]) == SEALS[7].pages[[4]]).all()
            assert reader.info.manifest == packed(signed(7))

    with servers_with(packed(signed(7))) as servers:
        asyncio.run(read(servers))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"owner": 5}, TypeError, "^owner must be bytes or a str, not int$"),
        ({"owner": bytes(31)}, ValueError, "^owner must have 32 bytes, not 31$"),
        ({"owner": "00" * 31}, ValueError, "^owner must be 64 hexadecimal digits, not 62$"),
        (
            {"owner": "0x" + "00" * 31},
            ValueError,
            "^owner must be 64 hexadecimal digits, not 64 characters with 'x' among them$",
        ),
        (
            {"owner": OWNER, "verify": False},
            ValueError,
            "^verify=False .* leave it out, or the own",
        ),
    ],
)
def test_owners_that_are_none_are_refused(
    options: Any, error: type[Exception], message: str
) -> None:
    for kind in (AsyncClient, Client):
        with pytest.raises(error, match=message):
            kind(URLS, **options)


def test_without_the_extra_an_owner_is_an_error_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(sys.modules):
        if name.partition(".")[0] == "cryptography":
            monkeypatch.setitem(sys.modules, name, None)
    for kind in (AsyncClient, Client):
        with pytest.raises(ModuleNotFoundError, match=r"pip install 'morphogen\[sign\]'"):
            kind(URLS, owner=OWNER)
    AsyncClient(URLS)
