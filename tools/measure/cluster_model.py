"""What one table over many hosts would do, computed on paper: no such cluster was measured.

    python tools/measure/cluster_model.py             the tables of docs/scaling.md
    python tools/measure/cluster_model.py --plot docs/plots/scaling.svg
    python tools/measure/cluster_model.py --check     one and two shards, predicted and measured

A pass lasts as long as the slowest host's scan, and the router's work for each host. Queries come
at random times, wait until a replica is free, and share passes, as in the batcher. A stalled host
holds up its whole pass, unless a hedge asks another replica.

With --check the exit code is 1 if a predicted time is not within `BOUND` of the measured one.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from statistics import median

from morphogen.bench.plot import check_plot

TIB = 1 << 40
SIZES = {"1 TiB": TIB, "16 TiB": 16 * TIB, "1 PiB": 1024 * TIB}
KEYS, PAGE_SIZE = 3, 4096  # of a query, and bytes
LOAD = 0.7  # of what the cluster can do, when latencies are told
ARRIVALS = 20_000
BOUND = 1.25  # the most that predicted and measured times may differ


@dataclass(frozen=True, slots=True)
class Host:
    """A host, and why its figures are what they are. Seconds, bytes and dollars."""

    name: str
    usd_per_hour: float
    room: int  # bytes of the table
    scan: float  # bytes a second
    width: int  # queries a pass
    network: float  # bytes a second
    why: str


GPU_HOST = Host(
    "8 x H100",
    usd_per_hour=8 * 3.0,
    room=8 * (64 << 30),
    scan=8 * 0.9 * 3.35e12,
    width=2,
    network=12.5e9,
    why="assumed: 3 USD/h a GPU, 64 of 80 GB for pages, 100 Gb/s, and 90% (the project's target) "
    "of the 3.35 TB/s that NVIDIA publishes for the SXM part. Not measured",
)
CPU_HOST = Host(
    "2 x EPYC",
    usd_per_hour=10.0,
    room=1 << 40,
    # A core scans 10.7 GB/s for 32 queries (docs/performance.md): 192 could do 2.8 times this.
    scan=0.8 * 2 * 460.8e9,
    width=32,
    network=12.5e9,
    why="assumed: 10 USD/h, 1 of 1.5 TiB for pages, 100 Gb/s, and 80% of the 460.8 GB/s that AMD "
    "publishes for each socket of a 9654. Not measured",
)
HOSTS = (GPU_HOST, CPU_HOST)


@dataclass(frozen=True, slots=True)
class Router:
    """What the router spends, in seconds. It asks up to 64 hosts itself, more by a tree."""

    call: float = 0.1e-3  # of a processor, a host and pass: measured 0.07 to 0.13 ms
    fold: float = 0.11e-9  # a byte: 98 KB took 0.011 ms
    round_trip: float = 0.2e-3  # in a rack, assumed
    flat: int = 64
    degree: int = 32

    def tree(self, hosts: int) -> tuple[int, int]:
        """Return how many calls the busiest router makes, and how many levels there are."""
        if hosts <= self.flat:
            return hosts, 1
        levels = math.ceil(math.log(hosts, self.degree) - 1e-9)
        return math.ceil(hosts ** (1 / levels) - 1e-9), levels

    def busy(self, hosts: int, part: int) -> float:
        """Return the time of the busiest router for a pass."""
        return self.tree(hosts)[0] * (self.call + part * self.fold)


@dataclass(frozen=True, slots=True)
class Case:
    """A cluster of one party, and what befalls it."""

    host: Host
    table: int  # bytes
    replicas: int = 1
    stalls: float = 0.0  # the share of a host's passes that stall
    hedge: float | None = None  # in scans: when another replica is asked
    stall: float = 0.2  # seconds, Linux' least time before it sends a lost packet again
    router: Router = Router()

    @property
    def hosts(self) -> int:
        """Hosts of one replica."""
        return -(-self.table // self.host.room)

    @property
    def scan(self) -> float:
        return self.table / self.hosts / self.host.scan

    @property
    def part(self) -> int:
        """Bytes that a host answers."""
        return self.host.width * KEYS * PAGE_SIZE

    @property
    def steady(self) -> float:
        """Seconds of a pass that nothing holds up."""
        calls, levels = self.router.tree(self.hosts)
        receive = calls * self.part / self.host.network
        busy = self.router.busy(self.hosts, self.part)
        return self.scan + levels * (busy + receive + self.router.round_trip)

    def outcomes(self) -> list[tuple[float, float, float]]:
        """Return what can hold a pass up: the probability, its delay, another replica's work."""
        smooth = (1 - self.stalls) ** self.hosts
        if self.hedge is None or self.stall <= (self.hedge - 1) * self.scan:
            return [(smooth, 0.0, 0.0), (1 - smooth, self.stall, 0.0)]
        rescued = (1 - self.stalls**2) ** self.hosts - smooth
        late = min(self.stall, self.hedge * self.scan)
        both = 1 - smooth - rescued
        return [(smooth, 0.0, 0.0), (rescued, late, self.scan), (both, self.stall, self.scan)]

    @property
    def capacity(self) -> float:
        """Queries a second: all that the replicas can do, or the router."""
        held_up = sum(chance * (delay + work) for chance, delay, work in self.outcomes())
        replicas = self.replicas / (self.steady + held_up)
        return self.host.width * min(replicas, 1 / self.router.busy(self.hosts, self.part))

    @property
    def usd(self) -> float:
        """Dollars for 1,000 queries at full load."""
        hourly = self.hosts * self.replicas * self.host.usd_per_hour
        return 1000 * hourly / 3600 / self.capacity

    @property
    def usd_of_bytes(self) -> float:
        """The same if a pass were nothing but the scan."""
        return 1000 * self.hosts * self.host.usd_per_hour / 3600 * self.scan / self.host.width

    def latencies(self, arrivals: int | None = None) -> list[float]:
        """Return the times from a query's arrival to its answer, the shortest first."""
        arrivals = arrivals or ARRIVALS
        source = Random(0)  # whose stream is the same in every version of Python
        rate = LOAD * self.capacity
        times = list(itertools.accumulate(source.expovariate(rate) for _ in range(arrivals)))
        chances, delays, works = zip(*self.outcomes(), strict=True)
        free = [0.0] * self.replicas
        found: list[float] = []
        while len(found) < arrivals:
            first = len(found)
            at = free.index(min(free))
            start = max(free[at], times[first])
            last = first + 1
            while last < min(arrivals, first + self.host.width) and times[last] <= start:
                last += 1
            (kind,) = source.choices(range(len(chances)), chances)
            free[at] = start + self.steady + delays[kind]
            if works[kind]:  # the replica that a hedge asked answers its own pass later
                free[at - 1] = max(free[at - 1], start) + works[kind]
            found += [free[at] - time for time in times[first:last]]
        return sorted(found)

    def outlook(self) -> tuple[float, float, float, float]:
        """Return queries a second, the median and 99th percentile in ms, and dollars."""
        times = self.latencies()
        p50, p99 = (1e3 * times[int(share * len(times))] for share in (0.5, 0.99))
        return self.capacity, p50, p99, self.usd


