"""``morphogen table keygen | sign``, and what ``info`` and ``root`` say of a manifest."""

from __future__ import annotations

import json
import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from morphogen.cli import main
from morphogen.cli.output import FAILED, OK, USAGE
from morphogen.cli.table_sign import unix_time
from morphogen.epochs.manifest import Manifest, public_key, read_manifest
from morphogen.keyword.file import read_header

NEXT = ("--epoch", "9", "--previous")
RECORDED = Path(__file__).resolve().parents[1] / "vectors" / "keyword_v1.table"


@pytest.fixture
def folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Path:
    """An owner's key and two epochs of a table."""
    monkeypatch.chdir(tmp_path)
    assert main(["table", "keygen", "-o", "owner.key"]) == OK
    for epoch in (7, 8):
        Path("pages").write_bytes(bytes([epoch]) * 10_000)
        assert main(["table", "seal", "pages", "-o", f"fruit-{epoch}.table"]) == OK
    capsys.readouterr()
    return tmp_path


def sign(table: str, *options: str) -> int:
    return main(["table", "sign", table, "--key", "owner.key", *options])


def owner() -> bytes:
    return public_key(Path("owner.key").read_bytes())


# Keys


def test_a_key_is_its_makers_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = os.umask(0)
    try:
        assert main(["table", "keygen", "-o", "other.key"]) == OK
    finally:
        os.umask(before)
    assert stat.S_IMODE(Path("other.key").stat().st_mode) == 0o600
    text = Path("other.key").read_bytes()
    load_pem_private_key(text, password=None)
    assert capsys.readouterr() == (f"{public_key(text).hex()}\n", "")


