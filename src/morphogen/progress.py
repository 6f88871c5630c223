"""Progress: the calls by which long work reports the part that is done."""

from __future__ import annotations

from collections.abc import Callable

# Called with the work done and the work in all: bytes, pages, rounds.
Progress = Callable[[int, int], object]
# The same for work of several stages, with the name of the stage: "uploading".
StagedProgress = Callable[[int, int, str], object]


def stage(progress: StagedProgress, name: str) -> Progress:
    """The progress of one stage.

    Parameters
    ----------
    progress : callable
        Of all stages.
    name : str

    Returns
    -------
    callable
    """
    return lambda done, total: progress(done, total, name)


def by_the_hundredth(progress: Progress) -> Progress:
    """The same, called only when another hundredth is done: drawing a bar takes its time.

    Parameters
    ----------
    progress : callable

    Returns
    -------
    callable
    """
    told = -1

    def tell(done: int, total: int) -> None:
        nonlocal told
        if 100 * done // total != told:
            told = 100 * done // total
            progress(done, total)

    return tell
