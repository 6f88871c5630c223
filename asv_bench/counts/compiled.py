"""Compiles the C++ that some counts need. Without a compiler they are not applicable."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
NATIVE = Path(__file__).resolve().parent.parent / "native"


def compile_library(name: str, folder: Path) -> Path:
    """Compile native/<name>.cpp into a shared library in a folder."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        raise NotImplementedError("needs a C++ compiler")
    library = folder.resolve() / f"{name}.so"
    include = sysconfig.get_path("include")
    command = [compiler, "-std=c++17", "-O2", "-fPIC", "-shared", f"-I{include}"]
    subprocess.run([*command, NATIVE / f"{name}.cpp", "-o", library], check=True)
    return library


def load_python_library(name: str, folder: Path) -> ctypes.PyDLL:
    """Compile and load a library for calls that hold the interpreter's lock."""
    return ctypes.PyDLL(str(compile_library(name, folder)))
