"""Ray: a cluster that this process starts or joins, and the processes in it."""

from __future__ import annotations

import logging
import pickle
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from morphogen.checks import OwnerProcess, as_int, check_range, is_loopback, needs_extra
from morphogen.cluster.channel import Address, Channel
from morphogen.cluster.host_shard import HostShard
from morphogen.cluster.pass_server import PassServer
from morphogen.cluster.placement import Host
from morphogen.cluster.process import ProcessGoneError, ShardProcess, Tell
from morphogen.cluster.security import OTHER_HOSTS, check_exposed, environment_of_ray
from morphogen.errors import EngineClosedError, MorphogenError

_STORE_BYTES = 256 << 20  # of shared memory, for changed pages that are on their way
_GROUPS = {"control": 1}  # one call at a time


class RayCluster:
    """A cluster of processes on one host or many, by Ray.

    It works with ``with``. A forked child cannot use it. A process has one at a time, since Ray
    has one connection a process.

    Parameters
    ----------
    address : str, optional
        "local" starts a cluster on this host, which ends with `close` and is reached by nobody
        else: it listens on the loopback, and asks for a token that is nowhere written down.
        "HOST:PORT" joins the one that Ray started there, of which this host must be a part.
    object_store_bytes : int, optional
        Of a cluster that is started: shared memory for changed pages on their way.

    Raises
    ------
    ModuleNotFoundError
        If the extra ``ray`` is not installed.
    MorphogenError
        If there is no token; if the cluster, or a host of it, is off the loopback and has no TLS;
        if it refuses the token or cannot be reached; or if this process uses Ray already.
    TypeError, ValueError
        If an argument has the wrong type, or is out of range.

    Notes
    -----
    Ray takes the token and TLS from the variables ``RAY_AUTH_MODE``, ``RAY_AUTH_TOKEN`` or
    ``RAY_AUTH_TOKEN_PATH``, ``RAY_USE_TLS``, ``RAY_TLS_SERVER_CERT``, ``RAY_TLS_SERVER_KEY`` and
    ``RAY_TLS_CA_CERT``, on every host alike.
    """

    def __init__(self, address: str = "local", *, object_store_bytes: int = _STORE_BYTES) -> None:
        self._closed = True
        size = as_int("object_store_bytes", object_store_bytes)
        check_range("object_store_bytes", size, 75 << 20)  # Ray's own least
        host = None if address == "local" else host_of(address)
        if host is not None:
            check_exposed(host)
        self._owner = OwnerProcess("cluster", "start one in each process", EngineClosedError)
        self._folder: str | None = None
        self.started: bool = host is None
        with environment_of_ray(host):
            ray = _ray()
            if ray.is_initialized():
                raise MorphogenError("this process uses a cluster of Ray already: close that first")
            with _own_signals():
                if host is None:
                    self._start(ray, size)
                else:
                    self._join(ray, address)
        self._ray = ray
        self._closed = False

    @property
    def usable(self) -> bool:
        """Whether it is open, and this is its process and no fork of it."""
        return not self._closed and self._owner.is_current()

    @property
    def address(self) -> str:
        """Where other processes join this cluster: "HOST:PORT".

        Raises
        ------
        EngineClosedError
            If the cluster is closed, or belongs to the parent of this process.
        """
        self._check()
        return str(self._ray.get_runtime_context().gcs_address)

    def hosts(self) -> tuple[Host, ...]:
        """The hosts that are there now.

        Returns
        -------
        tuple of Host
            In the order of their ids.

        Raises
        ------
        EngineClosedError
            If the cluster is closed, or belongs to the parent of this process.
        """
        self._check()
        return tuple(
            sorted(
                Host(
                    node["NodeID"],
                    node["NodeManagerAddress"],
                    int(node["Resources"].get("CPU", 0)),
                    int(node["Resources"].get("GPU", 0)),
                )
                for node in self._ray.nodes()
                if node["Alive"]
            )
        )

    def start(self, host: Host, device: str = "auto", threads: int | None = None) -> ShardProcess:
        """Start a process with a `HostShard`. This does not wait until it runs.

        Parameters
        ----------
        host : Host
            The host. If the device may be a GPU, the process has all of its GPUs.
        device, threads : str, int
            As `HostShard` takes them.

        Returns
        -------
        ShardProcess
            Its calls wait until it runs.

        Raises
        ------
        EngineClosedError
            If the cluster is closed, or belongs to the parent of this process.
        """
        self._check()
        ray = self._ray
        affinity = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        # Ray's restarts are off, and so are its repetitions of calls: both come too late. So is its
        # record of each call, which costs time and memory of the router and the head.
        actor = (
            ray.remote(concurrency_groups=_GROUPS)(HostActor)
            .options(
                num_cpus=0,  # the host was chosen here
                num_gpus=0 if device == "cpu" else host.gpus,
                max_restarts=0,
                max_task_retries=0,
                enable_task_events=False,
                scheduling_strategy=affinity(node_id=host.id, soft=False),
            )
            .remote(device, threads, host.address)
        )
        return RayProcess(self, ray, actor, host)

    def close(self) -> None:
        """Leave the cluster, and end it if this started it. May be called again.

        The processes that this started end. In a forked child it does nothing.
        """
        if self._closed or not self._owner.is_current():
            return
        self._closed = True
        self._leave(self._ray)

    def __enter__(self) -> RayCluster:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def _check(self) -> None:
        self._owner.check()
        if self._closed:
            raise EngineClosedError("this cluster is closed")

    def _start(self, ray: Any, size: int) -> None:
        if not is_loopback(ray.util.get_node_ip_address()):
            raise MorphogenError(
                "Ray was imported before, and would listen on every interface: import it later, or "
                f"set {OTHER_HOSTS}=0 before that"
            )
        # Ray lets everybody into its own folder, in which are the sockets to its shared memory.
        self._folder = tempfile.mkdtemp(prefix="morphogen-")
        try:
            ray.init(
                address="local",
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                object_store_memory=size,
                _temp_dir=str(Path(self._folder) / "ray"),
            )
        except BaseException as error:
            self._leave(ray)
            if isinstance(error, Exception):  # Ray's own are of no kind: a start that took long
                raise MorphogenError(f"Ray cannot be started: {error}") from error
            raise

    def _join(self, ray: Any, address: str) -> None:
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ray.exceptions.RayError) as error:
            self._leave(ray)
            raise MorphogenError(f"Ray at {address} cannot be joined: {error}") from error
        try:
            for node in ray.nodes():
                if node["Alive"]:
                    check_exposed(node["NodeManagerAddress"])
        except BaseException:
            self._leave(ray)
            raise

    def _leave(self, ray: Any) -> None:
        ray.shutdown()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


