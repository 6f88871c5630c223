"""The host's kernels on AArch64: keys, selection bits, answers and hashes, right to the byte.

Debian's cross compiler builds host_program.cpp with the package's own sources, and qemu runs it as
a Cortex-A53 would: that processor has NEON and nothing newer, so an instruction that some AArch64
processors lack ends the program. Nothing here is timed.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import morphogen as mg
from authentication_format import hash_leaf
from naive import Bytes, naive_answer, random_pages

pytestmark = pytest.mark.slow

TESTS = Path(__file__).resolve().parents[1]
KERNELS = TESTS.parent / "kernels"
VECTORS = json.loads((TESTS / "vectors" / "dpf_v1.json").read_text(encoding="utf-8"))["keys"]

COMPILER = "aarch64-linux-gnu-g++"
EMULATOR = ("qemu-aarch64", "-cpu", "cortex-a53", "-L", "/usr/aarch64-linux-gnu")
# As CMakeLists.txt compiles the package.
OPTIONS = (
    *("-std=c++17", "-O3", "-DNDEBUG", "-fPIC", "-fvisibility=hidden"),
    *("-Wall", "-Wextra", "-Wno-psabi", "-Wno-ignored-attributes"),
    *("-DMORPHOGEN_ISA=kernels_baseline", '-DMORPHOGEN_ISA_NAME="baseline"', f"-I{KERNELS}"),
)
SOURCES = (
    *(KERNELS / f"host_{name}.cpp" for name in ("kernels", "dispatch", "scanner")),
    KERNELS / "read_order.cpp",
    TESTS / "engine" / "host_program.cpp",
)
LEAF_BITS, LEAF_BYTES = 512, 64


class Jobs:
    """Jobs for one run of the program, and the bytes that each must print."""

    def __init__(self) -> None:
        self._input: list[bytes] = []
        self._expected: list[tuple[str, bytes]] = []

    def add(self, line: str, *data: bytes, expected: bytes) -> None:
        self._input += [line.encode(), b"\n", *data]
        self._expected.append((line, expected))

    def check(self, program: Path) -> None:
        result = subprocess.run(
            [*EMULATOR, program], input=b"".join(self._input), capture_output=True
        )
        assert (result.returncode, result.stderr) == (0, b"")
        output = result.stdout
        for line, expected in self._expected:
            assert output[: len(expected)] == expected, line
            output = output[len(expected) :]
        assert output == b""

    def add_answer(
        self, array: Bytes, keys: list[bytes], *, order: int, threads: int, tail: bool = False
    ) -> None:
        """Add a job that answers the keys from the pages, the last of them apart with `tail`."""
        pages, size = array.shape
        words = ("baseline", order, threads, len(keys), len(keys[0]), pages, size, int(tail))
        expected = b"".join(naive_answer(array, key).tobytes() for key in keys)
        line = " ".join(map(str, ("answer", *words)))
        self.add(line, *keys, array.tobytes(), expected=expected)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which(COMPILER) is None:
        pytest.skip(f"needs {COMPILER}")
    if shutil.which(EMULATOR[0]) is None:
        pytest.skip(f"needs {EMULATOR[0]}")
    folder = tmp_path_factory.mktemp("aarch64")
    launcher = [ccache] if (ccache := shutil.which("ccache")) else []

    def compiled(source: Path) -> Path:
        target = folder / f"{source.stem}.o"
        files = ["-c", str(source), "-o", str(target)]
        subprocess.run([*launcher, COMPILER, *OPTIONS, *files], check=True)
        return target

    with ThreadPoolExecutor() as threads:
        objects = list(threads.map(compiled, SOURCES))
    path = folder / "program"
    subprocess.run([COMPILER, *objects, "-pthread", "-o", path], check=True)
    return path


def random_keys(count: int, num_pages: int) -> list[bytes]:
    rng = random.Random(count * num_pages)
    entropy = [rng.randbytes(48) for _ in range(count)]
    return [mg.dpf.gen(rng.randrange(num_pages), num_pages, entropy=e)[1] for e in entropy]


def test_the_only_instruction_set_is_the_baseline(program: Path) -> None:
    jobs = Jobs()
    jobs.add("sets", expected=b"baseline\n")
    jobs.check(program)


def test_the_order_of_reads_is_measured(program: Path) -> None:
    jobs = Jobs()
    jobs.add("order", expected=b"measured\n")
    jobs.check(program)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: f"{v['num_pages']}-{v['index']}")
def test_the_recorded_keys_and_their_bits(program: Path, vector: dict[str, Any]) -> None:
    num_pages = vector["num_pages"]
    keys = [bytes.fromhex(vector[f"key{party}"]) for party in (0, 1)]
    entropy = bytes.fromhex(vector["seed0"] + vector["seed1"] + vector["salt"])
    jobs = Jobs()
    jobs.add(f"gen {keys[0][5]} {vector['index']}", entropy, expected=b"".join(keys))
    for party, key in enumerate(keys):
        bits = mg.dpf.eval_full(key, num_pages).tobytes()
        assert hashlib.sha256(bits).hexdigest() == vector[f"bits{party}_sha256"]
        if leaves := num_pages // LEAF_BITS:
            line = f"expand baseline 0 {leaves} {len(key)}"
            jobs.add(line, key, expected=bits[: leaves * LEAF_BYTES])
    jobs.check(program)


def test_several_pairs_of_keys_at_once(program: Path) -> None:
    rng = random.Random(3)
    jobs = Jobs()
    for n in (0, 9, 10, 25, 40):
        for count in (2, 3):
            indices = [rng.randrange(2**n) for _ in range(count)]
            entropy = rng.randbytes(48 * count)
            halves = mg.dpf.gen_many(indices, 2**n, entropy=entropy)
            pairs = [key for pair in zip(*halves, strict=True) for key in pair]
            jobs.add(f"gen {n} {' '.join(map(str, indices))}", entropy, expected=b"".join(pairs))
    jobs.check(program)


def test_runs_of_leaves_that_start_and_end_anywhere(program: Path) -> None:
    leaves = 2_051  # more than two subtrees
    (key,) = random_keys(1, leaves * LEAF_BITS)
    bits = mg.dpf.eval_full(key, leaves * LEAF_BITS).tobytes()
    jobs = Jobs()
    for first, count in (
        (0, 1),
        (1, 1),
        (5, 6),
        (3, 1_021),
        (1_023, 2),
        (1_000, 1_051),
        (2_050, 1),
    ):
        expected = bits[first * LEAF_BYTES :][: count * LEAF_BYTES]
        jobs.add(f"expand baseline {first} {count} {len(key)}", key, expected=expected)
    jobs.check(program)


# Every width of a column, pages of one and of several, of whole cache lines and not, and wide ones.
PAGE_SIZES = [
    1,
    2,
    3,
    4,
    7,
    8,
    12,
    16,
    20,
    24,
    31,
    32,
    40,
    48,
    63,
    64,
    65,
    100,
    128,
    200,
    256,
    1_000,
]
WIDE_PAGE_SIZES = [1_024, 1_501, 4_096, 4_099, 9_000, 70_000]
# The most for masks and for buckets and one more; one and several groups of eight.
KEYS = [1, 3, 4, 6, 7, 17, 96]


@pytest.mark.parametrize("order", [0, 1], ids=["memory", "rows"])
def test_answers_of_every_page_size_equal_those_of_numpy(program: Path, order: int) -> None:
    jobs = Jobs()
    for page_size in PAGE_SIZES + WIDE_PAGE_SIZES:
        # Two leaves and some pages, or a few pages that are cut into strips.
        num_pages = 1_100 if page_size < 1_024 else 300 if page_size < 8_192 else 35
        array = random_pages(num_pages, page_size)
        for count in KEYS:
            jobs.add_answer(array, random_keys(count, num_pages), order=order, threads=1)
    jobs.check(program)


@pytest.mark.parametrize("order", [0, 1], ids=["memory", "rows"])
def test_enough_pages_for_buckets_and_several_leaves_at_once(program: Path, order: int) -> None:
    jobs = Jobs()
    for num_pages, page_size in ((2_600, 16), (2_600, 40), (2_300, 64), (2_100, 1_152), (5_000, 3)):
        array = random_pages(num_pages, page_size)
        for count in (3, 6):
            jobs.add_answer(array, random_keys(count, num_pages), order=order, threads=1)
    jobs.check(program)


def test_every_tail_of_pages_and_a_last_page_elsewhere(program: Path) -> None:
    jobs = Jobs()
    for page_size in (3, 16, 100):
        for num_pages in (1, 2, 5, 8, 9, 31, 33, 64, 65, 127, 511, 512, 513, 1_023, 1_025):
            array = random_pages(num_pages, page_size)
            keys = random_keys(5, num_pages)
            for order in (0, 1):
                jobs.add_answer(array, keys, order=order, threads=1, tail=num_pages % 2 == 1)
    jobs.check(program)


def test_threads_share_a_pass(program: Path) -> None:
    jobs = Jobs()
    for num_pages, page_size in ((65, 65_537), (1_003, 4_096), (3, 1 << 20)):
        array = random_pages(num_pages, page_size)
        for threads in (2, 5):
            keys = random_keys(4, num_pages)
            jobs.add_answer(array, keys, order=0, threads=threads, tail=threads == 5)
    data = random_pages(3, 1 << 20)
    words = np.bitwise_xor.reduce(data.reshape(-1).view(np.uint64))
    jobs.add(f"read baseline 2 {data.size}", data.tobytes(), expected=words.tobytes())
    jobs.check(program)


def test_leaves_of_trees_by_the_instructions_for_sha256_and_without(program: Path) -> None:
    jobs = Jobs()
    jobs.add("hashes", expected=b"sha2 portable\n")
    sizes = [*range(1, 140), 1_000, 4_096]
    for way, pages in itertools.product(("sha2", "portable"), (1, 2, 3, 4, 5)):
        for size in sizes:
            contents = random_pages(pages, size)
            expected = b"".join(
                hash_leaf(index, content.tobytes())
                for index, content in enumerate(contents, 2**40 - 2)
            )
            line = f"leaves {way} {2**40 - 2} {pages} {size}"
            jobs.add(line, contents.tobytes(), expected=expected)
    jobs.check(program)
