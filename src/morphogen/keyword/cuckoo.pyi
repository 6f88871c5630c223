# Made by tools/release/make_stubs.py from the module's source.
"""Give every entry one slot among those of its candidate pages: cuckoo hashing with buckets.

The search is local search allocation (Khosla, "Balls into Bins Made Faster", ESA 2013). Each slot
has a label, a lower bound of how many entries must move before it can be free. An entry takes the
slot of the smallest label among all of its candidates, and the entry that was there looks for
another. No choice is random. The search takes linear time, and nearly always finds places if there
are some.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

def place(
    candidates: npt.NDArray[np.uint32],
    num_pages: int,
    slots_per_page: int,
    progress: Callable[[int, int], object] | None = None,
) -> npt.NDArray[np.uint32] | None:
    """Place entries.

    Parameters
    ----------
    candidates : numpy.ndarray
        uint32 (entries, 3): the pages that each entry may lie in, of which some may coincide.
    num_pages, slots_per_page : int
        The table.
    progress : callable, optional
        Called with the entries that are placed, and all of them.

    Returns
    -------
    numpy.ndarray or None
        uint32 (num_pages * slots_per_page,): the entry of each slot, plus 1; 0 where it is empty.
        None if the search gave up.

    Raises
    ------
    ValueError
        If there are not three candidates for each entry, or one is no page.
    MemoryError
        If there is no memory for the search.
    """
