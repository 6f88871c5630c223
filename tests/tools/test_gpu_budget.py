"""The page kernels' budget on a GPU: kept by what is committed, and able to fail."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import gpu_budget
import make_ptx
import sass

# What nvdisasm prints, of two small kernels. This one loads 4 bytes at a time.
NARROW = """
\t.section\t.text.morphogen_scan_1,"ax",@progbits
\t.sectioninfo\t@"SHI_REGISTERS=10"
morphogen_scan_1:
.text.morphogen_scan_1:
        /*0000*/                   IMAD.MOV.U32 R1, RZ, RZ, c[0x0][0x28] ;
        /*0040*/                   BSSY B0, `(.L_x_8) ;
        /*0080*/               @P0 BRA `(.L_x_9) ;
        /*0090*/                   MOV R7, RZ ;
.L_x_10:
        /*00a0*/                   IMAD.MOV.U32 R3, RZ, RZ, 0x4 ;
        /*00b0*/                   IMAD.WIDE.U32 R2, R0, R3, c[0x0][0x160] ;
        /*00c0*/                   LDG.E R2, [R2.64] ;
        /*00d0*/                   IADD3 R0, R0, 0x100, RZ ;
        /*00e0*/                   ISETP.GE.U32.AND P0, PT, R0, c[0x0][0x168], PT ;
        /*00f0*/                   LOP3.LUT R7, R7, c[0x0][0x16c], R2, 0x78, !PT ;
        /*0100*/              @!P0 BRA `(.L_x_10) ;
.L_x_9:
        /*0110*/                   BSYNC B0 ;
.L_x_8:
        /*0120*/                   STG.E [R4.64], R7 ;
        /*0130*/                   EXIT ;
.L_x_11:
        /*0140*/                   BRA `(.L_x_11);
        /*0150*/                   NOP;
.L_x_14:
"""

# And this one makes masks with more LOP3 than the pages' bytes need: 11 for 16 bytes and 2 keys.
MASKS = """
\t.section\t.text.morphogen_scan_2,"ax",@progbits
.text.morphogen_scan_2:
        /*0000*/                   S2R R0, SR_TID.X ;
        /*0010*/               @P0 EXIT ;
