"""Draw the pictures of the documentation, docs/pictures/*.svg, from the code that they are about.

    python tools/draw.py             draws them all
    python tools/draw.py --check     compares: exits with 1 where a committed picture differs

Needs morphogen only: the pictures have a writer of their own (tools/pictures/svg.py).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

# The tree is walked by the tests' reference of the key format: the library shows no node's state.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "support"))

from pictures import (
    cpu_buckets,
    cpu_columns,
    dpf_tree,
    gpu_blocks,
    gpu_lanes,
    gpu_roofline,
    one_query,
)

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "pictures"
PICTURES: dict[str, Callable[[], str]] = {
    module.NAME: module.draw
    for module in (
        one_query,
        dpf_tree,
        cpu_columns,
        cpu_buckets,
        gpu_blocks,
        gpu_lanes,
        gpu_roofline,
    )
}


def stale() -> list[str]:
    """The pictures whose committed file is not what the code draws."""
    found = []
    for name, draw in PICTURES.items():
        file = FOLDER / f"{name}.svg"
        if not file.exists() or file.read_text(encoding="utf-8") != draw():
            found.append(name)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="Draw the pictures of docs/pictures.")
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    if parser.parse_args().check:
        names = stale()
        for name in names:
            print(f"{name}.svg is not what the code draws: run tools/draw.py", file=sys.stderr)
        return 1 if names else 0
    FOLDER.mkdir(exist_ok=True)
    for name, draw in PICTURES.items():
        (FOLDER / f"{name}.svg").write_text(draw(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
