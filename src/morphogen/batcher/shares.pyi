# Made by tools/release/make_stubs.py from the module's source.
"""A queue with a share for each client: they take turns, and who asks for little goes first.

After RFC 8290 (FQ-CoDel), with queries in place of packets and clients in place of flows. Compiled,
as the queue is, so that no interrupt cuts a step.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

class Shares:
    """Items that wait, in order of arrival within the share of each client.

    A client asks for little if it had nothing waiting, and has no more than an eighth of a chunk.
    Such clients go first, in half of a chunk. Then all take turns, an item each. A chunk takes more
    of some items than of others: those that have a chunk in common have its width in common.
    """

    def __init__(self) -> None: ...
    def __len__(self) -> int: ...
    def count(self, client: str | None) -> int:
        """Count the items of a client."""
    def add(self, client: str | None, items: Sequence[Any], width: int) -> None:
        """Put items at the end of their client's share.

        Parameters
        ----------
        client : str or None
            The client.
        items : sequence
            The items.
        width : int
            The most such items in a chunk.
        """
    def remove(self, client: str | None, item: Any) -> bool:
        """Take an item out. Whether it was there."""
    def has_room(self, client: str | None, count: int, limit: int) -> bool:
        """Tell whether `make_room` would make room."""
    def make_room(self, client: str | None, count: int, limit: int) -> list[Any] | None:
        """Take out what has to go so that more items of a client fit.

        These are the newest of the longest shares, as long as these are longer than the client's
        will be.

        Parameters
        ----------
        client : str or None
            The client.
        count : int
            Items to come.
        limit : int
            The most items in all.

        Returns
        -------
        list, or None
            Those taken out; None if there is no room, and nothing was taken out.
        """
    def _places(
        self, client: str | None, count: int, limit: int
    ) -> list[OrderedDict[Any, None]] | None: ...
    def take(
        self,
        width_of: Callable[[Any], int],
        fits: Callable[[Any], bool],
        claim: Callable[[Any], bool],
    ) -> list[Any]:
        """Take out the items of the next chunk.

        Parameters
        ----------
        width_of : callable
            The most items in a chunk with this one.
        fits : callable
            Whether an item can be in the chunk. If not, its client waits for the next and leads it.
        claim : callable
            Called for an item that has left its share: whether it is in the chunk. If not, the next
            of its client takes its turn.

        Returns
        -------
        list
            The items.
        """
    def _next_width(self, width_of: Callable[[Any], int]) -> int:
        """The width of a chunk with the item that is next."""
    def _share(self, client: str | None) -> OrderedDict[Any, None] | None: ...
