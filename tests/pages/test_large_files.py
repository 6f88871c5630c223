"""PageMatrix over a file that is larger than memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

LARGER_THAN_MEMORY = """
import sys
import numpy as np
import morphogen as mg

PAGE_SIZE = 4096

def anonymous_kib():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon"))

path, *written = sys.argv[1:]
written = [int(index) for index in written]
pages = mg.PageMatrix.open(path)
index = written[len(written) // 2]
queries = mg.make_query([index, written[-1], 1], pages.num_pages)
with mg.open_engine(pages, device="cpu") as engine:
    mg.open_engine(mg.PageMatrix(np.zeros((9, PAGE_SIZE), np.uint8))).close()
    before = anonymous_kib()
    pages_of = engine.answer(list(queries)).pages  # both parties in one pass
    grown = anonymous_kib() - before
for party, query in enumerate(queries):
    for position, key in enumerate(query.keys):
        expected = np.zeros(PAGE_SIZE, np.uint8)
        for i in written:
            if mg.dpf.eval_at(key, i, pages.num_pages):
                expected ^= pages[i]
        assert np.array_equal(pages_of[party, position], expected)
found = pages_of[0] ^ pages_of[1]
assert found[0].any() and np.array_equal(found[0], pages[index])
assert found[1].any() and np.array_equal(found[1], pages[written[-1]])
assert not found[2].any()
print(grown)
"""


@pytest.mark.slow
def test_a_file_larger_than_memory(tmp_path: Path) -> None:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    num_pages = memory * 17 // 16 // 4096
    length = num_pages * 4096 - 100  # with a short last page
    written = [0, 7, 4095, num_pages // 3, num_pages // 2, num_pages - 2, num_pages - 1]
    path = tmp_path / "sparse"
    rng = np.random.default_rng(9)
    try:
        with path.open("wb") as file:
            try:
                file.truncate(length)
            except OSError as error:
                pytest.skip(f"no room for a sparse file of {length >> 30} GiB: {error.strerror}")
            for index in written:
                file.seek(index * 4096)
                file.write(rng.bytes(min(4096, length - index * 4096)))
        if path.stat().st_blocks * 512 > length // 2:
            pytest.skip("this file system has no sparse files")
        result = subprocess.run(
            [sys.executable, "-c", LARGER_THAN_MEMORY, str(path), *map(str, written)],
            capture_output=True,
            text=True,
        )
    finally:
        path.unlink(missing_ok=True)
    assert result.stderr == ""
    assert int(result.stdout) < 100 << 10  # KiB: scratch memory, not pages
