"""What an import costs, in a fresh interpreter each time."""

import subprocess
import sys

# Not `from morphogen import *`, which a function may not contain, and asv times in one.
EVERYTHING = "import morphogen\nfor name in morphogen.__all__: getattr(morphogen, name)"


def timeraw_import_morphogen() -> str:
    return "import morphogen"


def timeraw_import_all_public_names() -> str:
    return EVERYTHING


def timeraw_import_numpy() -> str:
    """The largest part of the one above."""
    return "import numpy"


def modules_loaded(statement: str) -> list[str]:
    code = (
        "import sys; before = set(sys.modules)\n"
        f"{statement}\n"
        "print(*set(sys.modules) - before, sep='\\n')"
    )
    command = [sys.executable, "-c", code]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


def track_modules_loaded() -> int:
    return len(modules_loaded("import morphogen"))


track_modules_loaded.unit = "modules"


def track_cuda_modules_loaded() -> int:
    return sum("cuda" in name for name in modules_loaded(EVERYTHING))


track_cuda_modules_loaded.unit = "modules"
