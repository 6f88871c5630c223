"""A cluster without Ray: processes are threads of this one, which a test ends, stops and holds."""

from __future__ import annotations

import pickle
import queue
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from morphogen.cluster.host_shard import HostShard, ShardFacts
from morphogen.cluster.packing import pack_outcome, pack_pass, unpack_outcome, unpack_pass
from morphogen.cluster.placement import Host
from morphogen.cluster.process import ProcessGoneError, Tell
from morphogen.engine.shards.transport import Part
from morphogen.errors import MorphogenError

_Job = tuple[str, tuple[Any, ...], Tell]


class FakeProcess:
    """A shard in a thread. Arguments and results are copied, as between processes."""

    def __init__(self, host: Host, device: str, threads: int | None) -> None:
        self.name = host.address
        self.host = host.id
        self.calls: list[str] = []
        self.killed = False
        self.on_call: Callable[[str], None] = lambda method: None
        self._shard = HostShard(device, threads)
        self._jobs: queue.SimpleQueue[tuple[str, tuple[Any, ...], Tell] | None] = (
            queue.SimpleQueue()
        )
        self._going = threading.Event()
        self._going.set()
        self._waiting: list[Tell] = []
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def call(self, method: str, arguments: tuple[Any, ...], tell: Tell) -> None:
        self.on_call(method)
        with self._lock:
            if not self.killed:
                self.calls.append(method)
                self._waiting.append(tell)
                self._jobs.put((method, arrived_call(method, arguments), tell))
                return
        tell(self._gone())

    def kill(self) -> None:
        """End, as by kill -9: whoever waits is told."""
        with self._lock:
            self.killed = True
            waiting, self._waiting = self._waiting, []
        self._going.set()
        self._jobs.put(None)
        for tell in waiting:
            tell(self._gone())

    def stop(self) -> None:
        """Do nothing any more, as by kill -STOP: nobody is told."""
        self._going.clear()

    def go_on(self) -> None:
        """Go on after `stop`."""
        self._going.set()

    def drain(self) -> None:
        """Wait until all calls so far were answered."""
        done = threading.Event()
        self.call("ping", (), lambda told: done.set())
        done.wait()

    def versions(self) -> tuple[Any, ...]:
        """The epochs that are open, when all calls so far were answered."""
        if not self.killed:
            self.drain()
        else:
            self._thread.join()
        return self._shard.versions()

    def _gone(self) -> ProcessGoneError:
        return ProcessGoneError(f"{self.name} is gone")

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._going.wait()
            method, arguments, tell = job
            try:
                result = getattr(self._shard, method)(*arguments)
                if isinstance(result, ShardFacts):
                    result = replace(result, host=self.name, pid=id(self))
            except Exception as error:
                result = error
            with self._lock:
                if tell not in self._waiting:
                    continue  # it was told of the end
                self._waiting.remove(tell)
            tell(arrived_result(result))
        self._shard.close()


def arrived_call(method: str, arguments: tuple[Any, ...]) -> Any:
    """The arguments of a call, as they come out of the way to a process."""
    if method == "answer":
        return unpack_pass(*pack_pass(*arguments))
    return pickle.loads(pickle.dumps(arguments))


def arrived_result(result: Any) -> Any:
    """The result of a call, or its error, as it comes out of the way back."""
    if isinstance(result, Part | Exception):
        return unpack_outcome(*pack_outcome(result))
    return pickle.loads(pickle.dumps(result))


class FakeCluster:
    """Some hosts, and the processes that were started on them."""

    process_type = FakeProcess

    def __init__(self, hosts: int = 2, *, gpus: int = 0) -> None:
        self.all = tuple(Host(f"id-{at}", f"host-{at}", 2, gpus) for at in range(hosts))
        self.processes: list[FakeProcess] = []
        self.refuse: Callable[[Host], bool] = lambda host: False
        self.on_start: Callable[[FakeProcess], None] = lambda process: None

    def hosts(self) -> tuple[Host, ...]:
        return self.all

    def start(self, host: Host, device: str, threads: int | None) -> FakeProcess:
        if self.refuse(host):
            raise MorphogenError(f"{host.address} starts no process")
        process = FakeProcess(host, device, threads)
        self.on_start(process)
        self.processes.append(process)
        return process

    def close(self) -> None:
        for process in self.processes:
            process.kill()
