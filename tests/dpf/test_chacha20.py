"""kernels/chacha20.h against RFC 8439 and the `cryptography` package, as words and as vectors."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

import morphogen as mg
from tiers import UNSUPPORTED

TESTS = Path(__file__).resolve().parents[1]
KERNELS = TESTS.parent / "kernels"
RFC_8439 = json.loads((TESTS / "vectors" / "dpf_v1.json").read_text(encoding="utf-8"))[
    "chacha20_block"
]

# The compiler flags of each instruction set, by its name in morphogen.
BUILDS = {"baseline": [], "avx2": ["-mavx2"], "avx512": ["-mavx512f"]}


@pytest.fixture(scope="module", params=BUILDS)
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile chacha20.cpp for each width of vectors."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        pytest.skip("needs a C++ compiler")
    if request.param not in mg.instruction_set.supported():
        pytest.skip(f"{UNSUPPORTED} {request.param}")
    path = tmp_path_factory.mktemp("chacha20") / request.param
    source = TESTS / "dpf" / "chacha20.cpp"
    options = ["-std=c++17", "-O2", "-Wno-psabi", f"-I{KERNELS}"]
    subprocess.run([compiler, *options, *BUILDS[request.param], source, "-o", path], check=True)
    return path


def computed_blocks(program: Path, states: list[bytes]) -> list[list[bytes]]:
    """Return the blocks of the states, computed one by one and side by side."""
    padded = [*states, *[bytes(48)] * (-len(states) % 16)]
    result = subprocess.run(
        [program],
        input=b"".join(state + bytes(16) for state in padded),
        capture_output=True,
        check=True,
    )
    blocks = [result.stdout[i : i + 64] for i in range(0, len(result.stdout), 64)]
    assert len(blocks) == 2 * len(padded)
    return [blocks[: len(states)], blocks[len(padded) :][: len(states)]]


def library_block(state: bytes) -> bytes:
    """Return the block of key | counter | nonce as `cryptography` computes it."""
    cipher = Cipher(algorithms.ChaCha20(state[:32], state[32:]), mode=None)
    return cipher.encryptor().update(bytes(64))


def test_the_block_of_rfc_8439(program: Path) -> None:
    state = bytes.fromhex(RFC_8439["key"])
    state += RFC_8439["counter"].to_bytes(4, "little") + bytes.fromhex(RFC_8439["nonce"])
    block = bytes.fromhex(RFC_8439["block"])
    # Put the vector into every lane: its block must appear there and in no other lane.
    for position in range(16):
        states = [bytes([i]) * 48 for i in range(16)]
        states[position] = state
        for blocks in computed_blocks(program, states):
            assert [i for i in range(16) if blocks[i] == block] == [position]


def test_blocks_of_random_states(program: Path) -> None:
    rng = random.Random(8439)
    states = [rng.randbytes(48) for _ in range(1000)]
    states += [bytes(48), b"\xff" * 48]
    for counter in (0, 1, 2**31, 2**32 - 1):
        states.append(rng.randbytes(32) + counter.to_bytes(4, "little") + b"morphogen/v1")
    expected = [library_block(state) for state in states]
    for blocks in computed_blocks(program, states):
        assert blocks == expected
