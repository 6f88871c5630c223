"""A client takes the whole cap of a table before it sends a key, checks it, and keeps it."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import morphogen.client.cap as caps
import morphogen.client.rules as rules
import morphogen.wire as wire
from fake_server import PATIENCE, FakeServer, client, sealed_pages, two_servers
from morphogen.client import AsyncClient, Client
from morphogen.errors import (
    DeadlineError,
    EpochMismatchError,
    MorphogenError,
    ServerError,
    TableMismatchError,
)
from served_table import LiveApp
from server_faults import Reply, dropped, flipped_byte, half, instead, problem, stuck, xored_pages

Pair = tuple[FakeServer, FakeServer]
SEAL = sealed_pages()
CAP = SEAL.cap.tobytes()
PATH = wire.cap_path(7)


def paths(server: FakeServer) -> list[str]:
    return [seen.path for seen in server.seen]


def assert_no_key_was_sent(servers: Pair) -> None:
    assert not servers[0].batches
    assert not servers[1].batches


def with_body(body: bytes) -> Any:
    return lambda reply: replace(reply, body=body)


def with_header(name: str, value: str) -> Any:
    return lambda reply: replace(reply, headers={**reply.headers, name: value})


def test_the_cap_is_taken_from_the_first_server_once_and_before_a_key_is_sent() -> None:
    with two_servers(seal=SEAL) as servers, client((servers[1], servers[0])) as reader:
        for _ in range(3):
            reader.get([4])
        assert paths(servers[1]) == [wire.EPOCH_PATH, PATH, *[wire.QUERY_PATH] * 3]
        assert paths(servers[0]) == [wire.EPOCH_PATH, *[wire.QUERY_PATH] * 3]
        asked = servers[1].seen[1]
        assert (asked.method, asked.body) == ("GET", b"")
        assert dict(asked.headers)["accept"] == "application/octet-stream"


@pytest.mark.parametrize("byte", [*range(0, len(CAP), 13), len(CAP) - 1])
def test_a_cap_with_a_flipped_byte_is_refused_before_a_key_is_sent(byte: int) -> None:
    with two_servers(seal=SEAL) as servers:
        servers[0].then(flipped_byte(byte), path=PATH)
        message = f"^{servers[0].url}: its cap is not that of the table's root$"
        with pytest.raises(ServerError, match=message):
            client(servers)
        assert_no_key_was_sent(servers)
        with client(servers) as reader:  # it is asked for anew
            assert (reader.get([4]) == SEAL.pages[[4]]).all()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (with_body(b""), "the cap must have 416 bytes, not 0"),
        (with_body(CAP[:-1]), "the cap must have 416 bytes, not 415"),
        (with_body(CAP[:-32]), "the cap must have 416 bytes, not 384"),
        (with_body(CAP + b"x"), "more than the 416 bytes allowed"),
        (with_body(CAP * 50_000), "more than the 416 bytes allowed"),
        (with_body(CAP[32:] + CAP[:32]), "its cap is not that of the table's root"),
        (with_body(sealed_pages(51).cap.tobytes()), "its cap is not that of the table's root"),
        (with_header("Content-Type", wire.JSON), "content type must be application/octet-stream"),
        (with_header("Content-Encoding", "gzip"), "must not be compressed"),
        (instead(problem(500)), "500 Internal Server Error"),
        (instead(Reply(302, {"Location": "http://127.0.0.1:1/"})), "redirects are not followed"),
        (instead(Reply(304)), "304"),
    ],
)
def test_what_is_not_the_cap_is_refused_before_a_key_is_sent(fault: Any, message: str) -> None:
    assert len(CAP) == 416
    with two_servers(seal=SEAL) as servers:
        servers[0].then(fault, path=PATH)
        with pytest.raises(ServerError, match=message):
            client(servers)
        assert_no_key_was_sent(servers)
        assert PATH not in paths(servers[1])  # the other is not asked instead


@pytest.mark.parametrize("fault", [dropped, half, instead(problem(503))])
def test_a_passing_fault_is_got_over(fault: Any) -> None:
    with two_servers(seal=SEAL) as servers:
        servers[0].then(fault, fault, path=PATH)
        with client(servers) as reader:
            assert (reader.get([4]) == SEAL.pages[[4]]).all()


def test_a_cap_has_more_time_than_other_messages_but_not_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rules, "CAP_BYTES_A_SECOND", len(CAP) / 0.25)
    with two_servers(seal=SEAL) as servers:
        servers[0].then(stuck, path=PATH)
        with pytest.raises(DeadlineError, match=r"no whole answer within 0\.35 s"):
            client(servers, timeout=0.1)
        assert_no_key_was_sent(servers)


def test_a_table_that_was_replaced_before_its_cap_was_asked_for_is_followed() -> None:
    newer = sealed_pages(51)
    with two_servers(seal=SEAL) as servers:

        def replaced(reply: Reply) -> Reply:
            for server in servers:
                server.set_table(newer.pages, epoch=8, seal=newer)
            return problem(404)

        servers[0].then(replaced, path=PATH)
        with client(servers) as reader:
            assert reader.root == newer.root
            assert (reader.get([50]) == newer.pages[[50]]).all()


def test_a_server_without_the_cap_is_asked_a_few_times() -> None:
    with two_servers(seal=SEAL) as servers:
        servers[0].lie(instead(problem(404)), path=PATH)
        with pytest.raises(EpochMismatchError, match="404 Not Found: it has no cap of epoch 7"):
            client(servers, backoff=0)
        assert paths(servers[0]) == [wire.EPOCH_PATH, PATH] * rules.EPOCH_TRIES
        assert_no_key_was_sent(servers)


def test_a_cap_too_large_to_keep_is_refused_before_it_is_asked_for() -> None:
    said = {"num_pages": 2**25 + 1, "proof_levels": 0}
    with two_servers(seal=SEAL) as servers:
        for server in servers:
            server.said = said
        with pytest.raises(TableMismatchError, match="cap has 1073741856 bytes: a client takes up"):
            client(servers)
        assert paths(servers[0]) == [wire.EPOCH_PATH]


def test_a_cap_is_kept_for_its_root_whatever_the_loop_and_the_epoch() -> None:
    with two_servers(seal=SEAL) as servers:
        reader = AsyncClient([server.url for server in servers], timeout=PATIENCE, backoff=0)
        for epoch in (7, 7, 8, 9):
            for server in servers:
                server.set_table(SEAL.pages, epoch=epoch, seal=SEAL)
            assert (asyncio.run(reader.get([4])) == SEAL.pages[[4]]).all()
            assert reader.info.epoch_id == epoch
        asyncio.run(reader.close())
        assert [path for path in paths(servers[0]) if path.endswith("/cap")] == [PATH]


def test_a_connect_that_is_cancelled_in_the_cap_holds_nobody_up() -> None:
    async def connect(servers: Pair) -> None:
        reader = AsyncClient([server.url for server in servers], timeout=PATIENCE)
        servers[0].then(stuck, path=PATH)
        gone = asyncio.create_task(reader.connect())
        waits = asyncio.create_task(reader.get([4]))
        for _ in range(2):  # the epoch, the cap
            assert await asyncio.to_thread(servers[0].asked.acquire, timeout=PATIENCE)
        gone.cancel()
        assert (await waits == SEAL.pages[[4]]).all()
        with pytest.raises(asyncio.CancelledError):
            await gone
        await reader.close()

    with two_servers(seal=SEAL) as servers:
        asyncio.run(connect(servers))
        assert [path for path in paths(servers[0]) if path.endswith("/cap")] == [PATH] * 2


def test_a_client_that_is_closed_in_the_cap_says_so() -> None:
    async def connect(servers: Pair) -> None:
        reader = AsyncClient([server.url for server in servers], timeout=PATIENCE)
        servers[0].then(stuck, path=PATH)
        connecting = asyncio.create_task(reader.connect())
        for _ in range(2):
            assert await asyncio.to_thread(servers[0].asked.acquire, timeout=PATIENCE)
        await reader.close()
        with pytest.raises(MorphogenError, match="closed"):
            await connecting

    with two_servers(seal=SEAL) as servers:
        asyncio.run(connect(servers))


@pytest.mark.parametrize("steps", range(12))
def test_a_read_that_is_cancelled_at_any_step_holds_nobody_up(steps: int) -> None:
    async def read(servers: Pair) -> None:
        async with AsyncClient([server.url for server in servers], timeout=PATIENCE) as reader:
            task = asyncio.create_task(reader.get([4] * 500))
            for _ in range(steps):
                await asyncio.sleep(0.0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert (await reader.get([5]) == SEAL.pages[[5]]).all()

    with two_servers(seal=SEAL) as servers:
        asyncio.run(read(servers))


def test_a_cap_of_several_parts_comes_whole_from_a_service(tmp_path: Path) -> None:
    seal = sealed_pages(40_000, 33, 0)
    assert seal.cap.nbytes > 1 << 20
    with (
        LiveApp(seal.pages, seal=seal) as one,
        LiveApp(seal.pages, seal=seal, party=1) as other,
        Client([one.url, other.url], root=seal.root, cache_dir=tmp_path) as reader,
    ):
        assert (reader.get([4, 39_999]) == seal.pages[[4, 39_999]]).all()
        assert (tmp_path / name(seal)).read_bytes() == seal.cap.tobytes()


# Folders of caps


def name(seal: Any = SEAL) -> str:
    return f"{seal.root.hex()}.cap"


def test_a_folder_saves_the_next_client_from_asking(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    with two_servers(seal=SEAL) as servers:
        with client(servers, cache_dir=folder) as reader:
            reader.get([4])
        assert [file.name for file in folder.iterdir()] == [name()]
        assert (folder / name()).read_bytes() == CAP
        with client(servers, cache_dir=os.fspath(folder)) as reader:
            assert (reader.get([4]) == SEAL.pages[[4]]).all()
            servers[1].then(xored_pages(SEAL.pages[0]))
            with pytest.raises(MorphogenError):
                reader.get([4])
        assert paths(servers[0]).count(PATH) == 1


def spoil_flipped(file: Path) -> None:
    content = bytearray(CAP)
    content[100] ^= 1
    file.write_bytes(content)


def spoil_with_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def spoil_with_link(file: Path) -> None:
    file.unlink()
    file.symlink_to(file.parent.parent / "precious")


def spoil_with_loop(file: Path) -> None:
    file.unlink()
    file.symlink_to(file)


SPOILS: dict[str, Any] = {
    "flipped": spoil_flipped,
    "of another table": lambda file: file.write_bytes(sealed_pages(49).cap.tobytes()),
    "empty": lambda file: file.write_bytes(b""),
    "short": lambda file: file.write_bytes(CAP[:-1]),
    "long": lambda file: file.write_bytes(CAP + b"x"),
    "gone": lambda file: file.unlink(),
    "a pipe": spoil_with_pipe,
    "a link": spoil_with_link,
    "a link to itself": spoil_with_loop,
}


@pytest.mark.parametrize("spoil", SPOILS.values(), ids=SPOILS)
def test_a_spoilt_file_is_not_trusted_but_replaced(spoil: Any, tmp_path: Path) -> None:
    precious, folder = tmp_path / "precious", tmp_path / "caps"
    precious.write_bytes(b"x" * len(CAP))
    with two_servers(seal=SEAL) as servers:
        client(servers, cache_dir=folder).close()
        spoil(folder / name())
        with client(servers, cache_dir=folder) as reader:
            assert (reader.get([4]) == SEAL.pages[[4]]).all()
        assert paths(servers[0]).count(PATH) == 2
        assert not (folder / name()).is_symlink()
        assert (folder / name()).read_bytes() == CAP
        assert [file.name for file in folder.iterdir()] == [name()]
        assert precious.read_bytes() == b"x" * len(CAP)


def test_a_cap_that_was_refused_is_not_kept(tmp_path: Path) -> None:
    with two_servers(seal=SEAL) as servers:
        servers[0].then(flipped_byte(0), path=PATH)
        with pytest.raises(ServerError):
            client(servers, cache_dir=tmp_path)
        assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_costs_time_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "caps"
    with two_servers(seal=SEAL) as servers:
        reader = AsyncClient([server.url for server in servers], cache_dir=folder)
        folder.rmdir()
        assert (asyncio.run(reader.get([4])) == SEAL.pages[[4]]).all()
        asyncio.run(reader.close())
        assert caplog.messages == [f"the cap cannot be kept in {folder}: No such file or directory"]


def test_a_file_in_the_place_of_the_folder_is_an_error_at_once(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"")
    with two_servers(seal=SEAL) as servers:
        with pytest.raises(FileExistsError):
            client(servers, cache_dir=file)
        assert not servers[0].seen


def test_a_disk_that_is_full_leaves_no_part_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(caps.Path, "replace", full)
    with two_servers(seal=SEAL) as servers, client(servers, cache_dir=tmp_path) as reader:
        assert reader.authenticated
        assert not list(tmp_path.iterdir())