class HostActor:
    """What Ray runs in a process: a `HostShard`, and what takes passes for it.

    Parameters
    ----------
    device, threads : str, int
        As `HostShard` takes them.
    host : str
        The host's address.
    """

    def __init__(self, device: str, threads: int | None, host: str) -> None:
        self._shard = HostShard(device, threads)
        self._server = PassServer(self._shard, host)

    def address(self) -> Address:
        """Where it takes passes.

        Returns
        -------
        Address
        """
        return self._server.address

    def call(self, packed: bytes) -> bytes:
        """Call a method of the shard.

        Parameters
        ----------
        packed : bytes
            Its name and its arguments, pickled: arrays that Ray sends are views of its shared
            memory, which an epoch would keep.

        Returns
        -------
        bytes
            The method's result, pickled.
        """
        method, arguments = pickle.loads(packed)
        return pickle.dumps(getattr(self._shard, method)(*arguments), pickle.HIGHEST_PROTOCOL)


class RayProcess:
    """A process with a `HostShard`, as an actor of Ray: see `ShardProcess`."""

    def __init__(self, cluster: RayCluster, ray: Any, actor: Any, host: Host) -> None:
        self._cluster = cluster
        self._ray = ray
        self._actor = actor
        self.name: str = host.address
        self.host: str = host.id
        self._remote = actor.call.options(concurrency_group="control")
        self._killed = False
        self._channel = Channel(self.name)
        address = actor.address.options(concurrency_group="control")
        self._ask(address, (), self._connect)

    def call(self, method: str, arguments: tuple[Any, ...], tell: Tell) -> None:
        """Have a method called."""
        # A forked child would hang in Ray, and a call after the end would start another cluster.
        if self._killed or not self._cluster.usable:
            why = "it was ended" if self._killed else "its cluster is closed"
            tell(ProcessGoneError(f"{self.name} is gone: {why}"))
        elif method == "answer":
            job, held = arguments
            self._channel.call(job, held, tell)
        elif method == "ping":
            self._channel.ping(tell)
        else:
            packed = pickle.dumps((method, arguments), pickle.HIGHEST_PROTOCOL)

            def told(result: Any) -> None:
                tell(pickle.loads(result) if isinstance(result, bytes) else result)

            self._ask(self._remote, (packed,), told)

    def _ask(self, remote: Any, arguments: tuple[Any, ...], tell: Tell) -> None:
        try:
            future = remote.remote(*arguments).future()
        except self._ray.exceptions.RayError as error:
            tell(self._explained(error))
            return

        def told(done: Any) -> None:
            error = done.exception()
            tell(done.result() if error is None else self._explained(error))

        future.add_done_callback(told)

    def _connect(self, address: Any) -> None:
        if isinstance(address, Address):
            self._channel.connect(address)
        else:
            self._channel.close(str(address).removeprefix(f"{self.name} is gone: "))

    def kill(self) -> None:
        """End the process, stopped or not. With the cluster it has ended."""
        self._channel.close()
        if self._cluster.usable:
            self._killed = True
            with suppress(self._ray.exceptions.RayError, ValueError):
                self._ray.kill(self._actor)

    def _explained(self, error: BaseException) -> BaseException:
        exceptions = self._ray.exceptions
        if isinstance(error, exceptions.RayTaskError):
            return error.cause if isinstance(error.cause, Exception) else error
        if isinstance(error, exceptions.RayError):
            why = next(iter(str(error).strip().splitlines()), "")
            return ProcessGoneError(f"{self.name} is gone: {type(error).__name__}: {why:.200}")
        return error


