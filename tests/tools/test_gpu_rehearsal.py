"""The first hour of docs/benchmarks.md, rehearsed: all stages, with the stand-in driver.

``HOST=FOLDER/env tools/gpu/wheels.sh FOLDER/wheels`` makes an environment of CPython 3.12 that has
what such a machine has, and the wheels that are carried there. With ``--gpu-host=FOLDER``, as in
CI, that is rehearsed. Else it is this Python, which has all requirements.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest

from gpu_check_runs import CHECK, ROOT, STAGES, Run, read_csv, run, small_work, table

GPU_HOST = "3.12"  # the Python of machines with CUDA's toolkit, as tools/gpu/wheels.sh takes them

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Name the Python that the first hour is rehearsed on in each test's id."""
    if "whole" in metafunc.fixturenames:
        given = metafunc.config.getoption("--gpu-host")
        name = "this Python" if given is None else f"CPython {GPU_HOST}"
        metafunc.parametrize("whole", [given], ids=[name], indirect=True, scope="module")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Make a repository with one commit on main, and return it with the commit's hash."""
    if shutil.which("git") is None:
        pytest.skip("needs git")
    folder = tmp_path_factory.mktemp("repository")
    identity = ("-c", "user.name=nobody", "-c", "user.email=nobody@localhost")
    for arguments in (
        ("init", "--quiet", "--initial-branch=main"),
        (*identity, "commit", "--quiet", "--allow-empty", "--message=first"),
    ):
        subprocess.run(["git", "-C", folder, *arguments], check=True)
    shown = subprocess.run(
        ["git", "-C", folder, "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    )
    return folder, shown.stdout.strip()


def make_wheel(folder: Path) -> None:
    """Pack the installed package, with the Python of the sources, as a wheel."""
    installed = distribution("morphogen")
    files = {str(file): Path(str(file.locate())) for file in installed.files or []}
    files = {name: path for name, path in files.items() if name.startswith("morphogen/")}
    source = ROOT / "src"
    files |= {str(path.relative_to(source)): path for path in source.rglob("*.py")}
    information = f"morphogen-{installed.version}.dist-info"
    (tag,) = re.findall(r"^Tag: (.*)$", installed.read_text("WHEEL") or "", re.M)
    with zipfile.ZipFile(folder / f"morphogen-{installed.version}-{tag}.whl", "w") as wheel:
        for name, path in files.items():
            if path.suffix != ".pyc" and path.is_file():
                wheel.write(path, name)
        for name in ("METADATA", "WHEEL", "entry_points.txt"):
            wheel.writestr(f"{information}/{name}", installed.read_text(name) or "")
        lines = [f"{name},,\n" for name in [*wheel.namelist(), f"{information}/RECORD"]]
        wheel.writestr(f"{information}/RECORD", "".join(lines))


def without_network() -> list[str]:
    """What a command begins with to run without a network, if this system allows that."""
    for more in ([], ["--user", "--map-root-user"]):
        command = [shutil.which("unshare") or "/unshare is not here", *more, "--net"]
        try:
            subprocess.run([*command, "true"], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        return command
    return []


@pytest.fixture(scope="module")
def whole(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    standin_directory: Path,
    repository: tuple[Path, str],
) -> Run:
    """Rehearse the first hour: a copy without git's history, no network, no compiler.

    Each stage is a command of its own, for which OUT is empty.
    """
    given: Path | None = request.param
    folder = tmp_path_factory.mktemp("whole")
    copy, wheels = folder / "copy", folder / "wheels"
    wheels.mkdir()
    if given is None:
        python = sys.executable
        make_wheel(wheels)
    else:
        python = str(given.absolute() / "env" / "bin" / "python")
        for wheel in (given.absolute() / "wheels").glob("*.whl"):
            (wheels / wheel.name).symlink_to(wheel)
    (wheels / "COMMIT").write_text(f"{repository[1]}\n")
    left = (".*", "build", "dist", "env", "html", "node_modules", "__pycache__")
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*left))
    variables = small_work(standin_directory) | {"STARTED": "2026-11-27-2100"}
    variables |= {"VENV": str(folder / "env"), "PYTHON": python}
    output, code = "", 0
    for stage in STAGES:
        one = run(
            folder,
            stage,
            options=[wheels],
            check=copy / CHECK.relative_to(ROOT),
            before=without_network(),
            **variables,
        )
        output, code = output + one.output, max(code, one.code)
        assert sorted(path.name for path in one.out.iterdir()) == [
            "gpu-check.tar.gz",
            "gpu-check.txt",
        ]
    return Run(code, output, one.results, one.out)


@pytest.mark.slow
def test_a_rehearsal_of_all_stages_fails_in_none(whole: Run) -> None:
    absent = ("facts", "memcheck", "racecheck", "initcheck", "ncu")
    expected = dict.fromkeys(STAGES, "ok") | dict.fromkeys(absent, "absent")
    expected["asv"] = "ok" if importlib.util.find_spec("asv") else "absent"
    summary = (whole.out / "gpu-check.txt").read_text()
    assert table(summary) == expected, whole.output
    assert whole.code == 0
    assert "building from source" not in whole.output
    files = {path.name for path in whole.results.iterdir()}
    measured = ("65536", "max", "variants", "bits")
    ends = {".txt", *(f"-{name}.{kind}" for name in measured for kind in ("csv", "json"))}
    assert files == {f"2026-11-27-2100-stand-in-gpu{end}" for end in ends}
    facts = (whole.results / "2026-11-27-2100-stand-in-gpu.txt").read_text(encoding="utf-8")
    assert "Stand-in GPU" in facts
    assert re.search(r"^commit [0-9a-f]{40}$", facts, re.M)


@pytest.mark.slow
def test_the_rehearsal_ran_on_its_python(whole: Run, request: pytest.FixtureRequest) -> None:
    given = request.config.getoption("--gpu-host")
    version = "{}.{}".format(*sys.version_info) if given is None else GPU_HOST
    facts = (whole.results / "2026-11-27-2100-stand-in-gpu.txt").read_text(encoding="utf-8")
    assert re.findall(r"^Python (\d+\.\d+)\.", facts, re.M) == [version]


@pytest.mark.slow
def test_the_archive_has_every_result_in_its_place(whole: Run, tmp_path: Path) -> None:
    with tarfile.open(whole.out / "gpu-check.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    unpacked = {path.name for path in (tmp_path / "docs" / "benchmarks").iterdir()}
    assert unpacked == {path.name for path in whole.results.iterdir()}
    logs = {path.name for path in (tmp_path / "build" / "gpu-logs").glob("*.txt")}
    assert logs == {f"2026-11-27-2100-{stage}.txt" for stage in STAGES}


@pytest.mark.slow
def test_a_summary_of_folders_and_archives(whole: Run, tmp_path: Path) -> None:
    archive = whole.out / "gpu-check.tar.gz"
    text = (whole.out / "gpu-check.txt").read_text()
    assert "2026-11-27-2100-stand-in-gpu-65536: 200 pages of 4096 bytes" in text
    assert "DIFFERS" not in text
    assert len(re.findall(r"^ +[125] .* equal$", text, re.M)) >= 6
    assert re.search(r"^ +2 .* equal red", text, re.M), "a variant"
    copy = Path(shutil.copy(archive, tmp_path))
    for paths in ([copy], [whole.results.parents[1]], [copy, whole.results.parents[1]]):
        command = [sys.executable, str(CHECK.with_suffix(".py")), "--summary", *map(str, paths)]
        assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == text


@pytest.mark.slow
@pytest.mark.parametrize(("name", "pages"), [("65536", "200"), ("max", "300")])
def test_the_files_of_the_benchmarks(whole: Run, name: str, pages: str) -> None:
    header, rows = read_csv(whole.results, name)
    assert (header["pages"], header["page_size"]) == (pages, "4096")
    assert [row["q"] for row in rows] == ["1", "2", "5"]
    assert {row["correct"] for row in rows} == {"true"}
    assert all(float(row["read_ms"]) > 0 for row in rows)

    (path,) = whole.results.glob(f"*-{name}.json")
    data = json.loads(path.read_text(encoding="utf-8"))
    assert data["ok"] is True
    assert data["strategies_lacking"] == []
    strategies = {(row["q"], row["name"]) for row in data["strategies"]}
    wanted = ("single", "chunks-2", "chunks-2-lanes-1", "chunks-4", "chunks-8", "chunks-2-graph")
    assert {(5, strategy) for strategy in wanted} <= strategies
    assert data["recommendation"]["cap"]["cap"] == 2
    assert [row["way"] for row in data["concurrency"]] == ["lone", "direct", "batcher"]
    assert [row["checksum_batch"] for row in data["rows"]] == [
        row["checksum_batch"] for row in rows
    ]
    assert bool(data["phases"]) == (name == "65536")


@pytest.mark.slow
def test_gpu_tests_ran_and_none_was_skipped(whole: Run) -> None:
    counts = re.findall(r"^(\d+) passed.* in \d", whole.output, re.M)
    assert len(counts) == 2, whole.output
    assert all(int(count) >= 20 for count in counts)
    assert whole.output.count("tests skipped: 0") == 2


# The results for asv

needs_asv = pytest.mark.skipif(importlib.util.find_spec("asv") is None, reason="needs asv")


@pytest.mark.slow
@needs_asv
def test_asv_publishes_the_results(
    whole: Run, repository: tuple[Path, str], tmp_path: Path
) -> None:
    config = tmp_path / "asv.conf.json"
    settings = {
        "version": 1,
        "project": "morphogen",
        "repo": str(repository[0]),
        "branches": ["main"],
        "environment_type": "virtualenv",
        "results_dir": str(whole.results.parents[1] / "asv_bench" / "results"),
        "html_dir": str(tmp_path / "html"),
    }
    config.write_text(json.dumps(settings))
    command = [sys.executable, "-m", "asv", "--config", str(config), "publish", "--no-pull"]
    subprocess.run(command, check=True)
    index = json.loads((tmp_path / "html" / "index.json").read_text())
    assert repository[1] in index["revision_to_hash"].values()
    assert "stand-in-gpu" in index["machines"]
    speedup = "gpu.Speedup.track_speedup_over_single_loop"
    assert index["benchmarks"][speedup]["params"][0] == ["2", "4", "8"]
    for name in (speedup, "gpu.Scan.track_cost"):
        found = (tmp_path / "html" / "graphs").rglob(f"{name}.json")
        (graph,) = (path for path in found if "summary" not in path.parts)
        ((_, values),) = json.loads(graph.read_text())
        assert len(values) == 3 * 2
        assert all(value > 0 for value in values)