WAYS: dict[str, tuple[int, float, float | None]] = {  # replicas, stalls, hedge
    "no stalls": (1, 0.0, None),
    "stalls": (1, 1e-3, None),
    "stalls, 2 replicas": (2, 1e-3, None),
    "stalls, 2 replicas, hedges": (2, 1e-3, 1.5),
}


def digits(value: float) -> str:
    """Write three digits: "0.152", "87.1", "174", "1,490"."""
    places = max(0, 2 - math.floor(math.log10(value)))
    return f"{value:,.{places}f}"


def basic_rows(router: Router) -> list[list[str]]:
    """The header and the rows without stalls and replicas."""
    rows = [["table", "hosts", "scan", "pass", "queries/s", "p50", "p99", "USD", "of bytes"]]
    for host, size in itertools.product(HOSTS, SIZES):
        case = Case(host, SIZES[size], router=router)
        figures = (1e3 * case.scan, 1e3 * case.steady, *case.outlook(), case.usd_of_bytes)
        rows.append([size, f"{case.hosts:,} of {host.name}", *map(digits, figures)])
    return rows


def stalled_rows(router: Router) -> list[list[str]]:
    """The header and the rows of the other ways: "queries/s / p99 ms / USD" in each."""
    rows = [["table", "hosts", *list(WAYS)[1:]]]
    for host, size in itertools.product(HOSTS, SIZES):
        rows.append([size, host.name])
        for way in rows[0][2:]:
            qps, _, p99, usd = Case(host, SIZES[size], *WAYS[way], router=router).outlook()
            rows[-1].append(" / ".join(map(digits, (qps, p99, usd))))
    return rows


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Write rows as a table of a page."""
    line = "|".join(("", "---", "---", *["---:"] * (len(rows[0]) - 2), ""))
    header, *others = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join((header, line, *others))


def draw(router: Router, path: Path) -> None:
    """Draw the cost and the latency by the size of the table."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator

    sizes = [TIB << power for power in range(11)]
    shown = {"no stalls": "-", "stalls": ":", "stalls, 2 replicas, hedges": "--"}
    # The words stay text, and the same figures give the same bytes.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "morphogen"}):
        figure = Figure(figsize=(12.8, 4.8), layout="constrained")
        axes = figure.subplots(1, 2)
        for host, color in zip(HOSTS, ("tab:green", "tab:blue"), strict=True):
            for way, line in shown.items():
                cases = (Case(host, size, *WAYS[way], router=router) for size in sizes)
                _, _, p99, usd = zip(*(case.outlook() for case in cases), strict=True)
                label = f"{host.name}, {way}"
                for axis, values in zip(axes, (usd, p99), strict=True):
                    axis.plot(sizes, values, color=color, linestyle=line, label=label)
        titles = ("Cost of 1,000 queries, one party", f"99th percentile at {LOAD:.0%} load")
        for axis, title, up in zip(axes, titles, ("USD", "ms"), strict=True):
            axis.set_xscale("log", base=2)
            axis.set_yscale("log")
            axis.set_xticks(list(SIZES.values()), list(SIZES))
            axis.xaxis.set_minor_locator(NullLocator())
            axis.yaxis.set_major_formatter("{x:g}")
            axis.set(title=title, xlabel="table", ylabel=up)
            axis.grid(alpha=0.3)
        axes[0].legend(fontsize="small")
        figure.suptitle("Computed by tools/measure/cluster_model.py, not measured")
        # The date would make every file different.
        metadata = {"Date": None} if path.suffix.lower() == ".svg" else {}
        figure.savefig(path, metadata=metadata)


