"""`morphogen tune` and `morphogen bench --variants`, over the stand-in driver."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import morphogen as mg
import morphogen.bench.variants as variants
from morphogen.bench.statistics import Spread
from morphogen.cli import main
from morphogen.engine.cuda.tuning import VARIABLE, tuning_of, write_tuning
from standin_driver import StandIn

SMALL = ("--pages", "70", "--page-size", "64")


def test_tune_writes_a_choice_that_engines_take(
    gpu: StandIn,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # Whatever is fastest here: a stand-in's times say nothing.
    monkeypatch.setattr(variants, "_LEAST_GAIN", 0)
    monkeypatch.setattr(Spread, "of_ratio", lambda values, base: Spread(2, 2, 2))
    path = tmp_path / "tuning.json"
    assert main(["tune", *SMALL, "--iterations", "1", "--output", str(path), "--json"]) == 0
    data: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert set(data["kernels"]) == {"3", "6", "12", "24"}
    monkeypatch.setenv(VARIABLE, str(path))
    assert {str(keys): name for keys, name in tuning_of(0).kernels.items()} == data["kernels"]
    assert main(["doctor"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    kernels = data["kernels"]
    assert f"kernels, cuda:0 {kernels['3']} for 3 keys, {kernels['6']} for 6 keys, " in shown


def test_the_doctor_says_why_default_kernels_run(
    gpu: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor"]) == 0
    assert f"default: {VARIABLE} names no file" in " ".join(capsys.readouterr().out.split())


def test_tune_needs_a_place_to_write_to(gpu: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", *SMALL]) == 2
    assert "give --output FILE" in capsys.readouterr().err
    assert gpu.launches() == []


def test_tune_replaces_no_other_file(
    gpu: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "pages.bin"
    path.write_bytes(b"pages of somebody")
    assert main(["tune", *SMALL, "--output", str(path)]) == 2
    assert "pages.bin is no file of choices, and stays as it is" in capsys.readouterr().err
    assert path.read_bytes() == b"pages of somebody"
    assert gpu.launches() == []


def test_tune_finds_out_first_whether_it_can_write(
    gpu: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert main(["tune", *SMALL, "--output", str(tmp_path / "file" / "tuning.json")]) != 0
    assert "tuning.json" in capsys.readouterr().err
    assert gpu.launches() == []


def test_tune_chooses_nothing_if_a_kernel_answers_wrong(
    gpu: StandIn,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    result = SimpleNamespace(failures=("4 queries by red: differs",))
    monkeypatch.setattr("morphogen.bench.run_benchmark", lambda *_, **options: result)
    path = tmp_path / "tuning.json"
    assert main(["tune", *SMALL, "--output", str(path)]) == 1
    assert capsys.readouterr() == ("", "morphogen: 4 queries by red: differs\n")
    assert not path.exists()


@pytest.mark.parametrize("read", [True, False])
def test_tune_says_whether_engines_read_its_file(
    read: bool,
    gpu: StandIn,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "tuning.json"
    monkeypatch.setenv(VARIABLE, str(path if read else tmp_path / "other.json"))
    assert main(["tune", *SMALL, "--iterations", "1", "--output", str(path)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert ("Engines on this device take these from now on" in shown) == read
    assert (f"where {VARIABLE} names" in shown) != read


def test_bench_measures_variants_beside_the_read(
    gpu: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rows.csv"
    code = main(
        [
            *("bench", "--device", "cuda", *SMALL, "--batch-sizes", "1,2,4", "--iterations", "1"),
            *("--warmup", "0", "--variants", "all", "--csv", str(path)),
        ]
    )
    assert code == 0
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    rows = list(csv.DictReader(lines))
    found = [(row["q"], row["variant"], row["micro_batch_sizes"]) for row in rows]
    assert found[:4] == [("1", "", "1"), ("1", "default", "1"), ("1", "red", "1"), ("2", "", "2")]
    assert ("2", "red", "1x2") not in found, "chunks of one query only where it is alone"
    assert ("4", "two_blocks", "2x2") in found
    assert ("4", "masks", "4") in found
    assert all(row["correct"] == "true" for row in rows)
    output = capsys.readouterr().out
    assert "Best for this device and table" in output
    assert "chunks of 1 (3 keys): " in output
    assert "chunks of 2 (6 keys): " in output


@pytest.mark.parametrize(
    ("kernels", "words"),
    [({}, "default"), ({6: "red", 12: "masks"}, "red for 6 keys, masks for 12 keys")],
)
def test_bench_says_which_kernels_the_engine_took(
    kernels: dict[int, str],
    words: str,
    gpu: StandIn,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "tuning.json"))
    status = mg.driver_status()
    write_tuning(tmp_path / "tuning.json", status, status.devices[0], kernels, "")
    command = ("bench", "--device", "cuda", *SMALL, "--batch-sizes", "2", "--iterations", "1")
    assert main([*command, "--csv", str(tmp_path / "rows.csv")]) == 0
    assert f"# kernels: {words}\n" in (tmp_path / "rows.csv").read_text()
    shown = " ".join(capsys.readouterr().out.split())
    assert (f"kernels: {words};" in shown) == bool(kernels)


@pytest.mark.parametrize("name", ["masks", "default"])
def test_bench_says_that_no_variant_ran(
    name: str, gpu: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("bench", "--device", "cuda", *SMALL, "--batch-sizes", "2", "--iterations", "1")
    assert main([*command, "--variants", name]) == 0
    assert "Variants of the kernels: none of these runs" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--device", "cuda", "--variants", "fast"), "variant must be one of default, red"),
        (("--device", "cpu", "--variants", "all"), "only on one GPU"),
        (("--device", "cuda", "--variants", "red,red"), "variants must all be different"),
    ],
)
def test_variants_that_are_none_are_refused(
    arguments: tuple[str, ...], message: str, gpu: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *SMALL, "--batch-sizes", "2", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert {launch.kernel for launch in gpu.launches()} <= {"morphogen_fill"}


def test_a_gain_that_may_be_noise_leaves_the_default() -> None:
    def best(gain: Spread, name: str) -> str:
        return variants.describe_best(variants.BestVariant(2, 6, 8, name, gain, "red"))

    assert best(Spread(0.9, 1.02, 1.1), "default").startswith("the default; the best variant, red,")
    assert best(Spread(1.1, 1.2, 1.3), "red") == "red, 1.200x [1.100-1.300] as fast as the default"