.L_x_6:
        /*0120*/                   LDG.E.128 R12, [R12.64] ;
        /*0130*/                   LOP3.LUT R16, R0.reuse, 0x1f, RZ, 0xc0, !PT ;
        /*0150*/                   IADD3 R0, R0, 0x100, RZ ;
        /*0170*/                   SHF.R.U32.HI R17, RZ, R16.reuse, R17 ;
        /*0180*/                   ISETP.GE.U32.AND P0, PT, R0, c[0x0][0x168], PT ;
        /*0190*/                   SHF.R.U32.HI R16, RZ, R16, R19 ;
        /*01a0*/                   LOP3.LUT R17, R17, 0x1, RZ, 0xc0, !PT ;
        /*01b0*/                   LOP3.LUT R16, R16, 0x1, RZ, 0xc0, !PT ;
        /*01c0*/                   IMAD.MOV R17, RZ, RZ, -R17 ;
        /*01d0*/                   IMAD.MOV R16, RZ, RZ, -R16 ;
        /*01e0*/                   LOP3.LUT R8, R8, R12, R17.reuse, 0x78, !PT ;
        /*01f0*/                   LOP3.LUT R9, R9, R13, R17.reuse, 0x78, !PT ;
        /*0200*/                   LOP3.LUT R10, R10, R14, R17.reuse, 0x78, !PT ;
        /*0210*/                   LOP3.LUT R11, R11, R15, R17, 0x78, !PT ;
        /*0220*/                   LOP3.LUT R4, R4, R12, R16.reuse, 0x78, !PT ;
        /*0230*/                   LOP3.LUT R5, R5, R13, R16, 0x78, !PT ;
        /*0240*/                   LOP3.LUT R6, R6, R14, R16.reuse, 0x78, !PT ;
        /*0250*/                   LOP3.LUT R7, R7, R15, R16, 0x78, !PT ;
        /*0260*/              @!P0 BRA `(.L_x_6) ;
        /*0270*/                   STG.E.128 [R2.64], R8 ;
        /*0280*/                   EXIT ;
"""

# What `ptxas --verbose` prints of a kernel that has too few registers, and of one that has enough.
PTXAS = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'spills' for 'sm_80'
ptxas info    : Function properties for spills
    192 bytes stack frame, 364 bytes spill stores, 360 bytes spill loads
ptxas info    : Used 24 registers, 192 bytes cumulative stack size, 376 bytes cmem[0]
ptxas info    : Compile time = 10.564 ms
ptxas info    : Compiling entry function 'morphogen_scan_6' for 'sm_80'
ptxas info    : Function properties for morphogen_scan_6
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 64 registers, used 1 barriers, 35937 bytes smem, 4064 bytes cmem[0]
"""
PTX = """\
.visible .entry spills(
\t.param .u32 spills_param_0
)
.maxntid 256, 1, 1
{
}
.visible .entry morphogen_scan_6(
\t.param .align 8 .b8 morphogen_scan_6_param_0[64]
)
.maxntid 1024, 1, 1
.minnctapersm 1
"""

LIMITS = json.loads(gpu_budget.BUDGET.read_text())["limits"]


def kernel(name: str = "morphogen_scan_6", **changes: Any) -> gpu_budget.Kernel:
    """A kernel that keeps its budget, but for what a test changes."""
    costs = {"registers": 64, "spill_bytes": 0, "stack_bytes": 0, "shared_bytes": 35937}
    return gpu_budget.Kernel(name, **{**costs, "block_threads": 1024, **changes})


def with_code(disassembly: str) -> gpu_budget.Kernel:
    ((name, lines),) = sass.parse_kernels(disassembly).items()
    made = kernel(name)
    gpu_budget.read_disassembly(made, lines)
    return made


def loop(instructions: int = 140, loads: int = 4, lop3: int = 96) -> gpu_budget.ScanLoop:
    return gpu_budget.ScanLoop(instructions, [128] * loads, 0, {"LOP3": lop3})


def excesses(made: gpu_budget.Kernel, recorded: float = 35.0) -> list[str]:
    return gpu_budget.excesses(made, LIMITS, {made.name: recorded})


# The committed kernels


@pytest.fixture(scope="module")
def tools() -> tuple[str, str]:
    found = gpu_budget.find_tools()
    if found is None:
        pytest.skip(f"needs {gpu_budget.NEEDED}")
    return found


def test_the_committed_kernels_keep_their_budget(tools: tuple[str, str]) -> None:
    command = [sys.executable, gpu_budget.__file__, "--check"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert "morphogen_scan_6" in result.stdout


def test_the_budget_is_that_of_the_issue() -> None:
    assert LIMITS["threads_per_multiprocessor"] == 1024
    assert LIMITS["lop3_per_vector_and_key"] == pytest.approx(4 * 1.15)


def test_wide_kernels_have_limits_of_their_own() -> None:
    # A jump brings what masks cost 4 LOP3 a page down to 4 for 4 pages, and little besides.
    assert LIMITS["wide"] == {"threads_per_multiprocessor": 256, "lop3_per_vector_and_key": 1.5}
    made = kernel("morphogen_scan_24", registers=255, block_threads=256, loops=[loop(lop3=144)])
    assert excesses(made) == []
    made.loops[0].opcodes["LOP3"] = 145
    assert excesses(made) == ["morphogen_scan_24: 1.51 LOP3 per 16 bytes and key, 1.5 allowed"]
    made.registers = 257
    assert "0 threads fit a multiprocessor, 256 needed" in excesses(made)[0]


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
def test_half_of_the_registers_would_not_do(
    architecture: str, tools: tuple[str, str], tmp_path: Path
) -> None:
    name = make_ptx.PTX
    text = (make_ptx.COMMITTED / name).read_text()
    (tmp_path / name).write_text(text.replace(".minnctapersm 1", ".minnctapersm 2"))
    made = gpu_budget.read_kernels(tools, tmp_path / name, architecture)["morphogen_scan_6"]
    assert made.registers <= 32
    assert made.local_accesses > 0
    assert any("bytes spilled" in line for line in excesses(made))


# What ptxas says


def test_spills_are_read() -> None:
    found = gpu_budget.parse_ptxas(PTXAS, PTX)
    assert found["morphogen_scan_6"] == kernel()
    expected = {"registers": 24, "spill_bytes": 724, "stack_bytes": 192, "shared_bytes": 0}
    assert found["spills"] == kernel("spills", block_threads=256, **expected)


@pytest.mark.parametrize(
    ("registers", "block", "threads"),
    [
        (32, 1024, 2048),
        (33, 1024, 1024),
        (64, 1024, 1024),
        (65, 1024, 0),
        (65, 256, 768),
        (128, 256, 512),
        (255, 256, 256),
        (16, 64, 2048),
    ],
)
def test_threads_that_fit_by_registers(registers: int, block: int, threads: int) -> None:
    made = kernel(registers=registers, block_threads=block)
    assert made.threads_per_multiprocessor == threads


# What the code says


def test_loads_of_four_bytes_exceed_the_budget() -> None:
    made = with_code(NARROW)
    assert [found.load_bits for found in made.loops] == [[32]]
    assert made.loops[0].instructions == 7
    assert made.lop3_per_vector_and_key == 4.0
    assert excesses(made) == ["morphogen_scan_1: a loop with loads of [32] bits"]


@pytest.mark.parametrize("name", ["LDG.E.64", "LDG.E.U8", "LDG.E", "LD.E.64"])
def test_narrow_loads_outside_of_loops_exceed_the_budget(name: str) -> None:
    """Those of a scan; a pure read loads its accumulator so."""
    before = "/*0010*/               @P0 EXIT ;"
    code = MASKS.replace(before, f"{before}\n        /*0020*/  {name} R20, [R20.64] ;")
    made = with_code(code)
    bits = sass.Instruction(name, conditional=False).bits
    assert made.other_load_bits == [bits]
    assert [found.load_bits for found in made.loops] == [[128]]
    narrow = f"morphogen_scan_2: loads of [{bits}] bits outside of loops"
    assert narrow in excesses(made)
    made.name = "morphogen_read"
    assert excesses(made) == []


def test_whole_vectors_outside_of_loops_are_within_the_budget() -> None:
    made = kernel(loops=[loop()], other_load_bits=[128, 128])
    assert excesses(made) == []


def test_too_much_logic_exceeds_the_budget() -> None:
    made = with_code(MASKS)
    assert [found.load_bits for found in made.loops] == [[128]]
    assert made.loops[0].opcodes["LOP3"] == 11
    assert excesses(made) == ["morphogen_scan_2: 5.5 LOP3 per 16 bytes and key, 4.6 allowed"]


def test_local_memory_is_counted() -> None:
    code = MASKS.replace("IADD3 R0, R0, 0x100, RZ", "LDL.LU R11, [R1+0x10]")
    assert with_code(code.replace("S2R R0, SR_TID.X", "STL.128 [R1], RZ")).local_accesses == 2


def test_the_main_loop_has_the_most_loads_and_no_conditions() -> None:
    body = "".join(f"\n /*00{i}0*/ {{}}LDG.E.128 R{i}, [R2.64] ;" for i in range(2))
    loops = [
        f"\n{label}:{body.format(predicate, predicate)}\n /*0030*/ @P1 BRA `({label}) ;"
        for label, predicate in [(".L_x_1", "@!P0 "), (".L_x_2", ""), (".L_x_3", "@!UP0 ")]
    ]
    made = with_code('\t.section\t.text.morphogen_scan_1,"ax"\n' + "".join(loops))
    assert [found.conditional_loads for found in made.loops] == [0, 2, 2]