def check(options: argparse.Namespace) -> bool:
    """Predict one and two shards on this machine, measure them, and tell whether both agree.

    The scan is that of engines without Ray, and the router's time that of tiny tables.
    """
    import cluster

    agree = True
    with cluster.opened(options.folder, options.mib, options.rounds) as bench:
        passes = [next(cluster.router(bench, shards, (1,)))[1] for shards in (1, 2)]
        one, two = map(median, passes)
        call = max(0.0, two - one)
        router = Router(call=call, fold=0.0, round_trip=one - call)
        print(f"router: {1e3 * call:.2f} ms a shard, {1e3 * router.round_trip:.2f} ms a pass")
        for size in bench.sizes:
            times = cluster.overhead(bench, size)
            for shards, scanned in enumerate((cluster.ONE, cluster.LOCAL), start=1):
                scan = size / shards / median(times[scanned])
                host = Host("this", 0.0, -(-size // shards), scan, 1, math.inf, "measured")
                predicted = Case(host, size, router=router).steady
                measured = median(times[cluster.of_ray(shards)])
                agree &= 1 / BOUND <= predicted / measured <= BOUND
                print(
                    f"{shards} of {size >> 20:,} MiB: predicted {1e3 * predicted:.2f} ms, measured "
                    f"{1e3 * measured:.2f} ms, ratio {predicted / measured:.3f}"
                )
    return agree


def main() -> int:
    """Compute, and tell by the exit code whether a check was met."""
    parser = argparse.ArgumentParser(description="What a cluster would do, computed on paper.")
    parser.add_argument("--router-ms", type=float, default=1e3 * Router().call, metavar="MS")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw a .svg or .png file")
    parser.add_argument("--check", action="store_true", help="one and two shards, measured here")
    parser.add_argument("--mib", type=int, nargs="+", default=[256, 2048], help="of --check")
    parser.add_argument("--rounds", type=int, default=31, help="of --check")
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm"), help="of its tables")
    args = parser.parse_args()
    if args.check:
        return 0 if check(args) else 1
    router = replace(Router(), call=args.router_ms / 1e3)
    if args.plot:
        try:
            check_plot(args.plot)
        except (OSError, ValueError, ModuleNotFoundError) as error:
            parser.error(str(error))
        draw(router, args.plot)
    else:
        print(markdown(basic_rows(router)), markdown(stalled_rows(router)), sep="\n\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
