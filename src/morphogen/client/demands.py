"""What a user demands of a table before anything is read of it: a root, an owner."""

from __future__ import annotations

from dataclasses import dataclass

from morphogen.authentication.hashing import HASH_BYTES
from morphogen.checks import from_hexadecimal
from morphogen.client.owner import Owner
from morphogen.errors import TableMismatchError
from morphogen.wire import TableInfo


@dataclass(frozen=True, slots=True)
class Demands:
    """What a user demands of a table.

    Attributes
    ----------
    root : bytes or None
        The only root that it may have.
    verify : bool or None
        Whether it must have a root; None to check the pages of a table that has one.
    owner : Owner or None
        Whose manifest its root must have.
    """

    root: bytes | None
    verify: bool | None
    owner: Owner | None = None

    @classmethod
    def of(
        cls, root: bytes | str | None, verify: bool | None, owner: bytes | str | None = None
    ) -> Demands:
        """Check what a user gave.

        Raises
        ------
        TypeError, ValueError
            If it is no root or no public key, verify is no bool, or they contradict each other.
        ModuleNotFoundError
            If there is an owner, and the extra ``sign`` is missing.
        """
        if verify is not None and not isinstance(verify, bool):
            raise TypeError(f"verify must be a bool or None, not {type(verify).__name__}")
        root, owner = _as_bytes("root", root), _as_bytes("owner", owner)
        for given, name in ((root, "root"), (owner, "owner")):
            if given is not None and verify is False:
                raise ValueError(f"verify=False checks no page: leave it out, or the {name}")
        return cls(root, verify, None if owner is None else Owner(owner))

    def check(self, info: TableInfo) -> bool:
        """Tell whether the pages of a table are to be checked.

        Raises
        ------
        TableMismatchError
            If it has no root, or another than the user demands. `Owner.accept` does the rest.
        """
        if info.root is None:
            if self.verify or self.root is not None or self.owner is not None:
                raise TableMismatchError(
                    f"the servers' table of epoch {info.epoch_id} has no root: nothing would show "
                    "that its pages are right"
                )
            return False
        if self.root is not None and self.root.hex() != info.root:
            raise TableMismatchError(
                f"the servers' table of epoch {info.epoch_id} has another root than the one that "
                "was asked for"
            )
        return self.verify is not False


def _as_bytes(name: str, given: bytes | str | None) -> bytes | None:
    """Take 32 bytes that a user gave, or their hexadecimal digits."""
    if isinstance(given, str):
        return from_hexadecimal(name, given, HASH_BYTES)
    if given is not None and not isinstance(given, bytes):
        raise TypeError(f"{name} must be bytes or a str, not {type(given).__name__}")
    if given is not None and len(given) != HASH_BYTES:
        raise ValueError(f"{name} must have {HASH_BYTES} bytes, not {len(given)}")
    return given
