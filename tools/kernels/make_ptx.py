"""Compile the page kernels to the PTX that the wheel carries, so that users need no compiler.

    python tools/kernels/make_ptx.py            writes kernels/ptx
    python tools/kernels/make_ptx.py --check    exits with 1 if kernels/ptx is stale

Only one release of nvcc is used. Older drivers refuse the PTX of a newer one, and this way every
compilation gives the same bytes. `pip install '.[kernels]'` brings that release.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

KERNELS = Path(__file__).resolve().parents[2] / "kernels"
COMMITTED = KERNELS / "ptx"
MANIFEST = "SOURCES.sha256"
# The files of PTX, each named by its source and by the least device that runs it. Newer devices
# need no PTX of their own: it would differ in its `.target` line only.
DEFAULT = "page_scan.compute_80.ptx"
FILES = (
    DEFAULT,
    "page_variants.compute_80.ptx",
    "page_bulk.compute_90.ptx",
    "page_bits.compute_80.ptx",
)
RELEASE = "13.0.88"
FLAGS = ("-ptx", "-std=c++17", "-O3", "-Werror", "all-warnings", "-I", ".")


def source_of(name: str) -> str:
    """Return the source of a file of PTX."""
    return f"{name.split('.')[0]}.cu"


def sources() -> list[str]:
    """Return the kernels' sources and the headers that they include, directly or not."""
    found, new = [], list(dict.fromkeys(map(source_of, FILES)))
    while new:
        found.append(new.pop())
        text = (KERNELS / found[-1]).read_text()
        for name in re.findall(r'^\s*#\s*include\s+"(.+)"', text, re.M):
            if name not in found + new:
                new.append(name)
    return sorted(found)


def manifest(folder: Path) -> str:
    """Return a file for `sha256sum --check`: the present sources, and the PTX in a folder."""
    lines = [f"# nvcc {RELEASE}: {' '.join(FLAGS)}, -arch by the name"]
    files = {f"../{name}": KERNELS / name for name in sources()}
    files |= {name: folder / name for name in FILES}
    for name, path in files.items():
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "missing"
        lines.append(f"{digest}  {name}")
    return "\n".join(lines) + "\n"


def is_right_release(tool: str) -> bool:
    try:
        shown = subprocess.run([tool, "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return False
    return f"V{RELEASE}\n" in shown.stdout


def installed(tool: str) -> list[str]:
    """Return the paths of a tool of CUDA, on the system's path and among the Python packages."""
    on_path = shutil.which(tool)
    candidates = [on_path] if on_path else []
    candidates += [str(Path(folder, "nvidia/cu13/bin", tool)) for folder in sys.path]
    return [path for path in candidates if Path(path).is_file()]


def find_tool(tool: str) -> str | None:
    return next(filter(is_right_release, installed(tool)), None)


def without_module_id(ptx: str) -> str:
    """PTX whose internal names say nothing of the compilation.

    nvcc puts hashes of the source's path and its own process id into them: a name is
    <length>_GLOBAL__N__<hash>_12_page_scan_cu_<hash>_<process id>, or the same with _INTERNAL_.
    """
    names = set()
    for length, kind, name in re.findall(r"(?<!\d)(\d+)(?=(_INTERNAL|_GLOBAL__N_)(\w+))", ptx):
        names.add((length + (kind + name)[: int(length)], kind))
    for name, kind in names:
        assert re.fullmatch(r"\d+_\w+_[0-9a-f]{8}_\d+_\w+_[0-9a-f]{8}_\d+", name), name
        ptx = ptx.replace(name, f"{len(kind)}{kind}")
    return ptx


def compile_all(nvcc: str, folder: Path) -> None:
    """Compile each source for its devices, side by side."""
    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor() as threads:
        for made in [threads.submit(compile_ptx, nvcc, folder, name) for name in FILES]:
            made.result()


def compile_ptx(nvcc: str, folder: Path, name: str) -> None:
    # Flags from the environment would change the result.
    environment = {k: v for k, v in os.environ.items() if not re.match("NVCC_.*_FLAGS", k)}
    architecture = name.split(".")[1]
    output = folder.resolve() / name
    command = [nvcc, *FLAGS, f"-arch={architecture}", "-o", str(output), source_of(name)]
    result = subprocess.run(
        command, cwd=KERNELS, env=environment, capture_output=True, text=True, check=False
    )
    if result.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\n{result.stdout}{result.stderr}")
    output.write_text(without_module_id(output.read_text()))


def differences(nvcc: str | None) -> list[str]:
    """Return the reasons why the committed PTX is stale."""
    path = COMMITTED / MANIFEST
    was = path.read_text().splitlines() if path.exists() else []
    changed = sorted(set(manifest(COMMITTED).splitlines()) ^ set(was))
    found = [f"other than {MANIFEST} says: {line.split('  ')[-1]}" for line in changed]
    if not found and nvcc is not None:
        with tempfile.TemporaryDirectory() as temporary:
            compile_all(nvcc, Path(temporary))
            found += [
                f"other than what {nvcc} makes: {name}"
                for name in FILES
                if Path(temporary, name).read_bytes() != (COMMITTED / name).read_bytes()
            ]
    return list(dict.fromkeys(found))


def main() -> int:
    parser = argparse.ArgumentParser(description="Compile the page kernels to PTX.")
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    parser.add_argument("--find-nvcc", action="store_true", help="only print nvcc's path, if any")
    parser.add_argument("--list", action="store_true", help="only print the files of PTX")
    parser.add_argument("--nvcc", metavar="PATH", help=f"nvcc {RELEASE}; looked for by default")
    parser.add_argument("--without-nvcc", action="store_true", help="compare the digests only")
    parser.add_argument("--output", metavar="DIR", type=Path, default=COMMITTED)
    options = parser.parse_args()
    if options.list:
        print(*FILES, sep=";", end="")
        return 0
    if options.nvcc and not is_right_release(options.nvcc):
        raise SystemExit(f"{options.nvcc} is not nvcc {RELEASE}")
    nvcc = None if options.without_nvcc else options.nvcc or find_tool("nvcc")
    if options.find_nvcc:
        print(nvcc or "")
        return 0
    if options.check:
        found = differences(nvcc)
        for line in found:
            print(line, file=sys.stderr)
        if found:
            print("kernels/ptx is stale: run tools/kernels/make_ptx.py", file=sys.stderr)
        elif nvcc is None:
            print(f"kernels/ptx is up to date; without nvcc {RELEASE} it was not compiled again")
        return 1 if found else 0
    if nvcc is None:
        raise SystemExit(f"no nvcc {RELEASE} found: name it with --nvcc PATH")
    compile_all(nvcc, options.output)
    (options.output / MANIFEST).write_text(manifest(options.output))
    return 0


if __name__ == "__main__":
    sys.exit(main())
