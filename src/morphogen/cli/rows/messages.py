"""What libraries say about a file that they cannot read, in words that a line has room for."""

from __future__ import annotations

_MOST = 200  # characters


def one_line(message: str) -> str:
    """Make a line of a library's message, which may quote a hostile file.

    Parameters
    ----------
    message : str

    Returns
    -------
    str
        Its first characters, all printable.
    """
    words = " ".join(message.split())
    shown = "".join(letter if letter.isprintable() else "?" for letter in words)
    return shown if len(shown) <= _MOST else f"{shown[:_MOST]}..."