def host_of(address: str) -> str:
    """The host of an address of Ray.

    Parameters
    ----------
    address : str
        "HOST:PORT".

    Returns
    -------
    str

    Raises
    ------
    TypeError, ValueError
        If it is no such address.
    """
    if not isinstance(address, str):
        raise TypeError(f"address must be a str, not {type(address).__name__}")
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not (port.isascii() and port.isdigit()):
        raise ValueError(f"address must be 'local' or 'HOST:PORT', not {address!r}")
    return host.removeprefix("[").removesuffix("]")


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep this process's handler of SIGTERM: Ray's would end it on the spot.

    A SIGTERM that Ray's handler got meanwhile is passed on to this process's own.
    """
    before = signal.getsignal(signal.SIGTERM)
    taken: SystemExit | None = None
    try:
        yield
    except SystemExit as error:  # from Ray's handler, with one of several codes
        taken = error
    finally:
        if threading.current_thread() is threading.main_thread() and before is not None:
            signal.signal(signal.SIGTERM, before)
    if taken is not None:
        if callable(before):  # else Python ends here, and Ray's processes with it
            signal.raise_signal(signal.SIGTERM)
        raise taken


def _ray() -> Any:
    with needs_extra("ray", "morphogen.cluster"):
        import ray
        import ray.util.scheduling_strategies
    return ray
