"""Manifests: the bytes, recomputed apart from the library, and what is refused."""

from __future__ import annotations

import os
import re
import struct
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from hypothesis import given, strategies as st

from morphogen.epochs.manifest import (
    Manifest,
    is_manifest,
    parse_manifest,
    public_key,
    read_manifest,
    sign_manifest,
)
from morphogen.errors import ManifestError

PROTOCOL = Path(__file__).resolve().parents[2] / "docs" / "protocol.md"
# RFC 8032, section 7.1, test 1
SECRET = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
OWNER = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
TABLE, ROOT, BEFORE = bytes(range(16)), bytes(range(32)), bytes(range(64, 96))
EXPIRES = 1_900_000_000


def signed(**changes: Any) -> Manifest:
    fields: dict[str, Any] = {"table_id": TABLE, "epoch": 7, "root": ROOT, "expires": EXPIRES}
    return sign_manifest(SECRET, **fields | changes)


def pem(
    key: ed25519.Ed25519PrivateKey | x25519.X25519PrivateKey,
    encryption: KeySerializationEncryption | None = None,
) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())


def recomputed(
    table_id: bytes, epoch: int, activate_at: int, expires: int, root: bytes, previous: bytes
) -> bytes:
    """A manifest's 256 bytes, field by field at its offset."""
    raw = bytearray(192)
    raw[0:8] = bytes.fromhex("4d474b4d460d0a1a")
    struct.pack_into("<II", raw, 8, 1, 0)
    raw[16:32] = table_id
    struct.pack_into("<QQQ", raw, 32, epoch, activate_at, expires)
    raw[56:88] = root
    raw[88:120] = previous
    raw[120:152] = OWNER
    return bytes(raw) + ed25519.Ed25519PrivateKey.from_private_bytes(SECRET).sign(bytes(raw))


# The format


def test_every_byte_is_where_the_format_has_it() -> None:
    first = sign_manifest(SECRET, table_id=TABLE, epoch=7, root=ROOT)
    assert first.pack() == recomputed(TABLE, 7, 0, 0, ROOT, bytes(32))
    most = 2**63 - 1, 2**64 - 2, 2**64 - 1
    last = sign_manifest(
        SECRET,
        table_id=TABLE,
        epoch=most[0],
        activate_at=most[1],
        expires=most[2],
        root=ROOT,
        previous=BEFORE,
    )
    assert last.pack() == recomputed(TABLE, *most, ROOT, BEFORE)
    for manifest in (first, last):
        assert parse_manifest(manifest.pack()) == manifest
        manifest.verify(OWNER, ROOT, now=0)


def test_a_manifest_holds_the_sha_256_of_the_one_before() -> None:
    first = signed()
    assert first.digest == sha256(first.pack()).digest()
    assert signed(epoch=8, previous=first.digest).previous == first.digest


def test_the_public_key_is_that_of_rfc_8032() -> None:
    assert public_key(SECRET) == OWNER
    key = ed25519.Ed25519PrivateKey.from_private_bytes(SECRET)
    assert public_key(pem(key)) == OWNER
    assert sign_manifest(pem(key), table_id=TABLE, epoch=7, root=ROOT, expires=EXPIRES) == signed()


def test_the_example_of_the_document_is_true() -> None:
    section = PROTOCOL.read_text(encoding="utf-8").split(". Manifests\n")[1].split("\n## ")[0]
    block = section.split("```text\n")[1].split("```")[0]
    lines = (line.partition("=") for line in re.sub(r"\n +", "", block).splitlines())
    document = {name.strip(): bytes.fromhex(digits) for name, _, digits in lines}
    arguments = (document["table_id"], 7, 1_800_000_000, 1_900_000_000, document["root"], bytes(32))
    assert document == {
        "private_key": SECRET,
        "table_id": TABLE,
        "root": ROOT,
        "manifest": recomputed(*arguments),
        "digest": sha256(recomputed(*arguments)).digest(),
    }


# What is refused


def test_a_change_of_any_byte_is_refused() -> None:
    raw = signed().pack()
    for at in range(256):
        for bit in (1, 128):
            altered = raw[:at] + bytes([raw[at] ^ bit]) + raw[at + 1 :]
            with pytest.raises(ManifestError):
                parse_manifest(altered).verify(OWNER, now=0)


@pytest.mark.parametrize(
    ("at", "change", "message"),
    [
        (0, b"MGKWT", "a manifest begins with 4d474b4d460d0a1a, not 4d474b57540d0a1a"),
        (8, b"\2", "this release reads version 1 of manifests, not 2"),
        (12, b"\1", "the unused bytes of a manifest are zero, and these are not"),
        (39, b"\x80", r"epoch must be in 0..2\*\*63 - 1, not 9223372036854775815"),
        (152, b"\1", "the unused bytes of a manifest are zero, and these are not"),
        (191, b"\1", "the unused bytes of a manifest are zero, and these are not"),
    ],
)
def test_a_wrong_form_is_refused_with_what_is_expected(
    at: int, change: bytes, message: str
) -> None:
    raw = signed().pack()
    with pytest.raises(ManifestError, match=f"^{message}$"):
        parse_manifest(raw[:at] + change + raw[at + len(change) :])


