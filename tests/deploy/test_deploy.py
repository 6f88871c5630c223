"""The files of deploy/, as far as they can be tried without a container engine and systemd."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

import morphogen as mg
from documents import plain_environment
from morphogen.cli import _parser
from morphogen.keyword.sealing import seal_file

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
UNIT = (DEPLOY / "morphogen.service").read_text(encoding="utf-8")
# With the defaults of its variables, as a reader of the form takes it.
COMPOSE = re.sub(
    r"\$\{\w+:-([^}]*)\}", r"\1", (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SECONDS = 60.0


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    """A folder with one epoch of a table."""
    (tmp_path / "pages").write_bytes(bytes(range(256)) * 100)
    folder = tmp_path / "tables"
    folder.mkdir()
    seal_file(tmp_path / "pages", folder / "words-7.table", 1024)
    return folder


@contextmanager
def running(arguments: list[str]) -> Iterator[dict[str, Any]]:
    """Run a server, and return the first line of its log."""
    process = subprocess.Popen(
        [sys.executable, "-m", "morphogen", *arguments],
        env=plain_environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        yield json.loads(line)
        process.terminate()
        assert process.wait(SECONDS) == 0
    finally:
        process.kill()
        process.communicate()


def here(command: list[str], tables: Path) -> list[str]:
    """A server's command with a folder and an address of this machine, and any port."""
    place = {"/tables": str(tables), "0.0.0.0": "127.0.0.1", "8000": "0"}
    return [place.get(word, word) for word in command]


# The container file. hadolint checks its syntax among the linters.


def stages() -> list[list[tuple[str, str]]]:
    """The instructions of each stage of the container file."""
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    lines = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    found: list[list[tuple[str, str]]] = []
    for line in filter(None, lines):
        name, _, rest = line.partition(" ")
        if name == "FROM":
            found.append([])
        found[-1].append((name, rest))
    return found


def test_the_image_is_built_of_what_the_source_distribution_holds() -> None:
    build, _ = stages()
    copied = [rest.split()[:-1] for name, rest in build if name == "COPY"]
    patterns = PROJECT["tool"]["scikit-build"]["sdist"]["exclude"]
    inputs = {pattern.removeprefix("!/") for pattern in patterns if pattern.startswith("!/")}
    assert {path for paths in copied for path in paths} == inputs
    (extras,) = (rest for name, rest in build if name == "ARG")
    names = extras.removeprefix("EXTRAS=").split(",")
    assert {*names, "cuda"} <= PROJECT["project"]["optional-dependencies"].keys()


def test_the_image_runs_as_nobody_in_particular_and_without_a_compiler() -> None:
    _, final = stages()
    names = [name for name, _ in final]
    assert "RUN" not in names
    assert [rest for name, rest in final if name == "COPY"] == [
        "--from=build /opt/morphogen /opt/morphogen"
    ]
    user = dict(final)["USER"]
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", user)
    assert names.index("USER") < names.index("ENTRYPOINT")
    assert json.loads(dict(final)["ENTRYPOINT"]) == ["morphogen"]


def test_the_image_is_healthy_while_its_server_takes_queries(tables: Path) -> None:
    instructions = dict(stages()[1])
    check = json.loads(instructions["HEALTHCHECK"].partition(" CMD ")[2])
    assert check[0] == "python"
    path = re.search(r"HEALTH_URL=http://127.0.0.1:8000(/\S+)", instructions["ENV"])
    assert path is not None

    def healthy(url: str) -> bool:
        environment = {**os.environ, "HEALTH_URL": url + path[1]}
        command = [sys.executable, *check[1:]]
        done = subprocess.run(command, env=environment, capture_output=True, check=False)
        return done.returncode == 0

    with running(["serve", str(tables / "words-7.table"), "--party", "0", "--port", "0"]) as log:
        assert healthy(log["url"])
    assert not healthy(log["url"])


# The compose file


def test_the_compose_file_has_the_form_of_the_compose_specification() -> None:
    compose_spec = pytest.importorskip("compose_spec", reason="needs compose-spec")

    def parse(text: str) -> None:
        compose_spec.PyCompose.from_json(json.dumps(yaml.safe_load(text)))

    parse(COMPOSE)
    with pytest.raises(ValueError, match="red_only"):
        parse(COMPOSE.replace("read_only", "red_only"))


def test_the_compose_file_names_the_container_file_and_changes_nothing_of_the_host() -> None:
    services = yaml.safe_load(COMPOSE)["services"]
    for service in services.values():
        context = (DEPLOY / service["build"]["context"]).resolve()
        assert context == ROOT
        assert context / service["build"]["dockerfile"] == DEPLOY / "Dockerfile"
        assert service["read_only"]
        assert all(volume.endswith(":ro") for volume in service["volumes"])
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])


def test_both_parties_of_the_compose_file_serve_a_folder_together(tables: Path) -> None:
    services = yaml.safe_load(COMPOSE)["services"]
    commands = [here(service["command"], tables) for service in services.values()]
    with (
        running(commands[0]) as one,
        running(commands[1]) as other,
        mg.Client([one["url"], other["url"]], verify=True, timeout=SECONDS) as client,
    ):
        assert one["epoch_id"] == 7
        assert client.get([0])[0].tobytes()[:256] == bytes(range(256))


# The unit of systemd


def unit_for_this_machine(folder: Path) -> Path:
    path = folder / "morphogen.service"
    command = shutil.which("morphogen", path=str(Path(sys.executable).parent))
    assert command is not None
    path.write_text(UNIT.replace("/opt/morphogen/bin/morphogen", command), encoding="utf-8")
    return path


def systemd_analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    command = ["systemd-analyze", "--no-pager", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    unit = unit_for_this_machine(tmp_path)
    verified = systemd_analyze("verify", "--man=no", str(unit))
    assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")
    unit.write_text(unit.read_text(encoding="utf-8").replace("ProtectHome=", "ProtectHouse="))
    assert "ProtectHouse" in systemd_analyze("verify", "--man=no", str(unit)).stderr


def test_the_unit_is_exposed_to_little(tmp_path: Path) -> None:
    unit = unit_for_this_machine(tmp_path)
    found = systemd_analyze("security", "--offline=yes", "--threshold=15", str(unit))
    assert found.returncode == 0, found.stdout  # of 100


def test_the_unit_starts_a_server_with_the_options_that_it_names() -> None:
    (start,) = re.findall(r"^ExecStart=\S+/morphogen (.*)$", UNIT, re.MULTILINE)
    (options,) = re.findall(r"^#   OPTIONS=(.*)$", UNIT, re.MULTILINE)
    command = start.replace("$OPTIONS", options).replace("HEX", "00" * 32)
    args = _parser().parse_args(shlex.split(command))
    assert (args.party, args.host, args.owner) == (0, "0.0.0.0", "00" * 32)
    loaded = re.findall(r"^LoadCredential=(\S+):", UNIT, re.MULTILINE)
    assert {str(args.tls_cert), str(args.tls_key)} == {
        f"${{CREDENTIALS_DIRECTORY}}/{name}" for name in loaded
    }
    assert "ExecReload=kill -HUP $MAINPID\n" in UNIT
