"""The choice of kernel variants for a device: the file, and what engines take from it."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import morphogen as mg
from morphogen.engine.cuda.tuning import VARIABLE, tuning_of, tuning_path, write_tuning
from naive import naive_answers, random_rows
from small_gpu_engine import ARRAY, open_gpu
from standin_driver import StandIn

BATCH = mg.make_queries(random_rows(4, 3, len(ARRAY)), len(ARRAY))[0]


@pytest.fixture
def file(gpu: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "folder" / "tuning.json"
    monkeypatch.setenv(VARIABLE, str(path))
    return path


def write(path: Path, kernels: dict[int, str]) -> None:
    status = mg.driver_status()
    write_tuning(path, status, status.devices[0], kernels, "a note")


def change(path: Path, **values: Any) -> None:
    content = json.loads(path.read_text())
    content["choices"][0] |= values
    path.write_text(json.dumps(content))


def kernels_that_ran(gpu: StandIn, **options: Any) -> set[str]:
    with open_gpu() as engine:
        answer = engine.answer(BATCH, **options)
        assert np.array_equal(answer.pages, naive_answers(ARRAY, BATCH))
    return {launch.kernel for launch in gpu.launches()}


def test_an_engine_takes_the_choice(file: Path, gpu: StandIn) -> None:
    write(file, {6: "red", 12: "masks"})
    with open_gpu() as engine:
        assert engine.tuned == {6: "red", 12: "masks"}
    assert kernels_that_ran(gpu) == {"morphogen_scan_6_red"}
    assert kernels_that_ran(gpu, max_micro_batch=4) >= {"morphogen_scan_12_masks"}


def test_a_kernel_that_is_not_in_the_choice_is_the_default_one(file: Path, gpu: StandIn) -> None:
    write(file, {12: "red"})
    assert kernels_that_ran(gpu) == {"morphogen_scan_6"}


def test_a_variant_that_is_asked_for_goes_first(file: Path, gpu: StandIn) -> None:
    write(file, {6: "red"})
    assert kernels_that_ran(gpu, variant="default") == {"morphogen_scan_6"}


def test_without_a_file_the_default_stays_and_nobody_is_warned(file: Path, gpu: StandIn) -> None:
    assert kernels_that_ran(gpu) == {"morphogen_scan_6"}
    assert tuning_of(0).reason.startswith("not tuned")


def test_choices_of_other_devices_are_kept(file: Path) -> None:
    write(file, {6: "red"})
    change(file, device="Another GPU")
    write(file, {6: "plain"})
    write(file, {6: "stream"})
    choices = json.loads(file.read_text())["choices"]
    assert [(one["device"], one["kernels"]) for one in choices] == [
        ("Another GPU", {"6": "red"}),
        ("Stand-in GPU", {"6": "stream"}),
    ]
    assert tuning_of(0).kernels == {6: "stream"}


def test_a_choice_is_written_by_one_at_a_time(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(file, {6: "red"})
    folder = os.open(file.parent, os.O_RDONLY)
    refused: list[str] = []

    def tried(step: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                refused.append(step)
            else:
                fcntl.flock(folder, fcntl.LOCK_UN)
            return function(*arguments, **options)

        return run

    for owner, name in ((json, "loads"), (Path, "replace")):
        monkeypatch.setattr(owner, name, tried(name, getattr(owner, name)))
    write(file, {6: "plain"})
    assert refused == ["loads", "replace"]
    fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)  # no longer
    os.close(folder)


@pytest.mark.parametrize("content", [b"", b"[]", b"pages of somebody"])
def test_only_files_of_choices_are_replaced(content: bytes, file: Path) -> None:
    file.parent.mkdir()
    file.write_bytes(content)
    if not content:  # as after a loss of power
        write(file, {6: "red"})
        return
    with pytest.raises(ValueError, match=r"tuning\.json is no file of choices, and stays"):
        write(file, {6: "red"})
    assert file.read_bytes() == content


def test_choices_that_cannot_be_read_are_not_replaced(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(file, {6: "red"})
    before = file.read_bytes()

    def fail(*_: object) -> None:
        raise PermissionError(13, "Permission denied", str(file))

    with monkeypatch.context() as patched:
        patched.setattr("morphogen.engine.cuda.tuning.open_file", fail)
        with pytest.raises(PermissionError, match=r"tuning\.json"):
            write(file, {6: "plain"})
    assert file.read_bytes() == before


def make_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda path: path.write_bytes(b""), "Expecting value"),
    "no text": (lambda path: path.write_bytes(b"\xff\xfe\0"), ""),
    "nested": (lambda path: path.write_text("[" * 100_000), ""),
    "long": (lambda path: path.write_bytes(b" " * 2_000_000), "too long"),
    "of another format": (lambda path: path.write_text('{"format": 2}'), "no file of choices"),
    "a list": (lambda path: path.write_text("[]"), "no file of choices"),
    "damaged": (lambda path: path.write_text('{"format": 1, "choices": [3]}'), "damaged"),
    "of no kernels": (lambda path: change(path, kernels=None), "its choice is damaged"),
    "of odd keys": (lambda path: change(path, kernels={"six": "red"}), "its choice is damaged"),
    "of odd names": (lambda path: change(path, kernels={"6": ["red"]}), "its choice is damaged"),
    "of another driver": (lambda path: change(path, driver="12.9"), "for another driver"),
    "of another version": (lambda path: change(path, morphogen="0.0"), "version of morphogen"),
    "of other devices": (lambda path: change(path, device="GPU"), "for other devices"),
    "of an unknown variant": (lambda path: change(path, kernels={"6": "x"}), "no x for 6 keys"),
    "that does not fit": (
        lambda path: change(path, kernels={"6": "bulk_prefetch"}),
        "no bulk_prefetch for 6 keys",
    ),
    "for a kernel that the variant has not": (
        lambda path: change(path, kernels={"24": "masks"}),
        "no masks for 24 keys",
    ),
    "a pipe": (make_pipe, "is a pipe"),
    "a folder": (make_folder, "Is a directory"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_file_that_cannot_serve_is_passed_over_with_a_warning(
    name: str, file: Path, gpu: StandIn
) -> None:
    damage, message = FAULTS[name]
    write(file, {6: "red"})
    damage(file)
    with pytest.warns(RuntimeWarning, match=f"tuning.json is passed over: .*{message}"):
        assert kernels_that_ran(gpu) == {"morphogen_scan_6"}


@pytest.mark.parametrize("kind", ["a pipe", "a folder"])
def test_what_is_no_file_is_not_replaced(kind: str, file: Path) -> None:
    write(file, {6: "red"})
    damage, message = FAULTS[kind]
    damage(file)
    with pytest.raises((ValueError, OSError), match=message):
        write(file, {6: "red"})
    assert not file.is_file()


def test_a_variant_that_the_driver_refuses_is_passed_over(file: Path, gpu: StandIn) -> None:
    write(file, {6: "red"})
    gpu.inject("cuModuleLoadDataEx", "CUDA_ERROR_INVALID_PTX", call=2)
    with pytest.warns(RuntimeWarning, match="red, as tuned, is passed over: cuModuleLoadDataEx"):
        assert kernels_that_ran(gpu) == {"morphogen_scan_6"}


def test_a_file_is_replaced_whole(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(file, {6: "red"})
    before = file.read_bytes()

    def fail(self: Path, target: Path) -> None:
        raise OSError("no")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="no"):
        write(file, {6: "plain"})
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_the_file_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", "/etc/xdg")
    assert tuning_path() == Path("/etc/xdg/morphogen/tuning.json")
    for none in ("", "relative"):
        monkeypatch.setenv("XDG_CONFIG_HOME", none)
        assert tuning_path() == tmp_path / ".config/morphogen/tuning.json"
    monkeypatch.setenv(VARIABLE, "")
    assert tuning_path() is None


def test_a_user_without_a_home_has_no_file(gpu: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (VARIABLE, "XDG_CONFIG_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 4_000_000_000)  # whom the system does not know
    assert tuning_path() is None
    assert tuning_of(0).reason == f"{VARIABLE} names no file"
    assert kernels_that_ran(gpu) == {"morphogen_scan_6"}
