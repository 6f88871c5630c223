"""Manifests: 256 bytes in which a table's owner signs the root of one of its epochs.

The signature is Ed25519 (RFC 8032), by cryptography, which the extra ``sign`` brings. Section 14 of
docs/protocol.md defines every byte.
"""

from __future__ import annotations

import os
import struct
import time
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import TYPE_CHECKING

from morphogen.checks import as_int, check_range, names_file, needs_extra
from morphogen.errors import ManifestError
from morphogen.pages import MAX_EPOCH
from morphogen.pages.mapped_file import beginning_of, open_file

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

MAGIC = b"MGKMF\r\n\x1a"  # a transfer that changes ends of lines spoils it
MANIFEST_BYTES = 256
TABLE_ID_BYTES = 16
KEY_BYTES = 32
_VERSION = 1
_FIELDS = struct.Struct("<8sII16sQQQ32s32s32s40s")  # what is signed
_SIZES = {
    "table_id": TABLE_ID_BYTES,
    "root": 32,
    "previous": 32,
    "owner": KEY_BYTES,
    "signature": MANIFEST_BYTES - _FIELDS.size,
}
_LATEST = {"epoch": MAX_EPOCH, "activate_at": 2**64 - 1, "expires": 2**64 - 1}
_UNUSED = bytes(40)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a table's owner says of one epoch.

    Parameters
    ----------
    table_id : bytes
        16 bytes, the same in all manifests of a table.
    epoch : int
        Version of the table, 0 to 2**63 - 1.
    activate_at : int
        When servers begin to serve it, in Unix seconds; 0 for at once.
    expires : int
        From when it counts no more, in Unix seconds; 0 for never.
    root : bytes
        32 bytes that stand for the whole table.
    previous : bytes
        `digest` of the table's manifest before; 32 zeros in the first.
    owner : bytes
        Ed25519 public key, 32 bytes.
    signature : bytes
        By the owner over all that comes before, 64 bytes. Only `verify` checks it.

    Raises
    ------
    ManifestError
        If bytes have another length, or a number is out of range.
    TypeError
        If a field has another type.
    """

    table_id: bytes
    epoch: int
    activate_at: int
    expires: int
    root: bytes
    previous: bytes
    owner: bytes
    signature: bytes

    def __post_init__(self) -> None:
        for name, size in _SIZES.items():
            _check_size(name, getattr(self, name), size)
        for name, latest in _LATEST.items():
            check_range(name, as_int(name, getattr(self, name)), 0, latest, error=ManifestError)

    @property
    def digest(self) -> bytes:
        """SHA-256 of its 256 bytes, which the next manifest of the table holds."""
        return sha256(self.pack()).digest()

    def pack(self) -> bytes:
        """Write the manifest.

        Returns
        -------
        bytes
            256 bytes.
        """
        return self._signed_bytes() + self.signature

    def verify(self, owner: bytes, root: bytes | None = None, now: float | None = None) -> None:
        """Refuse a manifest that is not the owner's, counts no more, or is about another table.

        Parameters
        ----------
        owner : bytes
            The public key that is trusted, 32 bytes.
        root : bytes, optional
            The root that it must have.
        now : float, optional
            The time in Unix seconds; by default it is this machine's.

        Raises
        ------
        ManifestError
            If the owner, the signature or the root is another, or the manifest has expired.
        ModuleNotFoundError
            If the extra ``sign`` is missing.
        TypeError
            If owner is no bytes.
        """
        _check_size("owner", owner, KEY_BYTES)
        if self.owner != owner:
            raise ManifestError(
                f"the manifest is by the owner {self.owner.hex()}, not by {owner.hex()}"
            )
        with needs_extra("sign", "a manifest"):
            from cryptography.exceptions import InvalidSignature
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        try:
            Ed25519PublicKey.from_public_bytes(owner).verify(self.signature, self._signed_bytes())
        except (InvalidSignature, ValueError):  # bytes that are no point of the curve
            raise ManifestError(
                "the manifest was altered: the signature is not its owner's"
            ) from None
        if root is not None and self.root != root:
            raise ManifestError(
                f"the manifest is about the root {self.root.hex()}, not {root.hex()}"
            )
        now = time.time() if now is None else now
        if self.expires and now >= self.expires:
            raise ManifestError(
                f"the manifest of epoch {self.epoch} expired at {self.expires} (Unix seconds), and "
                f"it is {int(now)}"
            )

    def _signed_bytes(self) -> bytes:
        return _FIELDS.pack(
            MAGIC,
            _VERSION,
            0,
            self.table_id,
            self.epoch,
            self.activate_at,
            self.expires,
            self.root,
            self.previous,
            self.owner,
            _UNUSED,
        )


def parse_manifest(raw: bytes) -> Manifest:
    """Read a manifest's form, without its signature: `Manifest.verify` checks that.

    Parameters
    ----------
    raw : bytes-like
        256 bytes.

    Returns
    -------
    Manifest
        By whoever it says.

    Raises
    ------
    ManifestError
        If the length, the magic, the version, the epoch or unused bytes are wrong.
    """
    raw = bytes(raw)
    if len(raw) != MANIFEST_BYTES:
        raise ManifestError(f"a manifest has {MANIFEST_BYTES} bytes, not {len(raw)}")
    magic, version, zero, *fields, unused = _FIELDS.unpack_from(raw)
    if magic != MAGIC:
        raise ManifestError(f"a manifest begins with {MAGIC.hex()}, not {magic.hex()}")
    if version != _VERSION:
        raise ManifestError(f"this release reads version {_VERSION} of manifests, not {version}")
    if zero or unused != _UNUSED:
        raise ManifestError("the unused bytes of a manifest are zero, and these are not")
    table_id, epoch, activate_at, expires, root, previous, owner = fields
    signature = raw[_FIELDS.size :]
    return Manifest(table_id, epoch, activate_at, expires, root, previous, owner, signature)


def read_manifest(path: str | os.PathLike[str]) -> Manifest:
    """Read a manifest's file, without its signature: `Manifest.verify` checks that.

    Parameters
    ----------
    path : path-like
        A file of 256 bytes.

    Returns
    -------
    Manifest
        By whoever it says.

    Raises
    ------
    ManifestError
        If it is no manifest. The error names the file.
    OSError
        If it cannot be read.
    """

    def refuse(found: str) -> ManifestError:
        return ManifestError(f"{found}, not a manifest")

    with names_file(path), open_file(path, refuse) as file:
        raw = file.read(MANIFEST_BYTES)
        more = file.seek(0, os.SEEK_END) - len(raw)
    try:
        if more > 0:
            raise ManifestError(f"a manifest has {MANIFEST_BYTES} bytes, not {len(raw) + more}")
        return parse_manifest(raw)
    except ManifestError as error:
        raise ManifestError(f"{os.fspath(path)}: {error}") from None


def is_manifest(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins as a manifest does.

    Parameters
    ----------
    path : path-like
        A file that may be a manifest.

    Returns
    -------
    bool
        False for a folder, a pipe and the like.

    Raises
    ------
    OSError
        If it is not there or cannot be read.
    """
    return beginning_of(path, len(MAGIC)) == MAGIC


