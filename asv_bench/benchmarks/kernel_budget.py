"""What the page kernels cost on a GPU, by tools/gpu_budget.py: from what ptxas makes of the PTX.

The PTX is that of the installed package. Not applicable without ptxas and nvdisasm, which the extra
`kernels` brings, or where a commit has no such kernel. A bound on speed, not a measurement.
"""

from __future__ import annotations

import json
import sys

import morphogen.engine.cuda.ptx as ptx

from .compiled import ROOT

sys.path.append(str(ROOT / "tools"))

import gpu_budget

BUDGET = json.loads(gpu_budget.BUDGET.read_text(encoding="utf-8"))["instructions_per_load"]
KERNELS = tuple(dict.fromkeys(name for kernels in BUDGET.values() for name in kernels))

SCANS = tuple(name for name in KERNELS if "_scan_" in name)

Costs = dict[str, float]
# By architecture and name; or why they are not known.
Counted = dict[str, dict[str, Costs]] | str


def count_all() -> dict[str, dict[str, Costs]]:
    """The costs of each kernel, by architecture and name."""
    tools = gpu_budget.find_tools()
    if tools is None:
        raise NotImplementedError(f"needs {gpu_budget.NEEDED}")
    found: dict[str, dict[str, Costs]] = {}
    for architecture in gpu_budget.ARCHITECTURES:
        kernels = gpu_budget.read_kernels(tools, ptx.FOLDER / ptx.NAME, architecture)
        found[architecture] = {name: costs(kernel) for name, kernel in kernels.items()}
    return found


def costs(kernel: gpu_budget.Kernel) -> Costs:
    found: Costs = {
        "registers": kernel.registers,
        "shared bytes": kernel.shared_bytes,
        "spilled bytes": kernel.spill_bytes + kernel.stack_bytes + kernel.local_accesses,
    }
    if kernel.loops:
        found["instructions per load"] = kernel.loops[0].instructions_per_load
    if kernel.lop3_per_vector_and_key is not None:
        found["lop3"] = kernel.lop3_per_vector_and_key
    return found


def setup_cache() -> Counted:
    # What is raised here would be a failure; raised in a benchmark's setup it says n/a.
    try:
        return count_all()
    except NotImplementedError as reason:
        return str(reason)


def find_costs(counted: Counted, kernel: str, architecture: str) -> Costs:
    if isinstance(counted, str):
        raise NotImplementedError(counted)
    if kernel not in counted.get(architecture, {}):
        raise NotImplementedError(f"no {kernel} for {architecture} in this commit")
    return counted[architecture][kernel]


class Kernel:
    """What is read is written in tools/, which asv's hash of these lines does not see."""

    params = (KERNELS, tuple(BUDGET))
    param_names = ("kernel", "architecture")

    def setup(self, counted: Counted, kernel: str, architecture: str) -> None:
        self.costs = find_costs(counted, kernel, architecture)

    def track_registers(self, counted: Counted, kernel: str, architecture: str) -> float:
        return self.costs["registers"]

    track_registers.unit = "registers a thread"
    track_registers.version = "1"

    def track_shared_bytes(self, counted: Counted, kernel: str, architecture: str) -> float:
        return self.costs["shared bytes"]

    track_shared_bytes.unit = "bytes a block"
    track_shared_bytes.version = "1"

    def track_spills(self, counted: Counted, kernel: str, architecture: str) -> float:
        return self.costs["spilled bytes"]

    track_spills.unit = "bytes of spills and stack, and local accesses"
    track_spills.version = "1"

    def track_instructions_per_load(
        self, counted: Counted, kernel: str, architecture: str
    ) -> float:
        return self.costs["instructions per load"]

    track_instructions_per_load.unit = "instructions a load of 16 bytes"
    track_instructions_per_load.version = "1"


class Scan:
    params = (SCANS, tuple(BUDGET))
    param_names = ("kernel", "architecture")

    def setup(self, counted: Counted, kernel: str, architecture: str) -> None:
        self.costs = find_costs(counted, kernel, architecture)

    def track_lop3_per_vector_and_key(
        self, counted: Counted, kernel: str, architecture: str
    ) -> float:
        return self.costs["lop3"]

    track_lop3_per_vector_and_key.unit = "LOP3 per 16 bytes and key"
    track_lop3_per_vector_and_key.version = "1"
