"""Read what nvdisasm prints: a kernel's instructions, and the loops that they form."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

# From global memory; LD may read any.
GLOBAL_LOADS = ("LDG", "LD", "LDGSTS")


@dataclass(frozen=True)
class Instruction:
    name: str  # with its modifiers: LDG.E.128
    conditional: bool  # whether a predicate decides
    target: str | None = None  # of a branch

    @property
    def opcode(self) -> str:
        return self.name.split(".")[0]

    @property
    def bits(self) -> int:
        """The width of a memory access."""
        widths = re.findall(r"\.[US]?(8|16|64|128)(?=\.|$)", self.name)
        return int(widths[0]) if widths else 32


@dataclass
class Block:
    """Instructions that run one after the other, whatever happens."""

    instructions: list[Instruction] = field(default_factory=list)
    successors: set[int] = field(default_factory=set)


class Loop(list[Instruction]):
    """A loop's instructions, without those of the loops within it."""

    def loads(self) -> list[Instruction]:
        return [i for i in self if i.opcode in GLOBAL_LOADS]


INSTRUCTION = re.compile(r"\s+/\*[0-9a-f]+\*/\s+(@!?U?P\w+ )?\s*([A-Z][\w.]*)\s*(.*?)\s*;")
# Where control may go elsewhere. A call returns; and BSYNC goes to the label behind it.
BRANCHES = ("BRA", "JMP")
ENDS = ("EXIT", "RET", "KILL")
INDIRECT = ("BRX", "JMX", "BRXU", "JMXU")


def parse_kernels(disassembly: str) -> dict[str, list[str]]:
    """The lines of each kernel's code."""
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
        # A branch may also have its predicate among its operands: BRA P0, `(.L_x_1).
        conditional = bool(predicate) or bool(target and re.match(r"!?U?P\w+,", operands))
        instruction = Instruction(name, conditional, target[1] if target else None)
        blocks[-1].instructions.append(instruction)
        if opcode in BRANCHES + ENDS:
            begin_block()

    for number, block in enumerate(blocks):
        last = block.instructions[-1] if block.instructions else None
        if last is not None and last.target is not None:
            block.successors.add(labels[last.target])
        stops = last is not None and last.opcode in BRANCHES + ENDS and not last.conditional
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
    """For each block, those that every way from the entry to it passes through."""
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
    """The natural loops of a kernel: what lies between a loop's head and the jumps back to it."""
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
    for number in sorted(innermost):
        loops[innermost[number]] += blocks[number].instructions
    return list(loops.values())
