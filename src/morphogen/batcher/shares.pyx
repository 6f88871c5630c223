"""A queue with a share for each client: they take turns, and who asks for little goes first.

After RFC 8290 (FQ-CoDel), with queries in place of packets and clients in place of flows. Compiled,
as the queue is, so that no interrupt cuts a step.
"""

from collections import OrderedDict, deque
from heapq import heapify, heappop, heapreplace
from itertools import chain, islice

# So many chunks, from one with a client that asked for little on, have few of the others: its next
# query will wait for a chunk that runs, and should not wait for a long one.
_LATELY = 4


class Shares:
    """Items that wait, in order of arrival within the share of each client.

    A client asks for little if it had nothing waiting, and has no more than an eighth of a chunk.
    Such clients go first, in half of a chunk. Then all take turns, an item each. A chunk takes more
    of some items than of others: those that have a chunk in common have its width in common.
    """

    def __init__(self) -> None:
        # In the order of turns. Dictionaries, so that one taken out amid them leaves at once.
        self._few = OrderedDict()
        self._many = OrderedDict()
        self._total = 0
        self._odd = 0
        self._lately = deque(maxlen=_LATELY)  # with little, by chunk
        self._passed = []  # over, since they did not fit a chunk

    def __len__(self) -> int:
        return self._total

    def count(self, client: str | None) -> int:
        """Count the items of a client."""
        return len(self._share(client) or ())

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
        if not items:
            return
        little = max(1, width // 8)
        share = self._share(client)
        if share is None:
            share = OrderedDict()
            (self._few if len(items) <= little else self._many)[client] = share
        share.update(dict.fromkeys(items))
        if len(share) > little and client in self._few:
            self._many[client] = self._few.pop(client)
        self._total += len(items)

    def remove(self, client: str | None, item: Any) -> bool:
        """Take an item out. Whether it was there."""
        share = self._share(client)
        if share is None or item not in share:
            return False
        del share[item]
        self._total -= 1
        if not share:
            self._few.pop(client, None)
            self._many.pop(client, None)
        return True

    def has_room(self, client: str | None, count: int, limit: int) -> bool:
        """Tell whether `make_room` would make room."""
        return self._places(client, count, limit) is not None

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
        shares = self._places(client, count, limit)
        if shares is None:
            return None
        self._total -= len(shares)
        # Each keeps as much as the client has: none is emptied.
        return [share.popitem()[0] for share in shares]

    def _places(
        self, client: str | None, count: int, limit: int
    ) -> list[OrderedDict[Any, None]] | None:
        excess = self._total + count - limit
        if excess <= 0:
            return []
        own = self.count(client) + count
        shares = [*self._few.values(), *self._many.values()]
        longest = [(-len(share), at) for at, share in enumerate(shares) if len(share) > own]
        heapify(longest)
        places = []
        while len(places) < excess and longest:
            size, at = longest[0]
            places.append(shares[at])
            if -size - 1 > own:
                heapreplace(longest, (size + 1, at))
            else:
                heappop(longest)
        return places if len(places) == excess else None

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
        width = self._next_width(width_of)
        few = list(islice(self._few, width))
        many = list(islice(self._many, width))
        first = (width + self._odd) // 2  # also of an odd width, all get their part
        self._odd ^= 1
        turns = deque(dict.fromkeys([*self._passed, *few[:first], *many, *few[first:]]))
        self._passed = []
        self._lately.append(few)
        little = {client for clients in self._lately for client in clients}
        chunk = []
        others = 0
        while turns and len(chunk) < width:
            client = turns.popleft()
            share = self._share(client)
            most = max(2, width // 4) if little else width
            if share is None or (client not in little and others >= most):
                continue
            item = next(iter(share))
            if not fits(item):
                self._passed.append(client)
                continue
            self.remove(client, item)
            if not chunk:
                width = width_of(item)  # those before it may have left the queue
            if not claim(item):
                turns.appendleft(client)
                continue
            chunk.append(item)
            others += client not in little
            if share:
                (self._few if client in self._few else self._many).move_to_end(client)
                turns.append(client)
        return chunk

    def _next_width(self, width_of: Callable[[Any], int]) -> int:
        """The width of a chunk with the item that is next."""
        for client in chain(self._passed, self._few, self._many):
            share = self._share(client)
            if share is not None:
                return width_of(next(iter(share)))
        return 0

    def _share(self, client: str | None) -> OrderedDict[Any, None] | None:
        return self._few.get(client) or self._many.get(client)
