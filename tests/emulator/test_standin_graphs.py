"""The stand-in's graphs of one launch: the promises of a driver, and misuse."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest

from standin_driver import StandIn
from standin_gpu import COUNT, POISON, DriverError, Gpu, cu, fails, gpu, ok

__all__ = ["gpu"]


class Graph:
    """An instantiated graph of one launch of the kernel that adds one."""

    def __init__(self, gpu: Gpu) -> None:
        self.gpu = gpu
        self.handle = ok(cu.cuGraphCreate(0))
        self.node = ok(cu.cuGraphAddKernelNode(self.handle, None, 0, self.parameters(COUNT)))
        self.exec = ok(cu.cuGraphInstantiate(self.handle, 0))

    def parameters(self, count: int) -> Any:
        """Return a launch that adds one to the first `count` pinned words, in place."""
        node = cu.CUDA_KERNEL_NODE_PARAMS()
        node.func = self.gpu.kernel
        node.gridDimX, node.gridDimY, node.gridDimZ = -(-COUNT // 32), 1, 1
        node.blockDimX, node.blockDimY, node.blockDimZ = 32, 1, 1
        values = (int(self.gpu.mapped), int(self.gpu.mapped), count)
        node.kernelParams = (values, (ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint32))
        return node

    def change(self, count: int) -> Any:
        return cu.cuGraphExecKernelNodeSetParams(self.exec, self.node, self.parameters(count))

    def launch(self) -> Any:
        return cu.cuGraphLaunch(self.exec, self.gpu.stream)

    def wait(self) -> None:
        ok(cu.cuStreamSynchronize(self.gpu.stream))

    def close(self) -> None:
        ok(cu.cuGraphExecDestroy(self.exec))
        ok(cu.cuGraphDestroy(self.handle))
        self.gpu.close()


@pytest.mark.parametrize("schedule", ["late", "eager", "random"])
def test_a_graph_is_changed_and_replayed(schedule: Any, gpu: Gpu, standin: StandIn) -> None:
    standin.set(schedule=schedule)
    graph = Graph(gpu)
    gpu.pinned[:] = 0
    ok(graph.launch())
    graph.wait()
    ok(graph.change(10))
    ok(graph.launch())
    graph.wait()
    assert gpu.pinned.tolist() == [2] * 10 + [1] * (COUNT - 10)
    assert [launch.kernel for launch in standin.launches()] == ["add_one"] * 2
    graph.close()


def test_a_change_is_of_later_launches_only(gpu: Gpu) -> None:
    graph = Graph(gpu)
    gpu.pinned[:] = 0
    ok(graph.launch())
    ok(graph.change(0))
    graph.wait()
    assert gpu.pinned.tolist() == [1] * COUNT
    graph.close()


def test_work_waits_until_somebody_waits_for_it(gpu: Gpu) -> None:
    graph = Graph(gpu)
    gpu.pinned[:] = POISON
    ok(graph.launch())
    assert (gpu.pinned == POISON).all()
    graph.wait()
    assert (gpu.pinned == POISON + 1).all()
    graph.close()


def test_graphs_count_as_live_until_they_are_destroyed(gpu: Gpu, standin: StandIn) -> None:
    graph = Graph(gpu)
    assert (standin.live()["graphs"], standin.live()["graph_execs"]) == (1, 1)
    graph.close()
    assert (standin.live()["graphs"], standin.live()["graph_execs"]) == (0, 0)


def test_a_graph_left_in_a_destroyed_context_is_a_leak(gpu: Gpu, standin: StandIn) -> None:
    Graph(gpu)
    gpu.abandon()
    kinds = ("graph", "instantiated graph")
    left = {f"1 {kind} left in a destroyed context" for kind in kinds}
    assert left <= set(standin.leaks())
    standin.reset()


def test_misuse_is_noticed(gpu: Gpu, standin: StandIn) -> None:
    graph = Graph(gpu)
    ok(graph.launch())
    assert fails(graph.launch(), "INVALID_VALUE")  # the graph still runs
    graph.wait()
    more = cu.cuGraphAddKernelNode(graph.handle, None, 0, graph.parameters(1))
    assert fails(more, "INVALID_VALUE")
    empty = ok(cu.cuGraphCreate(0))
    assert fails(cu.cuGraphInstantiate(empty, 0), "INVALID_VALUE")
    ok(cu.cuGraphDestroy(graph.handle))
    assert fails(graph.change(1), "INVALID_VALUE")  # the graph has gone with its node
    ok(graph.launch())  # the instantiated graph has stayed
    graph.wait()
    assert fails(cu.cuGraphDestroy(graph.handle), "INVALID_HANDLE")
    assert len(standin.misuse()) == 5
    standin.reset()


@pytest.mark.parametrize("call", ["cuGraphLaunch", "cuGraphExecKernelNodeSetParams"])
def test_injected_faults_strike(call: str, gpu: Gpu, standin: StandIn) -> None:
    graph = Graph(gpu)
    gpu.pinned[:] = 0
    standin.inject(call, "CUDA_ERROR_UNKNOWN")
    struck = graph.launch() if call == "cuGraphLaunch" else graph.change(10)
    assert fails(struck, "UNKNOWN")
    graph.wait()
    assert not gpu.pinned.any()
    standin.inject("cuGraphLaunch", "CUDA_ERROR_LAUNCH_FAILED", late=True)
    ok(graph.launch())
    with pytest.raises(DriverError, match="CUDA_ERROR_LAUNCH_FAILED"):
        graph.wait()
    standin.reset()