def sign_manifest(
    private_key: bytes,
    *,
    table_id: bytes,
    epoch: int,
    root: bytes,
    activate_at: int = 0,
    expires: int = 0,
    previous: bytes | None = None,
) -> Manifest:
    """Sign the root of one of a table's epochs.

    Parameters
    ----------
    private_key : bytes
        The owner's: Ed25519, in PEM as PKCS#8 without a passphrase, or its 32 bytes.
    table_id : bytes
        16 bytes, the same in all manifests of a table; random in the first.
    epoch : int
        Version of the table, 0 to 2**63 - 1.
    root : bytes
        32 bytes.
    activate_at, expires : int, optional
        Unix seconds, or 0 for at once and for never.
    previous : bytes, optional
        `Manifest.digest` of the table's manifest before.

    Returns
    -------
    Manifest
        By the key's owner.

    Raises
    ------
    ManifestError
        If bytes have another length, a number is out of range, the manifest would expire before it
        is active, or the key is no such key. Nothing of the key is in the message.
    ModuleNotFoundError
        If the extra ``sign`` is missing.
    TypeError
        If an argument has another type.
    """
    key = _load_private_key(private_key)
    if expires and expires <= activate_at:
        raise ManifestError(
            f"expires must be later than activate_at, {activate_at}, or 0, not {expires}"
        )
    unsigned = Manifest(
        table_id,
        epoch,
        activate_at,
        expires,
        root,
        bytes(32) if previous is None else previous,
        key.public_key().public_bytes_raw(),
        bytes(_SIZES["signature"]),
    )
    return replace(unsigned, signature=key.sign(unsigned._signed_bytes()))


def make_private_key() -> bytes:
    """Make the key of an owner, who keeps it.

    Returns
    -------
    bytes
        PEM as PKCS#8, without a passphrase.

    Raises
    ------
    ModuleNotFoundError
        If the extra ``sign`` is missing.
    """
    with needs_extra("sign", "a manifest"):
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import (
            Encoding,
            NoEncryption,
            PrivateFormat,
        )
    key = Ed25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def public_key(private_key: bytes) -> bytes:
    """Tell the owner by whom manifests signed with a key are.

    Parameters
    ----------
    private_key : bytes
        As for `sign_manifest`.

    Returns
    -------
    bytes
        32 bytes.

    Raises
    ------
    ManifestError
        If the key is no such key.
    ModuleNotFoundError
        If the extra ``sign`` is missing.
    """
    return _load_private_key(private_key).public_key().public_bytes_raw()


def _load_private_key(private_key: bytes) -> Ed25519PrivateKey:
    with needs_extra("sign", "a manifest"):
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    if len(private_key) == KEY_BYTES:
        return Ed25519PrivateKey.from_private_bytes(private_key)
    try:
        key = load_pem_private_key(private_key, password=None)
    except TypeError:
        raise ManifestError("the private key has a passphrase: openssl pkey removes it") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ManifestError(
            f"a private key is PEM (PKCS#8) or {KEY_BYTES} bytes, which this is not"
        ) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ManifestError(f"a private key is Ed25519, not {type(key).__name__.strip('_')}")
    return key


def _check_size(name: str, value: bytes, size: int) -> None:
    if not isinstance(value, bytes):
        raise TypeError(f"{name} must be bytes, not {type(value).__name__}")
    if len(value) != size:
        raise ManifestError(f"{name} must have {size} bytes, not {len(value)}")
