"""``morphogen table update``: the next version of a table, and the delta that leads there."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import morphogen.keyword.update as update_module
from keyword_tables import opened, read
from morphogen.cli import main
from morphogen.cli.output import FAILED, OK, USAGE
from morphogen.epochs.apply import apply_to_table
from morphogen.epochs.delta import open_delta, read_delta_header
from morphogen.keyword.file import open_table, read_header
from morphogen.keyword.update import NoUpdate

RECORDED = Path(__file__).resolve().parents[1] / "vectors" / "keyword_v1.table"
ITEMS = {f"key {number}": f"value {number}" for number in range(2000)}

Run = Callable[..., int]


def write_rows(path: Path, items: Mapping[str, str]) -> None:
    lines = [f"{key},{value}\n" for key, value in items.items()]
    path.write_text("".join(["key,value\n", *lines]))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a table of some rows, words-1.table."""
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "old.csv", ITEMS)
    options = ["--key", "key", "--value", "value", "-o", "words-1.table", "--page-size", "512"]
    assert main(["table", "build", "old.csv", *options]) == OK
    return tmp_path


@pytest.fixture
def update(folder: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs the command: its exit code, and what it prints."""
    capsys.readouterr()

    def run(items: Mapping[str, str], *options: str) -> tuple[int, str, str]:
        write_rows(folder / "new.csv", items)
        words = ["new.csv", "--key", "key", "--value", "value"]
        code = main(["table", "update", "words-1.table", *words, *options])
        return code, *capsys.readouterr()

    return run


def holds(path: str, items: Mapping[str, str]) -> bool:
    pages, layout = opened(Path(path))
    found = {key: read(layout, pages.body, key.encode()) for key in items}
    right = found == {key: value.encode() for key, value in items.items()}
    return right and layout.entries == len(items)


def changed_items() -> dict[str, str]:
    """Three rows gone, two others, four new."""
    items = dict(list(ITEMS.items())[3:])
    items |= {"key 7": "else", "key 8": ""}
    return items | {f"new {number}": "more" for number in range(4)}


def test_the_table_and_what_apply_makes_of_the_delta_are_one(
    update: Callable[..., tuple[int, str, str]], folder: Path
) -> None:
    items = changed_items()
    code, printed, _ = update(items, "-o", "words-2.table", "--delta", "2.delta", "--json")
    assert code == OK
    assert holds("words-2.table", items)
    data: dict[str, Any] = json.loads(printed)
    header = open_delta("2.delta").header
    assert (header.from_epoch, header.to_epoch) == (1, 2)
    assert header.layout == read_header("words-2.table").layout
    new = read_header("words-2.table")
    assert new.root is not None
    expected = {
        "table": "words-2.table",
        "root": new.root.hex(),
        "rows": 2001,
        "entries": 2001,
        "rebuilt": False,
        "reason": None,
        "inserted": 4,
        "changed": 2,
        "deleted": 3,
        "pages_touched": header.count,
        "delta": "2.delta",
        "delta_bytes": Path("2.delta").stat().st_size,
        "advice": None,
    }
    assert data.items() >= expected.items()
    assert header.count <= 9 + data["moved"]
    apply_to_table("words-1.table", "2.delta", "applied")
    assert Path("applied").read_bytes() == Path("words-2.table").read_bytes()
    assert sorted(path.name for path in folder.iterdir()) == [
        "2.delta",
        "applied",
        "new.csv",
        "old.csv",
        "words-1.table",
        "words-2.table",
    ]


@pytest.mark.parametrize("levels", ["0", "1", "4"])
def test_a_chain_of_updates_and_one_of_deltas_lead_to_the_same_bytes(
    folder: Path, levels: str
) -> None:
    """Each update adds, changes and deletes rows whose values take up to three slots."""
    choice, items = random.Random(7), {f"{n}": "v" * (n % 30) for n in range(600)}
    options = ["--key", "key", "--value", "value", "--force"]
    sizes = ["--page-size", "256", "--value-size", "10", "--proof-levels", levels]
    write_rows(folder / "new.csv", items)
    assert main(["table", "build", "new.csv", *options, *sizes, "-o", "t-0.table"]) == OK
    shutil.copy("t-0.table", "applied-0")
    for epoch in range(1, 9):
        for key in choice.sample(sorted(items), 30):
            del items[key]
        for _ in range(40):
            items[str(choice.randrange(1200))] = "w" * choice.randrange(30)
        write_rows(folder / "new.csv", items)
        outputs = ["-o", f"t-{epoch}.table", "--delta", "delta"]
        before = f"t-{epoch - 1}.table"
        assert main(["table", "update", before, "new.csv", *options, *outputs]) == OK
        apply_to_table(f"applied-{epoch - 1}", "delta", f"applied-{epoch}")
        assert Path(f"applied-{epoch}").read_bytes() == Path(f"t-{epoch}.table").read_bytes()
        pages, layout = opened(Path(f"t-{epoch}.table"))
        found = {key: read(layout, pages.body, key.encode()) for key in items}
        assert found == {key: value.encode() for key, value in items.items()}
        assert read(layout, pages.body, b"no such key") is None


def test_people_are_told_what_changed(update: Callable[..., tuple[int, str, str]]) -> None:
    code, printed, _ = update(changed_items(), "-o", "new.table")
    assert code == OK
    root = read_header("new.table").root
    assert root is not None
    for words in (f"Root  {root.hex()}", "entries that are gone", "pages touched", "bytes of a"):
        assert words in printed
    assert "Delta" not in printed
    assert "anew" not in printed


def test_the_same_rows_make_the_same_table(update: Callable[..., tuple[int, str, str]]) -> None:
    code, printed, _ = update(ITEMS, "-o", "words-2.table", "--delta", "2.delta", "--json")
    assert code == OK
    assert json.loads(printed)["pages_touched"] == 0
    assert Path("words-2.table").read_bytes() == Path("words-1.table").read_bytes()
    assert read_delta_header("2.delta").count == 0


def test_epochs_come_from_options_or_names(
    update: Callable[..., tuple[int, str, str]], folder: Path
) -> None:
    (folder / "link-9").symlink_to("words-1.table")

    def epochs(*options: str) -> tuple[int, int]:
        code, _, complaint = update(ITEMS, "--delta", "delta", "--force", *options)
        assert (code, complaint) == (OK, "")
        header = read_delta_header("delta")
        return header.from_epoch, header.to_epoch

    assert epochs("-o", "words-5.table") == (1, 5)
    assert epochs("-o", "words-5.table", "--epoch", "8", "--from-epoch", "3") == (3, 8)
    shutil.copy("words-1.table", "words")
    words = ["new.csv", "--key", "key", "--value", "value", "--delta", "delta", "--force"]
    assert (
        main(["table", "update", "words", *words, "-o", "words.7"]) == USAGE
    )  # no suffix: no name
    assert main(["table", "update", "words", *words, "-o", "words-7.table"]) == OK
    assert read_delta_header("delta").from_epoch == 6
    assert main(["table", "update", "link-9", *words, "-o", "words-7.table"]) == OK
    assert read_delta_header("delta").from_epoch == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("-o", "words.table", "--delta", "d"), "has no number at the end of its name: give --ep"),
        (("-o", "words-1.new", "--delta", "d"), "to_epoch must be above from_epoch, 1, not 1"),
        (("-o", "words-2.table", "--epoch", "3"), "--epoch is that of --delta: give both"),
        (("-o", "words-2.table", "--from-epoch", "3"), "--from-epoch is that of --delta"),
        (("-o", "words-2.table", "--delta", "words-2.table"), "must be another file than -o"),
        (("-o", "words-1.table", "--force"), "words-1.table is the file that is read"),
        (("-o", "new.csv", "--force"), "new.csv is the file that is read"),
        (("-o", "2", "--delta", "words-1.table", "--force"), "is the file that is read"),
        (("-o", "old.csv"), "old.csv is there already: --force replaces it"),
        (("-o", "none/there"), "there is no folder none"),
        (("-o", "-"), "table update takes names of files"),
        (("-o", "2", "--delta", "-"), "table update takes names of files"),
        (("-o", "2", "--page-size", "4k"), "--page-size must be that of words-1.table, 512, not 4"),
        (("-o", "2", "--value-size", "99"), "--value-size must be that of words-1.table, "),
        (("-o", "2", "--proof-levels", "9"), "--proof-levels must be that of words-1.table, "),
        (("-o", "2", "--delimiter", "long"), "--delimiter must be one character"),
    ],
)
def test_what_cannot_be_is_refused_and_writes_nothing(
    update: Callable[..., tuple[int, str, str]],
    folder: Path,
    options: tuple[str, ...],
    message: str,
) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    code, printed, complaint = update(ITEMS, *options)
    assert (code, printed) == (USAGE, "")
    assert message in complaint
    after = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "new.csv"}
    assert after == before


def test_options_of_the_table_itself_may_be_given(
    update: Callable[..., tuple[int, str, str]],
) -> None:
    header = read_header("words-1.table")
    assert header.layout is not None
    options = ("--page-size", "512", "--value-size", str(header.layout.value_size))
    code, *_ = update(ITEMS, "-o", "2", *options, "--proof-levels", str(header.proof_levels))
    assert code == OK


def test_only_keyword_tables_with_a_root_are_updated(
    update: Callable[..., tuple[int, str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ["old.csv", "--key", "key", "-o", "2"]
    assert main(["table", "update", str(RECORDED), *rows]) == USAGE
    assert "is a table of version 1, which has no root" in capsys.readouterr().err
    assert main(["table", "seal", "old.csv", "-o", "sealed"]) == OK
    assert main(["table", "update", "sealed", *rows]) == USAGE
    assert "only a keyword table can be updated" in capsys.readouterr().err
    assert main(["table", "update", "old.csv", *rows]) == USAGE
    assert "is not a keyword table" in capsys.readouterr().err


def test_an_altered_table_is_refused(update: Callable[..., tuple[int, str, str]]) -> None:
    with Path("words-1.table").open("r+b") as file:
        file.seek(-5000, 2)
        file.write(b"altered")
    code, _, complaint = update(ITEMS, "-o", "2")
    assert code == USAGE
    assert "was altered" in complaint
    assert not Path("2").exists()


def test_a_key_that_comes_again_is_named_by_its_line(
    update: Callable[..., tuple[int, str, str]], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "twice.csv").write_text("key,value\na,1\nb,2\na,3\n")
    words = ["table", "update", "words-1.table", "twice.csv", "--key", "key", "--value", "value"]
    assert main([*words, "-o", "2"]) == USAGE
    assert "twice.csv:4: the key is that of line 2" in capsys.readouterr().err
    for duplicates, value in (("first", "1"), ("last", "3")):
        assert main([*words, "-o", "2", "--force", "--duplicates", duplicates]) == OK
        assert holds("2", {"a": value, "b": "2"})


def test_a_value_that_does_not_fit_makes_a_table_anew_and_no_delta(
    update: Callable[..., tuple[int, str, str]],
) -> None:
    items = ITEMS | {"key 7": "x" * 400}
    code, printed, complaint = update(items, "-o", "2.table", "--delta", "2.delta", "--json")
    assert code == FAILED
    assert "2.delta was not written: the tables differ in shape" in complaint
    assert not Path("2.delta").exists()
    data = json.loads(printed)
    before, after = read_header("words-1.table").layout, read_header("2.table").layout
    assert before is not None
    assert after is not None
    assert after.seed != before.seed
    assert data["rebuilt"]
    assert (
        data["reason"]
        == f"a value has 400 bytes, and the table has room for {before.max_value_size}"
    )
    assert [data[name] for name in ("inserted", "pages_touched", "delta_bytes", "delta")] == [
        None
    ] * 4
    assert f"a lookup asks for {3 * after.fragments} pages, not 3, and" in data["advice"]
    pages, layout = opened(Path("2.table"))
    assert read(layout, pages.body, b"key 7") == b"x" * 400
    code, printed, complaint = update(items, "-o", "3.table")
    assert (code, complaint) == (OK, "")
    assert "Built anew: a value has 400 bytes" in printed


def test_a_table_built_anew_in_one_shape_has_a_delta(
    update: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    no_update = NoUpdate("no place was found")
    monkeypatch.setattr(update_module, "update_table", lambda *_: no_update)
    code, printed, _ = update(ITEMS, "-o", "2.table", "--delta", "2.delta", "--json")
    assert code == OK
    data = json.loads(printed)
    assert (data["rebuilt"], data["reason"]) == (True, "no place was found")
    assert data["delta_bytes"] == Path("2.delta").stat().st_size < Path("2.table").stat().st_size
    assert holds("2.table", ITEMS)
    apply_to_table("words-1.table", "2.delta", "applied")
    assert Path("applied").read_bytes() == Path("2.table").read_bytes()


def test_a_delta_as_large_as_the_table_is_not_written(
    update: Callable[..., tuple[int, str, str]],
) -> None:
    """Few pages, all of which change: a delta has a header, and a block of their numbers."""
    few = dict(list(ITEMS.items())[:100])
    write_rows(Path("old.csv"), few)
    options = ["--key", "key", "--value", "value", "--page-size", "512"]
    assert main(["table", "build", "old.csv", *options, "-o", "words-1.table", "--force"]) == OK
    others = {key: value[::-1] for key, value in few.items()}
    code, printed, complaint = update(others, "-o", "2.table", "--delta", "2.delta")
    assert code == FAILED
    assert "2.delta was not written: a delta would take" in complaint
    assert "no fewer than the table" in printed
    assert not Path("2.delta").exists()
    assert holds("2.table", others)
    assert open_table("2.table").layout == open_table("words-1.table").layout  # keeps its places


def test_nothing_is_left_of_an_update_that_a_full_disk_ends(
    update: Callable[..., tuple[int, str, str]],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "2.table")

    monkeypatch.setattr(update_module, "write_pages", full)
    code, printed, complaint = update(ITEMS, "-o", "2.table", "--delta", "2.delta")
    assert (code, printed) == (USAGE, "")
    assert "2.table: No space left on device" in complaint
    assert not Path("2.table").exists()
    assert not Path("2.delta").exists()
