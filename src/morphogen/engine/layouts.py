"""The ways in which a GPU holds pages."""

from __future__ import annotations

# Byte after byte; and beside that, bit by bit, for binary tensor cores.
LAYOUTS = ("plain", "bits")


def check_layout(layout: str) -> str:
    """Refuse what is no layout.

    Parameters
    ----------
    layout : str

    Returns
    -------
    str
        The same.

    Raises
    ------
    TypeError, ValueError
        If it is none.
    """
    if not isinstance(layout, str):
        raise TypeError(f"layout must be a str, not {type(layout).__name__}")
    if layout not in LAYOUTS:
        raise ValueError(f"layout must be 'plain' or 'bits', not {layout!r}")
    return layout
