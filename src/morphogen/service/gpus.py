"""What GPUs did and have, for metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from morphogen.engine.cuda.phases import PhaseSums
from morphogen.engine.cuda.status import memory_of

PHASES = ("submit", "device", "wait", "copy")


def families(gpus: Mapping[str, PhaseSums]) -> Iterator[Metric]:
    """The metrics of GPUs.

    Parameters
    ----------
    gpus : mapping of str to PhaseSums
        By the device's name.

    Yields
    ------
    prometheus_client.Metric
        None if there are no GPUs.
    """
    if not gpus:
        return
    chunks = CounterMetricFamily(
        "morphogen_gpu_chunks", "Passes that a GPU ended.", labels=("device",)
    )
    seconds = CounterMetricFamily(
        "morphogen_gpu_phase_seconds",
        "Seconds of a pass's phases: submit and copy by the host, device, and wait by the host.",
        labels=("device", "phase"),
    )
    used = GaugeMetricFamily(
        "morphogen_gpu_memory_used_bytes", "Memory in use, by anybody.", labels=("device",)
    )
    total = GaugeMetricFamily("morphogen_gpu_memory_bytes", "Memory.", labels=("device",))
    for device, sums in gpus.items():
        chunks.add_metric((device,), sums.chunks)
        for phase in PHASES:
            seconds.add_metric((device, phase), getattr(sums, phase))
        memory = memory_of(device)
        if memory is not None:  # a device that is lost tells nothing
            used.add_metric((device,), memory[0])
            total.add_metric((device,), memory[1])
    yield from (chunks, seconds, used, total)
