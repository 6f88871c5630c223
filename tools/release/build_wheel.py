"""Build the source distribution and a wheel of it, and try the wheel where there is nothing else.

    python3 tools/release/build_wheel.py                      into dist/, for this Python
    python3 tools/release/build_wheel.py --python python3.13

The wheel is compiled from the source distribution alone, without a network and with nvcc from the
extra `kernels`; auditwheel gives it its platform tag. Then it is installed in an empty environment
whose PATH has no compiler, and passes there what cibuildwheel runs too (pyproject.toml): the
doctor, the demo and the parity tests. build/wheel/env, with all that a build requires but nvcc,
stays for more builds. Needs nothing but Python, a C++ compiler, binutils, and the network for pip.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "build" / "wheel"
COMPILERS = ("c++", "cc", "clang", "clang++", "g++", "gcc", "ld", "nvcc", "ptxas")
# What a build may know of its surroundings: no compiler flags, and no toolkit's folders.
BUILD_VARIABLES = {"CC", "CMAKE_BUILD_PARALLEL_LEVEL", "CXX", "HOME", "LANG", "PATH", "TMPDIR"}
# How pip gets at packages, wherever it runs.
PIP_VARIABLES = {"HOME", "LANG", "http_proxy", "https_proxy", "no_proxy", "SSL_CERT_FILE"}
MAX_IMPORT_SECONDS = 0.1
START = time.monotonic()
# The processor's time: whatever else the machine does, it is the same.
IMPORT = """
import sys, time
start = time.process_time()
import morphogen
print(time.process_time() - start, morphogen.__file__, *sys.modules)
"""

Environment = dict[str, str]
Command = list[str | Path]


def step(text: str) -> None:
    print(f"-- {text} ({time.monotonic() - START:.0f} s)", flush=True)


def run(*command: str | Path, environment: Mapping[str, str], folder: Path = ROOT) -> str:
    """What a command prints; all it printed goes to the error, if it fails."""
    arguments = [str(part) for part in command]
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


def build_environment(outer: Mapping[str, str], *first: Path) -> Environment:
    """The variables of a build: without flags, and with some folders first on the PATH."""
    kept = {name: value for name, value in outer.items() if name in BUILD_VARIABLES}
    return kept | {"PATH": os.pathsep.join([*map(str, first), kept.get("PATH", os.defpath)])}


def empty_environment(outer: Mapping[str, str], scripts: Path) -> Environment:
    """The variables of a machine without compilers and toolkits: a PATH of one folder."""
    kept = {
        name: value
        for name, value in outer.items()
        if name in PIP_VARIABLES or name.startswith("PIP_")
    }
    found = [name for name in COMPILERS if shutil.which(name, path=str(scripts))]
    if found:
        raise SystemExit(f"expected no compiler in {scripts}, not {', '.join(found)}")
    return kept | {"PATH": str(scripts), "PYTHONDONTWRITEBYTECODE": "1"}


def without_network() -> list[str]:
    """The command that takes the network away from another, where the system lets us."""
    for command in (["unshare", "--net"], ["unshare", "--map-root-user", "--net"]):
        attempt = ["/bin/sh", "-c", " ".join([*command, "true"])]
        if subprocess.run(attempt, capture_output=True, check=False).returncode == 0:
            return command
    print("   no network namespaces here: only pip's --no-index keeps the build off the network")
    return []


def make_environment(python: str, project: dict[str, Any]) -> tuple[Path, Path]:
    """An environment with what a build requires, and apart from it a folder with nvcc."""
    environment, compiler = WORK / "env", WORK / "nvcc"
    run(python, "-m", "venv", "--clear", environment, environment=os.environ)
    pip: Command = [environment / "bin" / "pip", "install", "--quiet"]
    extras = project["project"]["optional-dependencies"]
    requires = [*project["build-system"]["requires"], "cmake", "ninja", *extras["wheel"]]
    run(*pip, *requires, environment=os.environ)
    shutil.rmtree(compiler, ignore_errors=True)
    run(*pip, "--target", compiler, *extras["kernels"], environment=os.environ)
    return environment / "bin", compiler / "nvidia" / "cu13" / "bin"


def build_sdist(scripts: Path, output: Path) -> Path:
    with tempfile.TemporaryDirectory(dir=WORK) as folder:
        python = scripts / "python"
        command: Command = [python, "-m", "build", "--sdist", "--no-isolation", "--outdir", folder]
        run(*command, environment=build_environment(os.environ, scripts))
        return moved(Path(folder), output)


def build_wheel(scripts: Path, nvcc: Path, sdist: Path, output: Path) -> Path:
    """Compile a wheel from what the source distribution holds, and give it its platform tag."""
    objects = WORK / "cmake"
    shutil.rmtree(objects, ignore_errors=True)
    environment = build_environment(os.environ, nvcc, scripts)
    with tempfile.TemporaryDirectory(dir=WORK) as folder:
        pip: Command = [
            scripts / "pip",
            "wheel",
            "--verbose",
            "--no-cache-dir",
            "--wheel-dir",
            folder,
        ]
        offline = ["--no-index", "--no-deps", "--no-build-isolation"]
        setting = f"--config-settings=build-dir={objects}"
        command: Command = [*without_network(), *pip, *offline, setting, sdist]
        log = run(*command, environment=environment)
        for line in (f"PTX: compiled by {nvcc / 'nvcc'}", f"Compiled code: by {nvcc / 'ptxas'}"):
            if line not in log:
                raise SystemExit(f"{log}\nexpected the build to say: {line}")
        built = next(Path(folder).glob("*.whl"))
        repaired = Path(folder) / "repaired"
        repair: Command = [
            scripts / "auditwheel",
            "repair",
            "--plat",
            "auto",
            "--wheel-dir",
            repaired,
        ]
        run(*repair, built, environment=environment)
        return moved(repaired, output)


def moved(folder: Path, output: Path) -> Path:
    """Move the one file of a folder."""
    (file,) = (path for path in folder.iterdir() if path.is_file())
    output.mkdir(parents=True, exist_ok=True)
    return Path(shutil.move(file, output / file.name))


def try_wheel(python: str, wheel: Path, settings: dict[str, Any]) -> None:
    """Install a wheel where there is nothing else, and run what cibuildwheel runs."""
    with tempfile.TemporaryDirectory(prefix="wheel-") as folder:
        scripts = Path(folder, "env", "bin")
        run(python, "-m", "venv", scripts.parent, environment=os.environ)
        environment = empty_environment(os.environ, scripts)
        install: Command = [scripts / "pip", "install", "--quiet"]
        wanted = f"{wheel}[{','.join(settings['test-extras'])}]"
        run(*install, wanted, *settings["test-requires"], environment=environment)
        packages = json.loads(
            run(scripts / "pip", "list", "--format=json", environment=environment)
        )
        cuda = [p["name"] for p in packages if p["name"].startswith(("cuda", "nvidia"))]
        if cuda:
            raise SystemExit(f"expected no package of CUDA, not {', '.join(cuda)}")
        step(f"Import: {check_import(scripts, environment) * 1e3:.1f} ms, no CUDA and no server")

        # A copy of the tests alone: nothing of the checkout's src can be imported.
        tests = Path(folder, "tests of the wheel")
        for name in settings["test-sources"]:
            target = tests / name
            target.parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, target)
        for command in settings["test-command"]:
            output = run("/bin/sh", "-c", command, environment=environment, folder=tests)
            step(f"{command.partition(' tests/')[0]}: {output.strip().splitlines()[-1]}")

        # The bindings that pip brings may be newer than those the GPU engine was compiled against.
        run(*install, f"{wheel}[cuda]", environment=environment)
        run(scripts / "python", "-c", "import morphogen.engine.cuda", environment=environment)
        found = json.loads(run(scripts / "morphogen", "doctor", "--json", environment=environment))
        step(f"GPU engine: {found['driver']['reason'] or 'found a GPU, and passed its tests'}")


def check_import(scripts: Path, environment: Environment) -> float:
    """Seconds that the import takes, the least of ten runs."""
    times = []
    for _ in range(10):
        output = run(scripts / "python", "-c", IMPORT, environment=environment, folder=scripts)
        seconds, file, *modules = output.split()
        times.append(float(seconds))
    if not Path(file).is_relative_to(scripts.parent):
        raise SystemExit(f"expected the installed morphogen, not {file}")
    known = {*sys.stdlib_module_names, "morphogen", "numpy"}
    ours = {name for name in modules if name.startswith("morphogen.")}
    foreign = {name for name in modules if name.partition(".")[0] not in known}
    foreign |= {name for name in ours if name.startswith(("morphogen.engine", "morphogen.serv"))}
    foreign -= {name for name in foreign if name.startswith("_")}
    if foreign:
        raise SystemExit(f"expected an import of nothing but numpy, not {', '.join(foreign)}")
    if min(times) >= MAX_IMPORT_SECONDS:
        raise SystemExit(f"expected an import in {MAX_IMPORT_SECONDS} s, not {min(times):.3f} s")
    return min(times)


def main() -> int:
    parser = argparse.ArgumentParser(description="Build, repair and try a wheel.")
    parser.add_argument("--python", default=sys.executable, help="which to build for; this one")
    parser.add_argument("--output", metavar="DIR", type=Path, default=ROOT / "dist")
    options = parser.parse_args()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    WORK.mkdir(parents=True, exist_ok=True)

    step("What a build requires")
    scripts, nvcc = make_environment(options.python, project)
    sdist = build_sdist(scripts, options.output)
    step(f"Source distribution: {sdist.name}; the wheel is compiled from it without a network")
    wheel = build_wheel(scripts, nvcc, sdist, options.output)
    check: Command = [
        scripts / "python",
        ROOT / "tools" / "release" / "wheel_check.py",
        wheel,
        sdist,
    ]
    if wheel.stem.endswith("x86_64"):
        check += ["--objects", WORK / "cmake"]
    checked = run(*check, environment=os.environ).strip().replace("\n", "; ")
    step(f"Wheel: {checked}")
    try_wheel(options.python, wheel, project["tool"]["cibuildwheel"])
    step("All well")
    return 0


if __name__ == "__main__":
    sys.exit(main())
