"""The emulator as a whole: information about a module, refusals, limits, compiled programs."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import morphogen as mg
import ptx_emulator
from native_build import NATIVE
from ptx_emulator import EmulatorError, Module
from ptx_programs import HEADER, kernel, store

U32 = np.uint32


def test_a_module_says_what_is_in_it(emulator: ctypes.CDLL) -> None:
    text = (
        HEADER
        + """
    .file 1 "somewhere.cu"
    .visible .entry first(.param .u8 a, .param .u32 b, .param .align 16 .b8 c[20], .param .u64 d)
    .maxntid 64, 2, 1
    .minnctapersm 2
    .pragma "nounroll";
    {
        .shared .align 16 .b8 tile[100];
        .shared .u64 word;
        .loc 1 2 3
        /* two
           lines */ ret; // and a rest
    }
    .entry second()
    .reqntid 32
    { exit; }
    .section .debug_str { .b8 1, 2 }
    """
    )
    module = Module(text, emulator)
    assert (module.version, module.target) == ("9.0", "sm_80")
    assert list(module.kernels) == ["first", "second"]
    first, second = module.kernels.values()
    layout = [(p.offset, p.size, p.alignment) for p in first.parameters]
    assert layout == [(0, 1, 1), (4, 4, 4), (16, 20, 16), (40, 8, 8)]
    assert (first.parameter_bytes, first.shared_bytes, first.max_threads) == (48, 112, 128)
    assert second == ptx_emulator.KernelInfo((), 0, 0, 32)


# Refusals


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("frobnicate.u32 %w0, %w1;", "instruction 'frobnicate.u32' is not known"),
        ("add.f32 %w0, %w1, %w2;", "instruction 'add.f32' is not known"),
        ("add.sat.s32 %w0, %w1, %w2;", "instruction 'add.sat.s32' is not known"),
        ("cvt.rn.f32.u32 %w0, %w1;", "is not known"),
        ("cp.async.ca.shared.global [%w0], [%q0], 16;", "is not known"),
        ("mov.u32 %w0, %clusterid.x;", "'%clusterid.x' is neither declared nor a special register"),
        ("mov.u32 %w0, %w64;", "'%w64' is neither declared"),
        ("ld.global.sideways.u32 %w0, [%q0];", "modifier '.sideways' is not known"),
        ("ld.global.L2::cache_hint.u32 %w0, [%q0], %q1;", "modifier '.L2::cache_hint'"),
        ("ld.shared::cluster.u32 %w0, [%w1];", "modifier '.shared::cluster'"),
        ("ld.global.f32 %w0, [%q0];", "unknown type"),
        ("ld.global.v2.u32 %w0, [%q0];", "with 1 values"),
        ("ld.global.v4.u64 {%q0,%q1,%q2,%q3}, [%q0];", "with registers of 64 bits"),
        ("ld.global.u32 %h0, [%q0];", "with registers of 16 bits"),
        ("ld.global.u32 %w0, [%w1];", "is not 64 bits"),
        ("ld.global.u32 %w0, %q1;", "an address in"),
        ("atom.global.sub.u32 %w0, [%q0], 1;", "is not known"),
        ("red.global.cas.b32 [%q0], 1, 2;", "is not known"),
        ("add.u32 %w0, %w1;", "with 2 operands"),
        ("add.u32 %w0, %w1, %w2, %w3;", "with 4 operands"),
        ("add.u32 %w0, %w1, %h2;", "'%h2' has 16 bits where the instruction takes 32"),
        ("add.u64 %w0, %q1, %q2;", "'%w0' has 32 bits where the instruction writes 64"),
        ("add.u32 %w0, %w1, 0x1ffffffff;", "a number of more than 32 bits"),
        ("add.u32 %w0, %w1, 0f3f800000;", "is not an integer"),
        ("add.u32 5, %w1, %w2;", "is not a register to write to"),
        ("lop3.b32 %w0, %w1, %w2, %w3, 256;", "not a number below 256"),
        ("and.pred %p0, %p1, !%p2;", "'!' is not known"),
        ("bra nowhere;", "no label 'nowhere'"),
        ("brx.idx %w0, nowhere;", "no .branchtargets 'nowhere'"),
        ("a: ret;\na: ret;", "label 'a' is there twice"),
        (".reg .b32 %w<3>;", "'%w' is declared twice"),
        (".reg .f32 %f<3>;", "registers of type '.f32'"),
        (".shared .f32 x;", "type '.f32' is not known"),
        ("call.uni nowhere, ();", "function 'nowhere' is not defined"),
        ("@%p0 call.uni nowhere, ();", "a call under a guard"),
        ("bar.red.xor.pred %p0, 0, %p1;", "is not known"),
        ("mbarrier.init.shared.b64 [%q0], 1;", "is not known"),
        ("vote.ballot.b32 %w0, %p0;", "is not known"),
        ("mov.b32 %w0, {%w1, %w2};", "'%w1' has 32 bits where the instruction takes 16"),
        ("mov.b64 %q0, {%w1, %w2, %w3};", "is not known"),
    ],
)  # fmt: skip
def test_unknown_statements_are_refused(emulator: ctypes.CDLL, body: str, message: str) -> None:
    text = kernel(f"\n{body}")
    line = 1 + text[: text.index(body)].count("\n") + body.count("\n", 0, len(body))
    with pytest.raises(EmulatorError, match=message) as error:
        Module(text, emulator)
    assert str(error.value).startswith(f"PTX line {line}: ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no .version"),
        (".version 9.0", "no .target"),
        (HEADER + ".entry k() { ret;", "the text ends too early"),
        (HEADER + ".entry k() .maxclusterrank 8 { ret; }", "'.maxclusterrank' is not known"),
        (HEADER + ".global .u32 x = y;", "'y' where a number should be"),
        (HEADER + ".tex .u64 x;", "'.tex' is not known"),
        (HEADER + "/* no end", "comment without end"),
        (".version 9.0\n.target sm_80\n.address_size 32", "not 64 bits"),
        (HEADER + ".func f() { call f, (); ret; } .entry k() { call f, (); ret; }", "recursion"),
        (HEADER + ".const .b8 x[2] = {1, 2, 3};", "too many initial values"),
    ],
)
def test_text_that_is_no_module_is_refused(emulator: ctypes.CDLL, text: str, message: str) -> None:
    with pytest.raises(EmulatorError, match=message):
        Module(text, emulator)


def test_an_error_says_where(emulator: ctypes.CDLL) -> None:
    text = kernel("setp.eq.u32 %p0, %thread, 70;\n@%p0 trap;")
    line = 1 + text[: text.index("@%p0 trap")].count("\n")
    with pytest.raises(EmulatorError) as error:
        Module(text, emulator).launch("k", 2, 64, [0], seed=1)
    where = f"kernel k, line {line} (@%p0 trap;), block (1, 0, 0), thread (6, 0, 0): trap"
    assert str(error.value) == where


# Launches


@pytest.mark.parametrize(
    ("grid", "block", "directives", "message"),
    [
        (1, 65, ".maxntid 64", "65 threads a block, where 1 to 64"),
        (1, 1025, "", "1025 threads"),
        (1, (1 << 31, 1 << 31, 4), "", "threads"),
        (1, 0, "", "0 threads"),
        (0, 32, "", "grid of 0 blocks"),
        (1, 64, ".reqntid 8, 8", "not of the size"),
    ],
)
def test_a_launch_of_the_wrong_shape_is_an_error(
    emulator: ctypes.CDLL, grid: int, block: int, directives: str, message: str
) -> None:
    with pytest.raises(EmulatorError, match=message):
        Module(kernel("", directives=directives), emulator).launch("k", grid, block, [0])


def test_too_much_shared_memory_is_an_error(emulator: ctypes.CDLL) -> None:
    module = Module(kernel(""), emulator)
    module.launch("k", 1, 32, [0], dynamic_shared_bytes=227 * 1024)
    with pytest.raises(EmulatorError, match="too much shared memory"):
        module.launch("k", 1, 32, [0], dynamic_shared_bytes=227 * 1024 + 1)


def test_an_endless_launch_ends_at_the_limit(emulator: ctypes.CDLL) -> None:
    module = Module(kernel("forever: bra forever;"), emulator)
    with pytest.raises(EmulatorError, match="limit of 1000 warp instructions"):
        module.launch("k", 1, 32, [0], instruction_limit=1000)


def test_instructions_are_counted_for_each_warp(emulator: ctypes.CDLL) -> None:
    module = Module(kernel(""), emulator)
    one = module.launch("k", 1, 32, [0]).instructions
    assert one == 6  # four compute the thread's number, one loads a parameter, one exits
    assert module.launch("k", 5, 70, [0]).instructions == 15 * one
    module.launch("k", 5, 70, [0], instruction_limit=15 * one)
    with pytest.raises(EmulatorError, match="limit"):
        module.launch("k", 5, 70, [0], instruction_limit=15 * one - 1)


def test_threads_may_share_a_module(emulator: ctypes.CDLL) -> None:
    body = """
        mov.u32 %w0, 0;
        mov.u32 %w1, 0;
    loop:
        add.u32 %w0, %w0, %thread;
        add.u32 %w1, %w1, 1;
        setp.lt.u32 %p0, %w1, 2000;
        @%p0 bra loop;
        atom.global.add.u32 %w2, [%counter], 1;
    """
    module = Module(kernel(body + store(), [".u64 out", ".u64 counter"]), emulator)
    counter = np.zeros(1, U32)

    def launch(seed: int) -> bool:
        out = np.zeros(256, U32)
        module.launch("k", 4, 64, [out, counter], seed=seed)
        return bool((out == 2000 * np.arange(256)).all())

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(launch, range(16)))
    assert counter[0] == 16 * 256


# Compiled programs


def compile_ptx(name: str, directory: Path) -> str:
    """Compile a source of native/ for the device, without a warning."""
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("needs nvcc")
    ptx = directory / "compiled.ptx"
    command = [nvcc, "-ptx", "-std=c++17", "-arch=compute_80", "-Werror", "all-warnings"]
    command += ["-I", str(NATIVE.parents[2] / "kernels"), "-o", str(ptx), str(NATIVE / name)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    return ptx.read_text()


def find(module: Module, name: str) -> str:
    (found,) = [kernel for kernel in module.kernels if name in kernel]
    return found


def test_the_headers_compute_what_the_host_does(emulator: ctypes.CDLL, tmp_path: Path) -> None:
    module = Module(compile_ptx("device_headers.cu", tmp_path), emulator)
    for log_pages in (3, 9, 10, 20):
        num_pages = 1 << log_pages
        hidden = num_pages // 3
        for key in mg.dpf.gen(hidden, num_pages):
            padded = np.frombuffer(key + bytes(-len(key) % 16), np.uint8)
            bits = np.unpackbits(mg.dpf.eval_full(key, num_pages), bitorder="little")
            for index in {0, hidden, hidden + 1, num_pages - 1}:
                bit = np.full(1, 7, U32)
                module.launch(find(module, "eval"), 1, 1, [padded, index, bit])
                assert bit[0] == bits[index] == mg.dpf.eval_at(key, index, num_pages)


def test_a_compiled_kernel_with_many_kinds_of_instruction(
    emulator: ctypes.CDLL, tmp_path: Path
) -> None:
    module = Module(compile_ptx("ptx_sampler.cu", tmp_path), emulator)
    name = find(module, "sample")
    rng = np.random.default_rng(0)
    numbers = rng.integers(0, 2**32, (512, 4), dtype=U32)
    bytes_ = rng.integers(0, 256, 3600, np.uint8)
    table = np.array([3, 1, 4, 1, 5], U32)
    arrays = ptx_emulator.place([numbers])
    job = bytes_.tobytes() + next(iter(arrays)).to_bytes(8, "little")

    def expected(i: int) -> int:
        x, y, z, w = (int(number) for number in numbers[i // 256 * 256 + (i + 1) % 256])
        value = int(bytes_[x % 3600]) + int(table[z % 5]) * (y >> 7)
        match w % 8:
            case 0:
                value *= 3
            case 1:
                value += i % 256
            case 2:
                value = ((x << 32 | y) << (z & 31)) >> 32
            case 3:
                value = int(f"{x:032b}"[::-1], 2)
            case 4:
                value = x.bit_count() * 100 + 32 - y.bit_length()
            case 5:
                value = x // (y | 1) + z % (w | 1)
            case 6:
                value = (x * y) >> 32
            case _:
                value = (x | y << 32) % (z | w << 32 | 1)
        return value % 2**32

    for seed in range(3):
        out, total, finished = np.zeros(512, U32), np.zeros(1, U32), np.zeros(1, U32)
        module.launch(name, 2, 256, [job, out, total, finished], arrays, seed=seed,
                      dynamic_shared_bytes=1024)  # fmt: skip
        values = [expected(i) for i in range(512)]
        assert out.tolist() == values
        assert total[0] == np.bitwise_xor.reduce(np.array(values, U32))
