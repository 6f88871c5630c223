"""The ways in which an engine may run a batch: they change its time and never its answer."""

from __future__ import annotations

from dataclasses import dataclass

from morphogen.checks import as_int, check_range
from morphogen.planner import MAX_KEYS_PER_QUERY

# Chunks that may be under way at a time on a GPU.
LANE_COUNTS = (1, 2, 4)


@dataclass(frozen=True, slots=True)
class Strategy:
    """A way to run a batch.

    Attributes
    ----------
    width : int
        The most queries of a chunk, which share one pass over the pages.
    lanes : int
        Chunks that are under way at a time: 1, 2 or 4 on a GPU, 1 on the CPU.
    graph : bool
        Whether a chunk is launched by replaying a CUDA graph, not by a launch of its own.
    keys : int or None
        The most keys of a chunk, which count in place of ``width``: what a pass costs on the CPU
        is a matter of its keys. None where a width is a number of queries: a GPU's, and a caller's.
    variant : str or None
        The variant of a GPU's kernels; None for those that the engine takes by itself.
    """

    width: int
    lanes: int
    graph: bool
    keys: int | None = None
    variant: str | None = None

    def width_for(self, keys_per_query: int) -> int:
        """The most queries of a chunk.

        Parameters
        ----------
        keys_per_query : int
            Keys of each of its queries, 1 to 3.

        Returns
        -------
        int
            Queries, 1 or more.
        """
        return self.width if self.keys is None else self.keys // keys_per_query


@dataclass(frozen=True, slots=True)
class Choices:
    """The strategies that an engine has.

    Attributes
    ----------
    device : str
        The name of the engine's device, for messages: "cpu", "cuda:0".
    default : Strategy
        The strategy of a batch for which none is asked for.
    widest : int
        The most queries of a chunk that may be asked for.
    lanes : tuple of int
        The numbers of lanes that may be asked for.
    graph : bool
        Whether graph replay may be asked for.
    variants : tuple of str
        The variants of its kernels that may be asked for.
    """

    device: str
    default: Strategy
    widest: int
    lanes: tuple[int, ...] = (1,)
    graph: bool = False
    variants: tuple[str, ...] = ()

    def choose(
        self,
        max_micro_batch: int | None,
        lanes: int | None,
        graph: bool,
        variant: str | None = None,
    ) -> Strategy:
        """The strategy that a caller asks for.

        Parameters
        ----------
        max_micro_batch, lanes : int or None
            As `Engine.answer` takes them.
        graph : bool
            As `Engine.answer` takes it.
        variant : str, optional
            As `Engine.answer` takes it.

        Returns
        -------
        Strategy

        Raises
        ------
        TypeError, ValueError
            If an argument has the wrong type, or this engine has no such strategy.
        """
        if max_micro_batch is None and lanes is None and graph is False and variant is None:
            return self.default  # every call passes here: it makes no new object
        return Strategy(
            width=self.check_width(max_micro_batch),
            lanes=self._check_lanes(lanes),
            graph=self._check_graph(graph) or self.default.graph,
            keys=self.default.keys if max_micro_batch is None else None,
            variant=self._check_variant(variant),
        )

    def check_width(
        self, max_micro_batch: int | None, keys_per_query: int = MAX_KEYS_PER_QUERY
    ) -> int:
        """The width that a caller asks for.

        Parameters
        ----------
        max_micro_batch : int or None
            As `Engine.answer` takes it.
        keys_per_query : int, optional
            Keys of each query, 1 to 3.

        Returns
        -------
        int
            Queries, 1 or more.

        Raises
        ------
        TypeError, ValueError
            As from `choose`.
        """
        if max_micro_batch is None:
            return self.default.width_for(keys_per_query)
        width = as_int("max_micro_batch", max_micro_batch)
        check_range("max_micro_batch", width, 1, self.widest, where=self.device)
        return width

    def _check_lanes(self, lanes: int | None) -> int:
        if lanes is None:
            return self.default.lanes
        count = as_int("lanes", lanes)
        if count not in self.lanes:
            *first, last = map(str, self.lanes)
            expected = f"{', '.join(first)} or {last}" if first else last
            raise ValueError(f"lanes must be {expected} on {self.device}, not {count}")
        return count

    def _check_graph(self, graph: bool) -> bool:
        if not isinstance(graph, bool):
            raise TypeError(f"graph must be a bool, not {type(graph).__name__}")
        if graph and not self.graph:
            raise ValueError(f"graph must be False on {self.device}, not True: there are none")
        return graph

    def _check_variant(self, variant: str | None) -> str | None:
        if variant is None:
            return self.default.variant
        if not isinstance(variant, str):
            raise TypeError(f"variant must be a str, not {type(variant).__name__}")
        if variant not in self.variants:
            expected = f"one of {', '.join(self.variants)}" if self.variants else "None"
            raise ValueError(f"variant must be {expected} on {self.device}, not {variant!r}")
        return variant