LOOPS = """
 /*0000*/ LDG.E.64 R2, [R2.64] ;
.outer:
 /*0010*/ LDG.E.U8 R2, [R2.64] ;
.inner:
 /*0020*/ LDG.E.EF.128 R4, desc[UR8][R2.64] ;
 /*0030*/ @P0 BRA `(.cold) ;
.back:
 /*0040*/ BRA.U UP1, `(.inner) ;
 /*0050*/ @!P1 BRA `(.outer) ;
 /*0060*/ EXIT ;
.cold:
 /*0070*/ LDG.E.128.STRONG.GPU R4, [R2.64] ;
 /*0080*/ BRA `(.back) ;
"""


def test_loops_within_loops_and_code_out_of_line() -> None:
    blocks = sass.parse_blocks(LOOPS.splitlines())
    outer, inner = sass.find_loops(blocks)
    assert [i.bits for i in outer.loads()] == [8]
    assert [i.bits for i in inner.loads()] == [128, 128]
    assert [len(outer), len(inner)] == [2, 5]


# A jump to one of four cases, of which two are the same; the second case has a condition within.
JUMP = """
.head:
 /*0000*/ LDG.E.128 R4, [R2.64] ;
 /*0010*/ BRX R6 -0x20 (*"BRANCH_TARGETS .join,.one,.two,.join"*) ;
.one:
 /*0020*/ LOP3.LUT R1, R1, R4, RZ, 0x3c, !PT ;
 /*0030*/ LOP3.LUT R1, R1, R4, RZ, 0x3c, !PT ;
 /*0040*/ BRA `(.join) ;
.two:
 /*0050*/ @P2 BRA `(.join) ;
 /*0060*/ LOP3.LUT R1, R1, R5, RZ, 0x3c, !PT ;
.join:
 /*0070*/ @P0 BRA `(.head) ;
 /*0080*/ EXIT ;
"""