def test_a_key_is_never_overwritten_unasked(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = Path("owner.key").read_bytes()
    assert main(["table", "keygen", "-o", "owner.key"]) == USAGE
    assert "owner.key is there already: --force replaces it" in capsys.readouterr().err
    assert sign("fruit-7.table", "-o", "owner.key", "--force") == USAGE
    assert "owner.key is the file that is read" in capsys.readouterr().err
    assert Path("owner.key").read_bytes() == before
    Path("owner.key").chmod(0o644)
    assert main(["table", "keygen", "-o", "owner.key", "--force", "--json"]) == OK
    assert Path("owner.key").read_bytes() != before
    assert stat.S_IMODE(Path("owner.key").stat().st_mode) == 0o600
    assert json.loads(capsys.readouterr().out) == {"key": "owner.key", "owner": owner().hex()}
    assert main(["table", "keygen", "-o", "-"]) == USAGE
    assert main(["table", "keygen", "-o", "none/owner.key"]) == USAGE


# Manifests


def test_the_first_manifest_lies_beside_its_table(folder: Path) -> None:
    assert sign("fruit-7.table") == OK
    root = read_header("fruit-7.table").root
    assert root is not None
    manifest = read_manifest("fruit-7.manifest")
    manifest.verify(owner(), root)
    assert manifest == Manifest(
        manifest.table_id, 7, 0, 0, root, bytes(32), owner(), manifest.signature
    )
    assert sign("fruit-7.table", "-o", "other") == OK
    assert read_manifest("other").table_id != manifest.table_id


def test_the_next_manifest_goes_on_from_the_one_before(folder: Path) -> None:
    assert sign("fruit-7.table", "--table-id", "0F" * 16) == OK
    first = read_manifest("fruit-7.manifest")
    times = ("--activate-at", "2027-01-31T13:00+01:00", "--expires", "1900000000")
    assert sign("fruit-8.table", "--previous", "fruit-7.manifest", *times) == OK
    second = read_manifest("fruit-8.manifest")
    second.verify(owner(), read_header("fruit-8.table").root, now=0)
    assert first.table_id == second.table_id == b"\x0f" * 16
    assert (second.epoch, second.previous) == (8, first.digest)
    assert (second.activate_at, second.expires) == (1_801_396_800, 1_900_000_000)


def test_a_manifest_may_take_the_place_of_the_one_before(folder: Path) -> None:
    Path("fruit-7.table").rename("fruit.table")
    assert sign("fruit.table", "--epoch", "7") == OK
    first = read_manifest("fruit.manifest")
    Path("fruit-8.table").rename("fruit.table")
    options = ("--epoch", "8", "--previous", "fruit.manifest")
    assert sign("fruit.table", *options) == USAGE
    assert read_manifest("fruit.manifest") == first
    assert sign("fruit.table", *options, "--force") == OK
    assert read_manifest("fruit.manifest").previous == first.digest


def test_a_link_is_signed_by_the_name_that_it_leads_to(folder: Path) -> None:
    Path("current.table").symlink_to("fruit-8.table")
    assert sign("current.table") == OK
    assert read_manifest("fruit-8.manifest").epoch == 8


def test_a_delta_is_signed_as_the_table_that_it_leads_to(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = ("fruit-7.table", "fruit-8.table")
    assert main(["table", "diff", *tables, "-o", "fruit-8.delta"]) == FAILED  # all pages differ
    assert sign("fruit-8.delta", "--epoch", "9") == USAGE
    assert "fruit-8.delta leads to epoch 8, not 9" in capsys.readouterr().err
    assert sign("fruit-8.delta") == OK
    assert read_manifest("fruit-8.manifest").epoch == 8
    read_manifest("fruit-8.manifest").verify(owner(), read_header("fruit-8.table").root)
    damaged = bytearray(Path("fruit-8.delta").read_bytes())
    damaged[-1] ^= 1
    Path("fruit-8.delta").write_bytes(damaged)
    assert sign("fruit-8.delta", "--force") == USAGE
    assert "fruit-8.delta was altered: " in capsys.readouterr().err


def test_times_are_moments_seconds_from_now_or_unix_seconds() -> None:
    assert unix_time("2027-01-31T12:00Z") == unix_time("1801396800") == 1_801_396_800
    before = int(time.time())
    assert before + 60 <= unix_time("+60") <= int(time.time()) + 60


@pytest.mark.parametrize("text", ["2027-01-31T12:00", "-5", "soon", "+1.5", "1950-01-01T00:00Z"])
def test_a_time_that_is_none_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--key", "none", f"--expires={text}"]
    assert main(["table", "sign", "none", *options]) == USAGE
    message = f"must be a time as 2027-01-31T12:00Z, +SECONDS from now, or Unix seconds, not {text}"
    assert message in capsys.readouterr().err.replace("'", "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["fruit-7.table", "--previous", "fruit-8.manifest"], "above that of --previous, 8, not 7"),
        (["fruit.table", *NEXT, "other.manifest"], "the manifest is by the owner"),
        (
            ["fruit.table", *NEXT, "fruit-8.manifest", "--table-id", "00" * 16],
            "--table-id must be that of --previous, ",
        ),
        (["fruit-8.table", "--table-id", "0x"], "must be 32 hexadecimal digits, not '0x'"),
        (["fruit-8.table"], "fruit-8.manifest is there already: --force replaces it"),
        (["fruit.table"], "fruit.table has no number at the end of its name: give --epoch"),
        (["v1-1.table"], "v1-1.table is a table of version 1, which has no root"),
        (
            ["fruit-7.table", "--key", "-", "--previous", "-"],
            "--key and --previous cannot both come through the standard input",
        ),
        (["-", "--epoch", "1"], "table sign takes the name of a file, not the standard input"),
        (["pages", "--epoch", "1"], "pages is not a keyword table: it begins otherwise"),
        (
            ["fruit-7.table", "--activate-at", "5", "--expires", "5"],
            "expires must be later than activate_at, 5, or 0, not 5",
        ),
        (["fruit-7.table", "--epoch", "-1"], "epoch must be in 0..2**63 - 1, not -1"),
        (["damaged-7.table"], "damaged-7.table was altered: "),
        (["fruit-7.table", "--key", "pages"], "pages: a private key is PEM (PKCS#8) or 32 bytes"),
        (["fruit-7.table", "--key", "/dev/zero"], "/dev/zero has more than 1 MiB"),
        (["fruit-7.table", "--key", "none"], "none: No such file or directory"),
    ],
)
def test_what_is_not_signed(
    options: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sign("fruit-8.table") == OK
    assert main(["table", "keygen", "-o", "other.key"]) == OK
    assert sign("fruit-7.table", "--key", "other.key", "-o", "other.manifest") == OK
    Path("fruit.table").write_bytes(Path("fruit-7.table").read_bytes())
    Path("v1-1.table").write_bytes(RECORDED.read_bytes())
    damaged = bytearray(Path("fruit-7.table").read_bytes())
    damaged[5000] ^= 1
    Path("damaged-7.table").write_bytes(damaged)
    capsys.readouterr()
    files = set(folder.iterdir())
    assert sign(*options) == USAGE
    told = capsys.readouterr()
    assert told.out == ""
    assert message in told.err
    assert set(folder.iterdir()) == files


def test_a_key_comes_through_the_standard_input(folder: Path) -> None:
    import subprocess
    import sys

    command = [sys.executable, "-m", "morphogen", "table", "sign", "fruit-7.table", "--key", "-"]
    subprocess.run(command, input=Path("owner.key").read_bytes(), check=True, capture_output=True)
    read_manifest("fruit-7.manifest").verify(owner())


# What is shown


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert main(["table", *arguments, "--json"]) == OK
    return json.loads(capsys.readouterr().out)


def test_info_shows_a_manifest_as_sign_does(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    signed = printed(capsys, "sign", "fruit-7.table", "--key", "owner.key", "--expires", "9")
    assert printed(capsys, "info", "fruit-7.manifest") == signed
    root = read_header("fruit-7.table").root
    assert root is not None
    assert signed == {
        "manifest": "fruit-7.manifest",
        "owner": owner().hex(),
        "root": root.hex(),
        "table_id": read_manifest("fruit-7.manifest").table_id.hex(),
        "epoch": 7,
        "activate_at": 0,
        "expires": 9,
        "previous": "00" * 32,
    }
    assert main(["table", "info", "fruit-7.manifest"]) == OK
    shown = capsys.readouterr().out
    for words in (
        f"Owner  {owner().hex()}\n",
        "from  at once\n",
        "Expires  1970-01-01T00:00:09Z\n",
    ):
        assert words in shown
    assert sign("fruit-7.table", "--expires", "9" * 18, "--force") == OK
    assert f"Expires  {'9' * 18} (Unix seconds)" in capsys.readouterr().out


def test_root_prints_that_of_a_manifest(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sign("fruit-7.table") == OK
    capsys.readouterr()
    for path in ("fruit-7.table", "fruit-7.manifest"):
        assert main(["table", "root", path]) == OK
    one, other = capsys.readouterr().out.splitlines()
    assert one == other
