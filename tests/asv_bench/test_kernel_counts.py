"""Counts from the output of ptxas and from the disassembly of kernels."""

from __future__ import annotations

from pathlib import Path

import pytest

import make_ptx
from counts import kernels, sass

# nvdisasm's output for two small kernels. This one loads 4 bytes at a time.
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

# This one makes masks with more LOP3 than the pages' bytes need: 11 for 16 bytes and 2 keys.
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

# The output of `ptxas --verbose` for a kernel with too few registers, and for one with enough.
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


def test_half_of_the_registers_would_not_do(tmp_path: Path) -> None:
    try:
        tools = kernels.Tools.find()
    except NotImplementedError as reason:
        pytest.skip(str(reason))
    ptx = tmp_path / make_ptx.DEFAULT
    committed = (make_ptx.COMMITTED / make_ptx.DEFAULT).read_text()
    ptx.write_text(committed.replace(".minnctapersm 1", ".minnctapersm 2"))
    counts = kernels.count_kernels(tools, ptx, "sm_80")["morphogen_scan_6"]
    assert counts["registers"] <= 32
    assert counts["spilled and stack bytes"] > 0
    assert counts["local accesses"] > 0


def test_resources_are_read_from_what_ptxas_reports() -> None:
    assert kernels.count_resources(PTXAS, PTX) == {
        "spills": {
            "registers": 24,
            "threads a multiprocessor": 2048,
            "shared bytes": 0,
            "spilled and stack bytes": 192 + 364 + 360,
        },
        "morphogen_scan_6": {
            "registers": 64,
            "threads a multiprocessor": 1024,
            "shared bytes": 35937,
            "spilled and stack bytes": 0,
        },
    }


@pytest.mark.parametrize(
    ("registers", "block", "threads"),
    [(32, 1024, 2048), (33, 1024, 1024), (65, 1024, 0), (65, 256, 768), (255, 256, 256)],
)
def test_threads_that_fit_by_registers(registers: int, block: int, threads: int) -> None:
    assert kernels.threads_that_fit(registers, block) == threads


def count_code(disassembly: str) -> dict[str, float]:
    ((name, lines),) = sass.parse_kernels(disassembly).items()
    return kernels.count_code(name, lines)


def test_narrow_loads_are_counted() -> None:
    counts = count_code(NARROW)
    assert counts["loads narrower than 16 bytes"] == 1
    assert counts["instructions a load"] == 7


def test_logic_is_counted_for_each_key() -> None:
    counts = count_code(MASKS)
    assert counts["LOP3 for 16 bytes and a key"] == 11 / 2
    assert counts["loads narrower than 16 bytes"] == 0


def test_local_memory_is_counted() -> None:
    code = MASKS.replace("IADD3 R0, R0, 0x100, RZ", "LDL.LU R11, [R1+0x10]")
    code = code.replace("S2R R0, SR_TID.X", "STL.128 [R1], RZ")
    assert count_code(code)["local accesses"] == 2


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
    outer, inner = sass.find_loops(sass.parse_blocks(LOOPS.splitlines()))
    assert [i.bits for i in outer.loads()] == [8]
    assert [i.bits for i in inner.loads()] == [128, 128]
    assert [len(outer), len(inner)] == [2, 5]
    assert [outer.depth, inner.depth] == [1, 2]


# A jump to one of four cases, two of which are the same. The second case has a condition inside.
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


def test_cases_of_a_jump_count_as_often_as_they_are_taken() -> None:
    (found,) = sass.find_loops(sass.parse_blocks(JUMP.splitlines()))
    assert len(found) == 8
    # Head 2, the cases 3 / 4 and (1 + 1) / 4, the join 1.
    assert found.length() == pytest.approx(2 + 3 / 4 + 2 / 4 + 1)
    assert found.opcodes() == {"LDG": 1, "BRX": 1, "BRA": 1.5, "LOP3": 0.75}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (" /*0000*/ BRX R4 -0x10 ;", "a jump whose targets"),
        (" /*0000*/ BRA 0x40 ;", "a branch without a label"),
        (" /*0000*/ { something new", "not an instruction"),
    ],
)
def test_code_that_is_not_understood_is_an_error(line: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        sass.parse_blocks([line])