def test_the_main_loop_is_an_inner_one() -> None:
    inner = LOOPS.replace("LDG.E.U8", "LDG.E.128").replace(
        ".inner:", " /*0018*/ LDG.E.128 R8 ;\n.inner:"
    )
    found = with_code('\t.section\t.text.morphogen_scan_1,"ax"' + inner).loops
    assert [(loop.depth, len(loop.load_bits)) for loop in found] == [(2, 2), (1, 2)]


def test_branches_count_fully_or_evenly() -> None:
    loops = [
        sass.find_loops(sass.parse_blocks(LOOPS.splitlines()), even=even)[1]
        for even in (False, True)
    ]
    # The cold part is two instructions.
    assert [loop.length() for loop in loops] == [5, 4]


def test_cases_of_a_jump_count_as_often_as_they_are_taken() -> None:
    (found,) = sass.find_loops(sass.parse_blocks(JUMP.splitlines()))
    assert len(found) == 8
    # Head 2, the cases 3 / 4 and (1 + 1) / 4, the join 1.
    assert found.length() == pytest.approx(2 + 3 / 4 + 2 / 4 + 1)
    assert found.opcodes() == {"LDG": 1, "BRX": 1, "BRA": 1.5, "LOP3": 0.75}
    assert [i.bits for i in found.loads()] == [128]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (" /*0000*/ BRX R4 -0x10 ;", "a jump whose targets"),
        (" /*0000*/ JMX R4 -0x10 ;", "a jump whose targets"),
        (" /*0000*/ BRA 0x40 ;", "a branch without a label"),
        (" /*0000*/ { something new", "not an instruction"),
    ],
)
def test_code_that_is_not_understood_is_an_error(line: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        sass.parse_blocks([line])


# What exceeds a budget


def test_a_kernel_within_its_budget() -> None:
    assert excesses(kernel(loops=[loop()])) == []


@pytest.mark.parametrize(
    ("changes", "excess"),
    [
        ({"spill_bytes": 4}, "4 bytes spilled, 0 allowed"),
        ({"stack_bytes": 8}, "8 bytes of stack, 0 allowed"),
        ({"local_accesses": 1}, "1 local memory accesses, 0 allowed"),
        ({"shared_bytes": 49153}, "49153 bytes of shared memory, 49152 allowed"),
        ({"registers": 72}, "0 threads fit a multiprocessor, 1024 needed"),
        ({"registers": 72, "block_threads": 512}, "512 threads fit a multiprocessor, 1024 needed"),
        ({"loops": []}, "no loop that loads pages"),
        ({"other_load_bits": [64, 128]}, "loads of [64] bits outside of loops"),
        ({"loops": [loop(lop3=111)]}, "4.625 LOP3 per 16 bytes and key, 4.6 allowed"),
        ({"loops": [loop(instructions=148)]}, "37.0 instructions for a load, 36.75 allowed"),
    ],
)
def test_each_excess_is_found(changes: dict[str, Any], excess: str) -> None:
    made = kernel(**{"loops": [loop()], **changes})
    assert excesses(made) == [f"morphogen_scan_6: {excess}"]


def test_kernels_and_the_budget_name_each_other() -> None:
    report = {"sm_80": {"morphogen_scan_6": kernel(loops=[loop()])}}
    budget = {"limits": LIMITS, "instructions_per_load": {"sm_80": {"morphogen_scan_7": 1.0}}}
    missing, stale = gpu_budget.all_excesses(budget, report)
    assert missing.startswith("sm_80 morphogen_scan_6: not in the budget")
    assert stale == "sm_80 morphogen_scan_7: is no more"
