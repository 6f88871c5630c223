"""A list of breached passwords, made of words that Python knows: nothing is fetched.

Such lists are published as lines ``SHA1:COUNT``, sorted by hash: the SHA-1 of a password and how
often it was found. Here a hash is cut to its first 80 bits. One version of Python always makes the
same list.
"""

from __future__ import annotations

import builtins
import hashlib
import keyword
import mmap
import re
import sys
import unicodedata
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

from morphogen.checks import check_range, names_file
from morphogen.progress import Progress, by_the_hundredth

MAX_ENTRIES = 10_000_000
PREFIX_DIGITS = 20  # 80 bits: of a million hashes no two meet
MOST_FOUND = 40_000_000
# Those that every such list begins with.
_NUMBERS = ("123456", "123456789", "12345", "111111", "000000", "1234567890")
_FAMOUS = ("password", "qwerty", "iloveyou", "dragon", "monkey", "letmein", "admin", "welcome")
_ENDINGS = ("", "1", "123", "!", "12", "1234", "12345", "123456", "01", "7", "69", "1!", "123!")
_YEARS = range(2026, 1949, -1)
_WORD = re.compile(r"(?<![A-Za-z])[A-Za-z]{3,12}(?![A-Za-z])")
_SOUNDS = re.compile("CJK|SYLLABLE|CUNEIFORM|JONGSEONG|CHOSEONG")  # in names that have no words


def find_words() -> list[str]:
    """The words that passwords are made of: of Python's own names and texts, and of Unicode.

    Returns
    -------
    list of str
        Lower-case letters a to z only, each word once, the most usual ones first.
    """
    # From the end, where the emoji are: their names have words that people use.
    names = (unicodedata.name(chr(code), "") for code in range(sys.maxunicode, -1, -1))
    texts = chain(
        _FAMOUS,
        keyword.kwlist,
        sorted(sys.stdlib_module_names),
        (found.__doc__ or "" for _, found in sorted(vars(builtins).items())),
        (name for name in names if not _SOUNDS.search(name)),
    )
    words = (word.lower() for text in texts for word in _WORD.findall(text))
    return list(dict.fromkeys(words))


def make_passwords() -> Iterator[str]:
    """Make distinct passwords, the most usual ones first.

    Yields
    ------
    str
        More than `MAX_ENTRIES` in all.
    """
    yield from _NUMBERS
    words = find_words()
    endings = dict.fromkeys(chain(_ENDINGS, map(str, _YEARS), map(str, range(1000))))
    # A word is letters, and an ending has none: no two pairs give one password.
    for ending in endings:
        for word in words:
            yield word + ending
        for word in words:
            yield word.capitalize() + ending


def prefix_of(password: str) -> str:
    """Return the beginning of a password's SHA-1, as the list has it.

    Parameters
    ----------
    password : str

    Returns
    -------
    str
        `PREFIX_DIGITS` upper-case hexadecimal digits.
    """
    digest = hashlib.sha1(password.encode(), usedforsecurity=False)
    return digest.hexdigest()[:PREFIX_DIGITS].upper()


def write_list(path: Path, entries: int, progress: Progress | None = None) -> None:
    """Write a list of breached passwords.

    Parameters
    ----------
    path : pathlib.Path
    entries : int
        Lines, 1 to `MAX_ENTRIES`.
    progress : callable, optional
        Called with the passwords hashed and those in all.

    Raises
    ------
    ValueError
        If entries is out of range.
    OSError
        If the list cannot be written.
    """
    check_range("entries", entries, 1, MAX_ENTRIES)
    report = None if progress is None else by_the_hundredth(progress)
    lines = []
    for rank, password in enumerate(islice(make_passwords(), entries), start=1):
        # Zipf's law: the second is found half as often as the first, the third a third as often.
        lines.append(f"{prefix_of(password)}:{MOST_FOUND // rank}\n")
        if report is not None:
            report(rank, entries)
    lines.sort()
    with names_file(path), path.open("w", encoding="ascii", newline="") as file:
        file.writelines(lines)


def read_list(path: Path) -> Iterator[tuple[bytes, bytes]]:
    """Read a list: a table's keys and values.

    Parameters
    ----------
    path : pathlib.Path

    Yields
    ------
    tuple of bytes
        A prefix, and how often a password with it was found, in digits.
    """
    with names_file(path), path.open("rb") as file:
        for line in file:
            prefix, _, count = line.rstrip().partition(b":")
            yield prefix, count


def find_in_list(path: Path, password: str) -> int | None:
    """Look a password up in the list itself: what a private lookup is compared with.

    Parameters
    ----------
    path : pathlib.Path
        A list that `write_list` wrote.
    password : str

    Returns
    -------
    int or None
        How often it was found; None if it is not in the list.
    """
    wanted = prefix_of(password).encode()
    with (
        names_file(path),
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        low, high = 0, len(data)  # the starts of lines, or the end
        while low < high:
            start = data.rfind(b"\n", low, (low + high) // 2) + 1 or low
            if data[start : start + PREFIX_DIGITS] < wanted:
                low = data.find(b"\n", start) + 1
            else:
                high = start
        prefix, _, count = data[low : data.find(b"\n", low)].partition(b":")
        return int(count) if prefix == wanted else None