@pytest.mark.parametrize("size", [0, 255, 257, 512])
def test_another_length_is_refused(size: int) -> None:
    with pytest.raises(ManifestError, match=f"^a manifest has 256 bytes, not {size}$"):
        parse_manifest((2 * signed().pack())[:size])


@given(st.binary(min_size=248, max_size=248))
def test_other_bytes_are_refused_or_read_as_they_stand(rest: bytes) -> None:
    raw = signed().pack()[:8] + rest
    try:
        manifest = parse_manifest(raw)
    except ManifestError:
        return
    assert manifest.pack() == raw
    with pytest.raises(ManifestError):
        manifest.verify(OWNER)


def test_a_manifest_of_another_owner_is_refused() -> None:
    other = ed25519.Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    message = f"^the manifest is by the owner {OWNER.hex()}, not by {other.hex()}$"
    with pytest.raises(ManifestError, match=message):
        signed().verify(other, now=0)
    with pytest.raises(ManifestError, match=r"^owner must have 32 bytes, not 31$"):
        signed().verify(OWNER[:31], now=0)


def test_a_signature_by_another_key_is_refused() -> None:
    forger = ed25519.Ed25519PrivateKey.generate()
    forged = signed().pack()[:192]
    with pytest.raises(ManifestError, match="the signature is not its owner's"):
        parse_manifest(forged + forger.sign(forged)).verify(OWNER, now=0)
    no_point = bytes([2, *bytes(31)])
    with pytest.raises(ManifestError, match="the signature is not its owner's"):
        parse_manifest(forged[:120] + no_point + forged[152:] + bytes(64)).verify(no_point, now=0)


def test_a_manifest_about_another_root_is_refused() -> None:
    with pytest.raises(ManifestError, match=f"is about the root {ROOT.hex()}, not {'00' * 32}$"):
        signed().verify(OWNER, bytes(32), now=0)


def test_a_manifest_counts_until_it_expires() -> None:
    signed().verify(OWNER, ROOT, now=EXPIRES - 0.5)
    with pytest.raises(ManifestError, match=f"of epoch 7 expired at {EXPIRES} .* it is {EXPIRES}$"):
        signed().verify(OWNER, ROOT, now=EXPIRES)
    with pytest.raises(ManifestError, match="expired at 1 "):
        signed(expires=1).verify(OWNER)
    signed(expires=0).verify(OWNER, now=2.0**70)


# Keys


def test_a_key_of_another_kind_is_refused_and_not_shown() -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    for wrong, message in (
        (pem(key, BestAvailableEncryption(b"words")), "^the private key has a passphrase"),
        (pem(x25519.X25519PrivateKey.generate()), "^a private key is Ed25519, not X25519Private"),
        (pem(key)[:-40], r"^a private key is PEM \(PKCS#8\) or 32 bytes, which this is not$"),
        (bytes(31), "which this is not$"),
    ):
        with pytest.raises(ManifestError, match=message) as told:
            sign_manifest(wrong, table_id=TABLE, epoch=7, root=ROOT)
        assert wrong.splitlines()[0].decode("latin-1") not in str(told.value) + repr(told.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"table_id": bytes(15)}, "table_id must have 16 bytes, not 15"),
        ({"root": bytes(33)}, "root must have 32 bytes, not 33"),
        ({"previous": b""}, "previous must have 32 bytes, not 0"),
        ({"epoch": -1}, r"epoch must be in 0..2\*\*63 - 1, not -1"),
        ({"expires": 2**64}, r"expires must be in 0..2\*\*64 - 1, not 18446744073709551616"),
        (
            {"activate_at": EXPIRES},
            f"expires must be later than activate_at, {EXPIRES}, or 0, not {EXPIRES}",
        ),
    ],
)
def test_what_is_not_signed(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ManifestError, match=f"^{message}$"):
        signed(**changes)


def test_a_field_of_another_type_is_refused() -> None:
    with pytest.raises(TypeError, match=r"^root must be bytes, not str$"):
        signed(root="00" * 32)
    with pytest.raises(TypeError, match=r"^epoch must be an int, not float$"):
        signed(epoch=7.0)


def test_without_cryptography_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = signed()
    monkeypatch.setitem(sys.modules, "cryptography.exceptions", None)
    parse_manifest(manifest.pack())
    for use in (lambda: manifest.verify(OWNER), lambda: public_key(SECRET)):
        with pytest.raises(ModuleNotFoundError, match=r"pip install 'morphogen\[sign\]'"):
            use()


# Files


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "fruit.manifest"
    path.write_bytes(signed().pack())
    assert read_manifest(path) == signed()
    assert is_manifest(path)
    assert not is_manifest(tmp_path)


def test_a_file_that_is_no_manifest_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "fruit.manifest"
    for content, message in (
        (signed().pack()[:-1], "fruit.manifest: a manifest has 256 bytes, not 255$"),
        (signed().pack() + bytes(9), "fruit.manifest: a manifest has 256 bytes, not 265$"),
        (bytes(256), "fruit.manifest: a manifest begins with"),
    ):
        path.write_bytes(content)
        with pytest.raises(ManifestError, match=message):
            read_manifest(path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ManifestError, match=r"pipe is a pipe, not a manifest$"):
        read_manifest(tmp_path / "pipe")
    for read in (read_manifest, is_manifest):
        with pytest.raises(FileNotFoundError):
            read(tmp_path / "none")
