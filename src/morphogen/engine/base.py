"""The base of all engines: it checks a batch, cuts it into chunks, answers in request order."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt

from morphogen.engine.lifetime import Lifetime
from morphogen.engine.output import LEAST_BYTES, AnswerMemory, check_out
from morphogen.engine.strategy import Choices, Strategy
from morphogen.errors import EngineClosedError, MorphogenError
from morphogen.pages import PageMatrix, TableShape
from morphogen.planner import MAX_KEYS_PER_QUERY, KeyPacker, micro_batch_ranges
from morphogen.query import Answer, Query


class Engine(Lifetime):
    """Answers batches of queries over the pages of a table. Made by `morphogen.open_engine`.

    An engine may be used from many threads; `max_in_flight` calls run at a time. It works with
    ``with``, and `close` waits for the calls that run. It cannot be used in a forked child: open
    one there, on a GPU only if the parent process has not used CUDA before. A call from within a
    call, by a finalizer or a signal handler on the same thread, is refused; `close` takes effect
    there when the outer call ends. `replace_pages` and `next_epoch` go on to another epoch.

    An engine may have a slice of the table's pages. It takes keys of the whole table all the same,
    and answers the XOR of its own pages that a key selects: the XOR of the answers over slices that
    cover the table is the answer over the table.

    Parameters
    ----------
    table : TableShape
        The table that keys are for.
    choices : Choices
        The strategies that the engine has.
    pages : PageMatrix, optional
        The pages to answer from, all or a slice of the table's; None if others hold them.
    max_in_flight : int, optional
        Calls of `answer` that run at a time, 1 or more.
    """

    def __init__(
        self,
        table: TableShape,
        choices: Choices,
        pages: PageMatrix | None = None,
        *,
        max_in_flight: int = 1,
    ) -> None:
        super().__init__([KeyPacker(table.num_pages) for _ in range(max_in_flight)])
        self._table = table
        self._pages = pages
        self._choices = choices
        self._memory = AnswerMemory()

    @property
    def table(self) -> TableShape:
        """The table that keys are for, with its present epoch."""
        return self._table

    @property
    def pages(self) -> PageMatrix:
        """The pages that the engine answers from: all of its table, or a slice.

        Raises
        ------
        MorphogenError
            If others hold them. `table` tells their shape.
        """
        if self._pages is None:
            raise MorphogenError(
                f"this {type(self).__name__} has no pages of its own: its table tells their shape"
            )
        return self._pages

    @property
    def device(self) -> str:
        """The device that does the work: "cpu", "cuda:0"."""
        return self._choices.device

    @property
    def max_micro_batch(self) -> int:
        """The most queries of three keys that share one pass, unless a caller asks for more.

        With fewer keys a GPU takes as many, and the CPU more: 48 of two keys, 96 of one.
        """
        return self._choices.default.width

    @property
    def widest_micro_batch(self) -> int:
        """The most queries that a caller may ask to share one pass."""
        return self._choices.widest

    @property
    def default_strategy(self) -> Strategy:
        """The strategy of a batch unless the caller asks for another."""
        return self._choices.default

    def answer(
        self,
        queries: list[Query],
        *,
        out: npt.NDArray[np.uint8] | None = None,
        max_micro_batch: int | None = None,
        lanes: int | None = None,
        graph: bool = False,
        variant: str | None = None,
    ) -> Answer:
        """Answer a batch.

        Parameters
        ----------
        queries : list of Query
            Any number, all with the same number of keys and all for this table.
        out : numpy.ndarray, optional
            The array to write the pages to: uint8 of shape (queries, keys per query, page_size),
            C-contiguous and writeable. By default a new one.
        max_micro_batch : int, optional
            The most queries that may share one pass, 1 to `widest_micro_batch`; by default
            `max_micro_batch`, and on the CPU more of queries with one or two keys. 1 gives the
            single-query loop, the baseline of every speed-up.
        lanes : int, optional
            Chunks that may be under way at a time, on a GPU 1, 2 or 4; by default as it was opened.
        graph : bool, optional
            Whether to launch chunks by replaying a CUDA graph. On a GPU, which may always do so;
            chunks on tensor cores are launched as without it.
        variant : str, optional
            For measurements: a variant of a GPU's kernels, such as "default".

        Returns
        -------
        Answer
            In request order, byte for byte the same for all sizes of chunks.

        Raises
        ------
        InvalidKeyError, KeyDomainError
            If a key is malformed, or made for another number of pages.
        EngineClosedError, MorphogenError
            If the engine is closed, or the parent process's, or this is a call within a call.
        DeviceError
            If a GPU fails, or has no memory for the strategy's own buffers.
        TypeError, ValueError
            If an argument has the wrong type, shape or range, or there is no such strategy on this
            device.

        Notes
        -----
        All arguments are checked first. A key's answer is the XOR of the pages that it selects: the
        inner product of private information retrieval, over bits.

        Examples
        --------
        >>> import numpy as np
        >>> import morphogen as mg
        >>> pages = mg.PageMatrix(np.zeros((1000, 64), dtype=np.uint8))
        >>> queries, _ = mg.make_queries([[3, 5, 7], [1, 2, 3]], num_pages=1000)
        >>> with mg.open_engine(pages, device="cpu") as engine:
        ...     engine.answer(queries)
        Answer(pages=uint8[2, 3, 64], epoch=0, num_pages=1000, micro_batch_sizes=(2,))
        """
        strategy = self._choices.choose(max_micro_batch, lanes, graph, variant)
        return self._answer(queries, out, strategy, self._run)

    def _answer(
        self,
        queries: list[Query],
        out: npt.NDArray[np.uint8] | None,
        strategy: Strategy,
        run: Callable[[KeyPacker, list[tuple[int, int]], npt.NDArray[np.uint8], Strategy], None],
    ) -> Answer:
        with self._calls as packer:
            # Written out, as all on the way to the launch: a call of Python's takes 40 ns.
            if self._closed:
                raise EngineClosedError(self._why_closed)
            try:
                table = self._table  # of this call, whatever replaces it before it returns
                packer.pack(queries)
                total = packer.query_count  # the list may have grown since
                shape = (total, packer.keys_per_query, table.page_size)
                if out is not None:
                    pages = check_out(out, shape, self._pages)
                elif total * packer.keys_per_query * table.page_size < LEAST_BYTES:
                    pages = np.empty(shape, dtype=np.uint8)
                else:
                    pages = self._memory.take(shape, self._pages)
                width = strategy.width
                if strategy.keys is not None:
                    width = strategy.width_for(packer.keys_per_query)
                ranges = micro_batch_ranges(total, width)
                run(packer, ranges, pages, strategy)
                party = packer.party
            finally:
                self._end_call()
        return Answer(
            pages=pages,
            epoch=table.epoch,
            num_pages=table.num_pages,
            micro_batch_sizes=tuple(stop - start for start, stop in ranges),
            party=party if party >= 0 else None,
        )

    @abstractmethod
    def replace_pages(
        self,
        indices: Iterable[SupportsIndex] | npt.NDArray[np.integer[Any]],
        pages: npt.NDArray[np.uint8],
        epoch: SupportsIndex,
    ) -> None:
        """Go on with changed pages, in place.

        Every batch is answered from the pages before or those after, and says from which epoch. If
        this fails, the engine goes on with the pages before, unless a GPU's copies broke off.

        Parameters
        ----------
        indices : iterable of int
            The pages that change, ascending, each once. There may be none. They are indices of
            ``engine.pages``: those of a slice are counted from its own first page.
        pages : numpy.ndarray
            uint8 of shape (indices, page_size): their new bytes. They are copied.
        epoch : int
            The new version, another than that of the pages before.

        Raises
        ------
        EngineClosedError
            If the engine is closed, or belongs to the parent of this process.
        MorphogenError
            If it is called from within a call of its own.
        DeviceError
            If a GPU fails. If it had begun to copy, this closes the engine, and all that share its
            device's pages.
        TypeError, ValueError
            If an argument has the wrong type, shape or range.
        MemoryError, OSError
            If there is no memory for the changed pages, or their file cannot be mapped.

        Notes
        -----
        The engine's pages are afterwards what `PageMatrix.with_changes` makes. The array or file
        that the engine was opened over does not change.

        Examples
        --------
        >>> import numpy as np
        >>> import morphogen as mg
        >>> pages = mg.PageMatrix(np.zeros((1000, 64), dtype=np.uint8))
        >>> with mg.open_engine(pages, device="cpu") as engine:
        ...     engine.replace_pages([3, 5], np.ones((2, 64), dtype=np.uint8), epoch=1)
        ...     engine.pages.epoch, int(engine.pages[5][0]), int(pages[5][0])
        (1, 1, 0)
        """

    @abstractmethod
    def next_epoch(
        self,
        indices: Iterable[SupportsIndex] | npt.NDArray[np.integer[Any]],
        pages: npt.NDArray[np.uint8],
        epoch: SupportsIndex,
    ) -> Engine:
        """Open an engine over changed pages, beside this one.

        This engine goes on with its own epoch until it is closed. On a GPU both share the pages on
        the device, which become the new ones: this engine adds the difference of the changed pages
        to its answers, on the host.

        Parameters
        ----------
        indices : iterable of int
            As for `replace_pages`, like all arguments.
        pages : numpy.ndarray
            The new bytes.
        epoch : int
            The new version.

        Returns
        -------
        Engine
            On the same device, with the same options. Close both.

        Raises
        ------
        EngineClosedError, MorphogenError, DeviceError, TypeError, ValueError, MemoryError, OSError
            As from `replace_pages`.
        """

    def check_width(
        self, max_micro_batch: int | None, keys_per_query: int = MAX_KEYS_PER_QUERY
    ) -> int:
        """The width that a call would use.

        Parameters
        ----------
        max_micro_batch : int or None
            As `answer` takes it.
        keys_per_query : int, optional
            Keys of each query of the batch, 1 to 3.

        Returns
        -------
        int
            Queries, 1 or more.

        Raises
        ------
        TypeError, ValueError
            If it is no int, or not in 1..`widest_micro_batch`.
        """
        return self._choices.check_width(max_micro_batch, keys_per_query)

    def __repr__(self) -> str:
        state = ", closed" if self._closed else ""
        held = self._table if self._pages is None else self._pages
        return f"{type(self).__name__}({held!r} on {self.device}{state})"

    def read_pages(self) -> int:
        """Read every page once, in memory order, and do nothing else.

        Passes are measured against it. A pass that reads several pages side by side, or leaves out
        pages that no key selects, may take less.

        Returns
        -------
        int
            XOR of the pages' bytes, taken as little-endian 64-bit words.

        Raises
        ------
        EngineClosedError, MorphogenError, DeviceError
            As from `answer`.
        """
        with self._calls:
            self._check_open()
            try:
                return self._read()
            finally:
                self._end_call()

    def _end(self) -> None:
        self._memory.close()
        super()._end()

    @abstractmethod
    def _read(self) -> int:
        """Read every page once, for `read_pages`."""

    @abstractmethod
    def _run(
        self,
        packer: KeyPacker,
        ranges: list[tuple[int, int]],
        out: npt.NDArray[np.uint8],
        strategy: Strategy,
    ) -> None:
        """Answer the batch that the packer holds, chunk by chunk, into out."""
