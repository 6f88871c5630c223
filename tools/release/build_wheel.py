"""Build the source distribution and a wheel from it, and try the wheel in an empty environment.

    python3 tools/release/build_wheel.py                      into dist/, for this Python
    python3 tools/release/build_wheel.py --python python3.13

The wheel is compiled from the source distribution alone, with no package index and with nvcc from
the extra `kernels`. auditwheel gives it its platform tag. Then it is installed in an empty
environment without a compiler on its PATH. There it passes the checks that pyproject.toml gives to
cibuildwheel: the doctor, the demo and the parity tests.

build/wheel/env holds all requirements of a build but nvcc, and stays for more builds. The script
needs only Python, a C++ compiler, binutils, and the network for pip.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "build" / "wheel"
# A build gets only these variables, and so neither compiler flags nor a toolkit's folders.
BUILD_VARIABLES = {
    *("CC", "CMAKE_BUILD_PARALLEL_LEVEL", "CXX", "HOME", "LANG", "PATH", "TMPDIR"),
    *("CMAKE_CXX_COMPILER_LAUNCHER", "CCACHE_DIR", "CCACHE_BASEDIR", "CCACHE_NOHASHDIR"),
}
# In the unpacked source distribution, as deep as another build of CI: ccache knows a source by its
# path from there.
BUILD_FOLDER = Path("build", "native")


Command = list[str | Path]


def run(*command: str | Path, environment: Mapping[str, str], folder: Path = ROOT) -> str:
    """Run a command and return its output, or end with the output if it fails."""
    arguments = [str(part) for part in command]
    print("$", *arguments, flush=True)
    result = subprocess.run(
        arguments,
        cwd=folder,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        raise SystemExit(f"{result.stdout}\n{' '.join(arguments)}: exit code {result.returncode}")
    return result.stdout


def build_environment(outer: Mapping[str, str], *first: Path) -> dict[str, str]:
    """Return the variables of a build: no flags, and some folders first on the PATH."""
    kept = {name: value for name, value in outer.items() if name in BUILD_VARIABLES}
    return kept | {"PATH": os.pathsep.join([*map(str, first), kept.get("PATH", os.defpath)])}


def make_environment(python: str, project: dict[str, Any]) -> tuple[Path, Path]:
    """Make an environment with a build's requirements, and apart from it a folder with nvcc."""
    environment, compiler = WORK / "env", WORK / "nvcc"
    run(python, "-m", "venv", "--clear", environment, environment=os.environ)
    scripts = environment / "bin"
    run(scripts / "pip", "install", "--quiet", "uv", environment=os.environ)
    extras = project["project"]["optional-dependencies"]
    requires = [*project["build-system"]["requires"], "cmake", "ninja", *extras["wheel"]]
    run(*install(scripts, scripts / "python"), *requires, environment=os.environ)
    shutil.rmtree(compiler, ignore_errors=True)
    to_compiler: Command = [*install(scripts, scripts / "python"), "--target", compiler]
    run(*to_compiler, *extras["kernels"], environment=os.environ)
    return scripts, compiler / "nvidia" / "cu13" / "bin"


def install(scripts: Path, python: Path) -> Command:
    """Return the command that installs packages for a Python, in a tenth of pip's time."""
    return [scripts / "uv", "pip", "install", "--quiet", "--python", python]


def build(scripts: Path, nvcc: Path, output: Path) -> tuple[Path, Path, Path]:
    """Build the source distribution, compile a wheel from it, and keep its object files."""
    unpacked, made = WORK / "unpacked", WORK / "made"
    for folder in (unpacked, made):
        shutil.rmtree(folder, ignore_errors=True)
    environment = build_environment(os.environ, nvcc, scripts)
    isolated: Command = ["--no-isolation", "--outdir", made]
    run(scripts / "python", "-m", "build", "--sdist", *isolated, environment=environment)
    (sdist,) = made.glob("*.tar.gz")
    shutil.unpack_archive(sdist, unpacked, filter="data")
    (source,) = unpacked.iterdir()
    offline = ["--no-index", "--no-deps", "--no-build-isolation", "--no-cache-dir"]
    setting = f"--config-settings=build-dir={BUILD_FOLDER}"
    pip: Command = [scripts / "pip", "wheel", "--verbose", "--wheel-dir", made, *offline, setting]
    log = run(*pip, source, environment=environment)
    for line in (f"PTX: compiled by {nvcc / 'nvcc'}", f"Compiled code: by {nvcc / 'ptxas'}"):
        if line not in log:
            raise SystemExit(f"{log}\nexpected the build to say: {line}")
    (wheel,) = made.glob("*.whl")
    repair: Command = [
        scripts / "auditwheel",
        "repair",
        "--plat",
        "auto",
        "--wheel-dir",
        made / "repaired",
    ]
    run(*repair, wheel, environment=environment)
    (repaired,) = (made / "repaired").glob("*.whl")
    output.mkdir(parents=True, exist_ok=True)
    results = Path(shutil.copy(sdist, output)), Path(shutil.copy(repaired, output))
    return *results, source / BUILD_FOLDER


def check(scripts: Path, wheel: Path, objects: Path) -> None:
    """Check the files of the wheel, and that its binaries run elsewhere."""
    run(scripts / "check-wheel-contents", wheel, environment=os.environ)
    command: Command = [scripts / "python", Path(__file__).with_name("wheel_check.py"), wheel]
    if wheel.stem.endswith("x86_64"):
        command += ["--objects", objects]
    run(*command, environment=os.environ)


def try_wheel(scripts: Path, python: str, wheel: Path, settings: dict[str, Any]) -> None:
    """Install a wheel in an empty environment, and run the commands that cibuildwheel runs."""
    with tempfile.TemporaryDirectory(prefix="wheel-") as folder:
        tried = Path(folder, "env", "bin")
        run(python, "-m", "venv", tried.parent, environment=os.environ)
        environment = {**os.environ, "PATH": str(tried), "PYTHONPATH": ""}
        into = install(scripts, tried / "python")
        wanted = f"{wheel}[{','.join(settings['test-extras'])}]"
        run(*into, wanted, *settings["test-requires"], environment=environment)

        # Copy the tests alone, so that they cannot import the checkout's src.
        tests = Path(folder, "tests of the wheel")
        for name in settings["test-sources"]:
            target = tests / name
            target.parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, target)
        for command in settings["test-command"]:
            output = run("/bin/sh", "-c", command, environment=environment, folder=tests)
            print(output.strip().splitlines()[-1])

        # This may bring newer bindings than those that the GPU engine was compiled against.
        run(*into, f"{wheel}[cuda]", environment=environment)
        run(tried / "python", "-c", "import morphogen.engine.cuda", environment=environment)
        found = json.loads(run(tried / "morphogen", "doctor", "--json", environment=environment))
        print(f"GPU engine: {found['driver']['reason'] or 'found a GPU, and passed its tests'}")


def main() -> int:
    parser = argparse.ArgumentParser(description="Build, repair and try a wheel.")
    parser.add_argument("--python", default=sys.executable, help="which to build for; this one")
    parser.add_argument("--output", metavar="DIR", type=Path, default=ROOT / "dist")
    options = parser.parse_args()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    WORK.mkdir(parents=True, exist_ok=True)
    scripts, nvcc = make_environment(options.python, project)
    sdist, wheel, objects = build(scripts, nvcc, options.output)
    check(scripts, wheel, objects)
    try_wheel(scripts, options.python, wheel, project["tool"]["cibuildwheel"])
    print(f"All well: {sdist.name}, {wheel.name}, {wheel.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the temporary environment goes
    sys.exit(main())
