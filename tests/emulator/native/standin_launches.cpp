// Entry points of libcuda.so.1 for launches, alone and in graphs of one launch each.

#include <cstring>
#include <utility>

#include "standin_call.h"
#include "standin_kernels.h"

using namespace standin;

namespace {

std::uint64_t number(const void* handle) { return reinterpret_cast<std::uintptr_t>(handle); }

template <class Handle>
Handle as(std::uint64_t handle) {
  return reinterpret_cast<Handle>(static_cast<std::uintptr_t>(handle));
}

KernelLaunch read_node(const Call& call, const CUDA_KERNEL_NODE_PARAMS* node) {
  require(node, "no parameters of a node");
  require(!node->extra, "parameters as one buffer, which the stand-in does not take");
  require(!node->kern && !node->ctx, "a kernel without its module, which the stand-in has not");
  KernelLaunch launch{find(call.context->functions, node->func, "function"),
                      {node->gridDimX, node->gridDimY, node->gridDimZ},
                      {node->blockDimX, node->blockDimY, node->blockDimZ},
                      node->sharedMemBytes,
                      {}};
  check_launch(*launch.function, launch.grid, launch.block, launch.dynamic_shared_bytes);
  launch.parameters = copy_parameters(*launch.function, node->kernelParams);
  return launch;
}

// Queues a launch in a stream, with the present parameters and the present allocations.
Point queue_launch(Call& call, const KernelLaunch& launch, const std::shared_ptr<Stream>& stream) {
  std::vector<std::shared_ptr<Allocation>> memory;
  for (const auto& [key, allocation] : call.context->device_memory) memory.push_back(allocation);
  for (const auto& [key, allocation] : call.context->host_memory)
    if (allocation->address) memory.push_back(allocation);
  const Point done = call.queue(stream, [launch, memory] {
    run_kernel(*launch.function, launch.grid, launch.block, launch.dynamic_shared_bytes,
               launch.parameters, memory);
  });
  if (setting(kLog))
    call.driver.launches.push_back(
        {ptx::info(*launch.function->kernel).name, launch.grid, launch.block, stream.get()});
  return done;
}

void note_launch() { Driver::get().last_launch_ns.store(now_ns(), std::memory_order_relaxed); }

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

CUresult cuLaunchKernel(CUfunction handle, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                        unsigned block_x, unsigned block_y, unsigned block_z,
                        unsigned dynamic_shared_bytes, CUstream stream, void** values,
                        void** extra) {
  note_launch();
  if (is_null(kLaunchKernel)) return CUDA_SUCCESS;
  return call(kLaunchKernel, Needs::kContext, [&](Call& call) {
    const CUDA_KERNEL_NODE_PARAMS node{handle,  grid_x,  grid_y, grid_z, block_x, block_y,
                                       block_z, dynamic_shared_bytes, values, extra, nullptr,
                                       nullptr};
    call.schedule(queue_launch(call, read_node(call, &node), call.stream(stream)));
  });
}

CUresult cuGraphCreate(CUgraph* handle, unsigned flags) {
  return call(kGraphCreate, Needs::kContext, [&](Call& call) {
    require(handle && flags == 0, "flags");
    *handle = as<CUgraph>(call.driver.handle());
    call.context->graphs.emplace(number(*handle), std::make_shared<Graph>());
  });
}

CUresult cuGraphDestroy(CUgraph handle) {
  return call(kGraphDestroy, Needs::kContext, [&](Call& call) {
    find(call.context->graphs, handle, "graph");
    call.context->graphs.erase(number(handle));
  });
}

CUresult cuGraphAddKernelNode_v2(CUgraphNode* node, CUgraph handle, const CUgraphNode* dependencies,
                                 std::size_t count, const CUDA_KERNEL_NODE_PARAMS* parameters) {
  return call(kGraphAddKernelNode, Needs::kContext, [&](Call& call) {
    const auto graph = find(call.context->graphs, handle, "graph");
    require(node && !dependencies && count == 0, "dependencies, which the stand-in does not take");
    require(!graph->node, "a second node, which the stand-in does not take");
    graph->launch = read_node(call, parameters);
    graph->node = call.driver.handle();
    *node = as<CUgraphNode>(graph->node);
  });
}

CUresult cuGraphInstantiateWithFlags(CUgraphExec* handle, CUgraph graph, unsigned long long flags) {
  return call(kGraphInstantiate, Needs::kContext, [&](Call& call) {
    const auto from = find(call.context->graphs, graph, "graph");
    require(handle && flags == 0, "flags");
    require(from->node, "an empty graph");
    *handle = as<CUgraphExec>(call.driver.handle());
    // Copy the graph, which may change or go later.
    const auto made = std::make_shared<GraphExec>(GraphExec{from->node, from->launch, {}});
    call.context->graph_execs.emplace(number(*handle), made);
  });
}

CUresult cuGraphExecKernelNodeSetParams_v2(CUgraphExec handle, CUgraphNode node,
                                           const CUDA_KERNEL_NODE_PARAMS* parameters) {
  if (is_null(kGraphExecKernelNodeSetParams)) return CUDA_SUCCESS;
  return call(kGraphExecKernelNodeSetParams, Needs::kContext, [&](Call& call) {
    const auto exec = find(call.context->graph_execs, handle, "instantiated graph");
    const bool known = number(node) == exec->node;
    bool lives = false;
    for (const auto& [key, graph] : call.context->graphs) lives |= graph->node == exec->node;
    require(known && lives, "a node that the graph does not have, or no more");
    exec->launch = read_node(call, parameters);  // for later launches, not for queued ones
  });
}

CUresult cuGraphLaunch(CUgraphExec handle, CUstream stream) {
  note_launch();
  if (is_null(kGraphLaunch)) return CUDA_SUCCESS;
  return call(kGraphLaunch, Needs::kContext, [&](Call& call) {
    const auto exec = find(call.context->graph_execs, handle, "instantiated graph");
    // A driver would make the second launch wait for the first, in whatever stream. The engine's
    // lanes never share a graph, so this is an error.
    require(!exec->last.stream || exec->last.stream->done >= exec->last.position,
            "a graph that still runs");
    exec->last = queue_launch(call, exec->launch, call.stream(stream));
    call.schedule(exec->last);
  });
}

CUresult cuGraphExecDestroy(CUgraphExec handle) {
  return call(kGraphExecDestroy, Needs::kContext, [&](Call& call) {
    const auto exec = find(call.context->graph_execs, handle, "instantiated graph");
    if (exec->last.stream) call.wait(exec->last);
    call.context->graph_execs.erase(number(handle));
  });
}

}  // extern "C"
#pragma GCC visibility pop
