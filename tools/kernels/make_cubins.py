"""Compile the PTX for some devices, so that a first load on them compiles nothing.

    python tools/kernels/make_cubins.py --output DIR    compiles kernels/ptx
    python tools/kernels/make_cubins.py --find-ptxas    prints the path of ptxas, if any

A build runs this if it finds the pinned ptxas, which `pip install '.[kernels]'` brings. A wheel of
another build has PTX only. The digests beside the compiled code tie it to its PTX: `sha256sum
--check` reads them, and so does morphogen, which loads nothing stale.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import make_ptx

MANIFEST = "COMPILED.sha256"
ARCHITECTURES = ("sm_80", "sm_90", "sm_100")


def cubins(names: Iterable[str] = make_ptx.FILES) -> dict[str, tuple[str, str]]:
    """Return the file of PTX and the architecture of each file of compiled code.

    A device gets the code of a source's newest PTX that it runs.
    """
    found = {}
    for name in sorted(names, key=least_device):
        for architecture in ARCHITECTURES:
            if least_device(name) <= int(architecture.removeprefix("sm_")):
                found[f"{name.split('.')[0]}.{architecture}.cubin"] = name, architecture
    return found


def least_device(name: str) -> int:
    """Return the compute capability that a file of PTX is for: 80 for compute_80."""
    return int(name.split(".")[1].removeprefix("compute_"))


def compile_cubins(ptxas: str, ptx: Path, folder: Path) -> None:
    """Compile the PTX of one folder for each architecture into another, with a manifest."""
    folder.mkdir(parents=True, exist_ok=True)

    def compile_one(output: Path, source: Path, architecture: str) -> None:
        command = [ptxas, f"--gpu-name={architecture}", f"--output-file={output}", str(source)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise SystemExit(f"{' '.join(command)}\n{result.stdout}{result.stderr}")

    with ThreadPoolExecutor() as threads:
        for compiled in [
            threads.submit(compile_one, folder / cubin, ptx / name, architecture)
            for cubin, (name, architecture) in cubins().items()
        ]:
            compiled.result()
    made = [*(ptx / name for name in make_ptx.FILES), *(folder / cubin for cubin in cubins())]
    digests = (f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}" for path in made)
    lines = [f"# ptxas {make_ptx.RELEASE}", *digests]
    (folder / MANIFEST).write_text("\n".join(lines) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description="Compile the PTX for some devices.")
    parser.add_argument("--find-ptxas", action="store_true", help="only print its path, if any")
    parser.add_argument("--list", action="store_true", help="only print the files that it makes")
    parser.add_argument("--ptxas", metavar="PATH", help="looked for by default")
    parser.add_argument("--ptx", metavar="DIR", type=Path, default=make_ptx.COMMITTED)
    parser.add_argument("--output", metavar="DIR", type=Path)
    options = parser.parse_args()
    if options.list:
        print(*cubins(), MANIFEST, sep=";", end="")
        return 0
    ptxas = options.ptxas or make_ptx.find_tool("ptxas")
    if options.find_ptxas:
        print(ptxas or "")
        return 0
    if options.output is None:
        parser.error("--output is needed")
    if ptxas is None or not make_ptx.is_right_release(ptxas):
        raise SystemExit(f"ptxas {make_ptx.RELEASE} is needed: {ptxas or 'none was found'}")
    compile_cubins(ptxas, options.ptx, options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
