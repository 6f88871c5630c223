"""Reads nvdisasm's output: a kernel's instructions, and the loops that they form."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

# Loads from global memory. LD may read any memory.
GLOBAL_LOADS = ("LDG", "LD", "LDGSTS")


@dataclass(frozen=True)
class Instruction:
    name: str  # with its modifiers: LDG.E.128
    conditional: bool  # whether it has a predicate
    targets: tuple[str, ...] = ()  # of a branch; of a jump by a table, one for each entry

    @property
    def opcode(self) -> str:
        return self.name.split(".")[0]

    @property
    def bits(self) -> int:
        """Return the width of a memory access."""
        widths = re.findall(r"\.[US]?(8|16|64|128)(?=\.|$)", self.name)
        return int(widths[0]) if widths else 32


@dataclass
class Block:
    """Instructions that always run one after the other."""

    instructions: list[Instruction] = field(default_factory=list)
    successors: set[int] = field(default_factory=set)
    jumps: list[int] = field(default_factory=list)  # of a table: the block of each entry


class Loop(list[Instruction]):
    """A loop's instructions, without those of inner loops.

    `times` is how often each instruction runs in a turn. All entries of a jump table count as
    equally likely, and code that a condition guards counts as always run.
    """

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []
        self.depth = 1  # the number of loops around it, with itself

    def loads(self) -> list[Instruction]:
        return [i for i in self if i.opcode in GLOBAL_LOADS]

    def length(self) -> float:
        """Return the instructions of a turn."""
        return sum(self.times)

    def opcodes(self) -> dict[str, float]:
        """Count how often each opcode runs in a turn, the most frequent first."""
        found: dict[str, float] = {}
        for instruction, times in zip(self, self.times, strict=True):
            found[instruction.opcode] = found.get(instruction.opcode, 0) + times
        return dict(sorted(found.items(), key=lambda item: -item[1]))


INSTRUCTION = re.compile(r"\s+/\*[0-9a-f]+\*/\s+(@!?U?P\w+ )?\s*([A-Z][\w.]*)\s*(.*?)\s*;")
ENTRIES = re.compile(r'\(\*"BRANCH_TARGETS (.+?)"\*\)')
# These may transfer control. A call returns, and BSYNC goes to the label behind it.
BRANCHES = ("BRA", "JMP")
ENDS = ("EXIT", "RET", "KILL")
TABLE_JUMPS = ("BRX", "BRXU")  # nvdisasm prints the targets of these
INDIRECT = ("JMX", "JMXU")


def parse_kernels(disassembly: str) -> dict[str, list[str]]:
    """Return the lines of each kernel's code."""
    kernels: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in disassembly.splitlines():
        section = re.match(r"\s*\.section\s+([\w.$]+)", line)
        if section:
            lines = []
            if section[1].startswith(".text."):
                kernels[section[1].removeprefix(".text.")] = lines
        lines.append(line)
    return kernels


def parse_blocks(lines: Iterable[str]) -> list[Block]:
    blocks = [Block()]
    labels: dict[str, int] = {}

    def begin_block() -> None:
        if blocks[-1].instructions:
            blocks.append(Block())

    for line in lines:
        label = re.match(r"([\w.$]+):", line)
        if label:
            begin_block()
            labels[label[1]] = len(blocks) - 1
        if not re.match(r"\s+/\*[0-9a-f]+\*/", line):
            continue
        parts = INSTRUCTION.match(line)
        if parts is None:
            raise ValueError(f"not an instruction that this reads: {line.strip()}")
        predicate, name, operands = parts.groups()
        opcode = name.split(".")[0]
        if opcode in INDIRECT:
            raise ValueError(f"a jump whose targets this does not know: {line.strip()}")
        target = re.search(r"`\((.+?)\)", operands) if opcode in BRANCHES else None
        if opcode in BRANCHES and target is None:
            raise ValueError(f"a branch without a label: {line.strip()}")
        entries = ENTRIES.search(operands) if opcode in TABLE_JUMPS else None
        if opcode in TABLE_JUMPS and entries is None:
            raise ValueError(f"a jump whose targets this does not know: {line.strip()}")
        targets = tuple(entries[1].split(",")) if entries else (target[1],) if target else ()
        # A branch may also have its predicate among its operands: BRA P0, `(.L_x_1).
        conditional = bool(predicate) or bool(target and re.match(r"!?U?P\w+,", operands))
        blocks[-1].instructions.append(Instruction(name, conditional, targets))
        if opcode in BRANCHES + TABLE_JUMPS + ENDS:
            begin_block()

    for number, block in enumerate(blocks):
        last = block.instructions[-1] if block.instructions else None
        if last is not None:
            block.successors.update(labels[target] for target in last.targets)
            if last.opcode in TABLE_JUMPS:
                block.jumps = [labels[target] for target in last.targets]
        ends = last is not None and last.opcode in BRANCHES + TABLE_JUMPS + ENDS
        stops = ends and last is not None and not last.conditional
        if not stops and number + 1 < len(blocks):
            block.successors.add(number + 1)
    return blocks


def predecessors_of(blocks: list[Block]) -> list[set[int]]:
    found: list[set[int]] = [set() for _ in blocks]
    for number, block in enumerate(blocks):
        for successor in block.successors:
            found[successor].add(number)
    return found


def dominators_of(predecessors: list[set[int]]) -> list[set[int]]:
    """Return for each block the blocks on every path from the entry to it."""
    everything = set(range(len(predecessors)))
    found = [{0}] + [everything] * (len(predecessors) - 1)
    changed = True
    while changed:
        changed = False
        for block in range(1, len(predecessors)):
            ways = [found[before] for before in predecessors[block]]
            new = (set.intersection(*ways) if ways else set()) | {block}
            changed |= new != found[block]
            found[block] = new
    return found


def find_loops(blocks: list[Block]) -> list[Loop]:
    """Return the natural loops of a kernel: blocks from a head to the jumps back to it."""
    predecessors = predecessors_of(blocks)
    dominators = dominators_of(predecessors)
    bodies: dict[int, set[int]] = {}
    for number, block in enumerate(blocks):
        for head in block.successors & dominators[number]:
            body = bodies.setdefault(head, {head})
            pending = [number]
            while pending:
                inside = pending.pop()
                if inside not in body:
                    body.add(inside)
                    pending += predecessors[inside]
    innermost = {
        number: min((h for h in bodies if number in bodies[h]), key=lambda h: len(bodies[h]))
        for number in set().union(*bodies.values())
    }
    loops = {head: Loop() for head in sorted(bodies)}
    for head, loop in loops.items():
        loop.depth = sum(head in body for body in bodies.values())
    times = {head: times_in(blocks, head, body) for head, body in bodies.items()}
    for number in sorted(innermost):
        loop, instructions = loops[innermost[number]], blocks[number].instructions
        loop += instructions
        loop.times += [times[innermost[number]][number]] * len(instructions)
    return list(loops.values())


def times_in(blocks: list[Block], head: int, body: set[int]) -> dict[int, float]:
    """Count how often the blocks of a loop run in a turn, see Loop."""
    times = dict.fromkeys(body, 0.0)
    times[head] = 1.0
    changed = True
    while changed:
        changed = False
        for number in sorted(body - {head}):
            found = 0.0
            for before in body:
                jumps = blocks[before].jumps
                if number in blocks[before].successors:
                    share = jumps.count(number) / len(jumps) if jumps else 1.0
                    found += times[before] * share
            found = min(1.0, found)
            changed |= found != times[number]
            times[number] = found
    return times
