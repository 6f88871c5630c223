"""Sealed pages: the format by an independent implementation, and what a wrong page can be."""

from __future__ import annotations

import hashlib
import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import morphogen as mg
from authentication_format import Table
from morphogen.authentication import (
    Seal,
    check_pages,
    default_proof_levels,
    num_cap_nodes,
    root_of_cap,
    seal_pages,
    tree_of_pages,
)
from naive import Bytes, random_pages

TESTS = Path(__file__).resolve().parents[1]
VECTORS = json.loads((TESTS / "vectors" / "auth_v1.json").read_text(encoding="utf-8"))["cases"]
PROTOCOL = TESTS.parent / "docs" / "protocol.md"
LAYOUT = b"how to read it"


def sealed(num_pages: int, proof_levels: int, content_size: int = 7) -> Seal:
    contents = random_pages(num_pages, content_size)
    return seal_pages(contents, content_size + 32 * proof_levels, proof_levels, LAYOUT)


def shapes(most_pages: int) -> list[tuple[int, int]]:
    """All numbers of pages and of proof levels up to a number of pages."""
    return [
        (pages, levels)
        for pages in range(1, most_pages + 1)
        for levels in range((pages - 1).bit_length() + 1)
    ]


# The format


@pytest.mark.parametrize("case", VECTORS, ids=lambda case: f"{case['num_pages']} pages")
def test_the_recorded_tables(case: dict[str, Any]) -> None:
    pages, page_size, levels = case["num_pages"], case["page_size"], case["proof_levels"]
    content_size = page_size - 32 * levels
    i, j = np.arange(pages)[:, None], np.arange(content_size)[None, :]
    contents = ((31 * i + 7 * j + i * j % 251) % 256).astype(np.uint8)
    seal = seal_pages(contents, page_size, levels)
    assert seal.root.hex() == case["root"]
    assert hashlib.sha256(seal.cap.tobytes()).hexdigest() == case["cap_sha256"]
    assert hashlib.sha256(seal.pages.tobytes()).hexdigest() == case["pages_sha256"]
    assert seal.pages[-1, content_size:].tobytes().hex() == case["last_page_path"]
    assert root_of_cap(seal.cap, pages, page_size, levels) == seal.root
    assert check_pages(seal.pages, range(pages), seal.cap, levels)
    tree = tree_of_pages(mg.PageMatrix(seal.pages), levels)
    assert tree.root == seal.root
    np.testing.assert_array_equal(tree.cap, seal.cap)


def test_every_small_table_is_that_of_the_independent_implementation() -> None:
    for num_pages, levels in shapes(20):
        seal = sealed(num_pages, levels)
        contents = tuple(row.tobytes() for row in seal.pages[:, :7])
        table = Table(contents, levels, LAYOUT)
        assert [row.tobytes() for row in seal.pages] == list(map(table.page, range(num_pages)))
        assert [row.tobytes() for row in seal.cap] == table.cap()
        assert seal.root == table.root()
        assert root_of_cap(seal.cap, num_pages, table.page_size, levels, LAYOUT) == seal.root


def test_the_example_of_the_document_is_true() -> None:
    section = PROTOCOL.read_text(encoding="utf-8").split("\n## 13. Authenticated pages\n")[1]
    block = section.split("```text\n")[1].split("```")[0]
    lines = (line.partition("=") for line in re.sub(r"\n +", "", block).splitlines())
    document = {name.strip(): bytes.fromhex(digits) for name, _, digits in lines}
    table = Table(tuple(document[f"content.{at}"] for at in range(3)), 1)
    assert document == {
        **{f"content.{at}": content for at, content in enumerate(table.contents)},
        **{f"leaf.{at}": table.node(0, at) for at in range(3)},
        **{f"page.{at}": table.page(at) for at in range(3)},
        **{f"cap.{at}": node for at, node in enumerate(table.cap())},
        "top": table.node(2, 0),
        "root": table.root(),
    }


def test_contents_may_lie_anywhere_in_memory() -> None:
    contents = random_pages(5, 9)
    expected = seal_pages(contents, 9 + 32, 1)
    for other in (np.asfortranarray(contents), np.repeat(contents, 2, axis=1)[:, ::2]):
        seal = seal_pages(other, 9 + 32, 1)
        assert seal.root == expected.root
        np.testing.assert_array_equal(seal.pages, expected.pages)


# Checks


def test_each_page_is_right_at_its_own_index_alone() -> None:
    for num_pages, levels in shapes(12):
        seal = sealed(num_pages, levels)
        for at in range(num_pages):
            for asked in range(len(seal.cap) << levels):
                assert check_pages(seal.pages[at : at + 1], [asked], seal.cap, levels) == (
                    asked == at
                )


def test_every_bit_of_a_page_counts() -> None:
    seal = sealed(11, 3)
    for at in range(8 * seal.pages.shape[1]):
        page = seal.pages[10:].copy()
        page[0, at // 8] ^= 1 << at % 8
        assert not check_pages(page, [10], seal.cap, 3)


@given(data=st.data(), shape=st.sampled_from(shapes(40)))
@settings(max_examples=200, deadline=None)
def test_a_lie_is_caught_exactly_if_it_changes_a_page(
    data: st.DataObject, shape: tuple[int, int]
) -> None:
    """What a liar adds to an answer is added to the page, whatever page that is."""
    num_pages, levels = shape
    seal = sealed(num_pages, levels)
    indices = data.draw(st.lists(st.integers(0, num_pages - 1), min_size=1, max_size=4))
    pages = seal.pages[indices]
    size = pages.size
    lie = data.draw(st.one_of(st.just(bytes(size)), st.binary(min_size=size, max_size=size)))
    changed = pages ^ np.frombuffer(lie, dtype=np.uint8).reshape(pages.shape)
    assert check_pages(changed, indices, seal.cap, levels) == (not any(lie))


def test_one_wrong_page_of_many_is_enough() -> None:
    seal = sealed(9, 2)
    assert check_pages(seal.pages, range(9), seal.cap, 2)
    for wrong in range(9):
        pages = seal.pages.copy()
        pages[wrong, 0] ^= 1
        assert not check_pages(pages, range(9), seal.cap, 2)


def test_the_root_vouches_for_the_cap_the_shape_and_the_layout() -> None:
    seal = sealed(11, 2)
    assert root_of_cap(seal.cap, 11, 71, 2, LAYOUT) == seal.root
    for at in range(len(seal.cap)):
        other = seal.cap.copy()
        other[at, at] ^= 1
        assert root_of_cap(other, 11, 71, 2, LAYOUT) != seal.root
    assert root_of_cap(seal.cap, 12, 71, 2, LAYOUT) != seal.root
    assert root_of_cap(seal.cap, 11, 72, 2, LAYOUT) != seal.root
    assert root_of_cap(seal.cap, 11, 71, 2) != seal.root
    # As many nodes in a cap of another level.
    assert root_of_cap(seal.cap, 3, 71, 0, LAYOUT) != seal.root


def test_pages_that_were_read_privately_are_checked() -> None:
    seal = sealed(100, default_proof_levels(100))
    with mg.open_engine(mg.PageMatrix(seal.pages), device="cpu", threads=1) as engine:
        mine, theirs = mg.make_query([7, 99, 0], 100)
        answers = engine.answer([mine]), engine.answer([theirs])
        pages = mg.reconstruct(*answers)[0]
        assert check_pages(pages, [7, 99, 0], seal.cap, 4)
        answers[1].pages[0, 1, 50] ^= 1
        assert not check_pages(mg.reconstruct(*answers)[0], [7, 99, 0], seal.cap, 4)


def test_no_pages_are_right() -> None:
    seal = sealed(3, 1)
    assert check_pages(seal.pages[:0], [], seal.cap, 1)


# Proof levels


@pytest.mark.parametrize(
    ("num_pages", "levels"),
    [(1, 0), (2, 1), (8, 3), (9, 4), (2**23, 4), (2**23 + 1, 5), (2**25, 6), (2**40, 21)],
)
def test_the_cap_takes_16_mib_at_most(num_pages: int, levels: int) -> None:
    assert default_proof_levels(num_pages) == levels
    assert -(-num_pages // 2**levels) * 32 <= 16 << 20


# Bad input


def contents_of(*shape: int) -> Bytes:
    return np.zeros(shape, dtype=np.uint8)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([[1]], 33, 1), TypeError, "contents must be a numpy.ndarray, not list"),
        ((np.zeros((2, 2)), 34, 1), TypeError, "contents must have dtype uint8, not float64"),
        ((contents_of(4), 4, 0), ValueError, "contents must have 2 dimensions, not 1"),
        ((contents_of(0, 4), 4, 0), ValueError, "num_pages must be in 1..2**40, not 0"),
        ((contents_of(4, 8), "40", 1), TypeError, "page_size must be an int, not str"),
        ((contents_of(4, 8), 40, 1.0), TypeError, "proof_levels must be an int, not float"),
        ((contents_of(4, 8), 104, 3), ValueError, "proof_levels must be in 0..2, not 3"),
        ((contents_of(4, 8), 8, -1), ValueError, "proof_levels must be in 0..2, not -1"),
        ((contents_of(4, 8), 64, 2), ValueError, "page_size must be in 65..2**40, not 64"),
        ((contents_of(4, 8), 41, 1), ValueError, "contents must have shape (4, 9), not (4, 8)"),
        ((contents_of(4, 8), 40, 1, "x"), TypeError, "layout must be bytes, not str"),
    ],
)
def test_what_cannot_be_sealed(
    arguments: tuple[Any, ...], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        seal_pages(*arguments)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"pages": b"page"}, TypeError, "pages must be a numpy.ndarray, not bytes"),
        ({"pages": contents_of(40)}, ValueError, "pages must have 2 dimensions, not 1"),
        (
            {"pages": contents_of(2, 32)},
            ValueError,
            "a page with 1 proof levels has more than 32 bytes, not 32",
        ),
        ({"indices": [0]}, ValueError, "indices must be 2, one for each page, not 1"),
        ({"indices": [0, True]}, TypeError, "indices must be a sequence of ints: 'bool' object .*"),
        ({"indices": [0, -1]}, ValueError, "an index must be in 0..3, not -1"),
        ({"indices": [4, 0]}, ValueError, "an index must be in 0..3, not 4"),
        (
            {"cap": contents_of(2, 31)},
            ValueError,
            "cap must have shape (1 or more, 32), not (2, 31)",
        ),
        (
            {"cap": contents_of(0, 32)},
            ValueError,
            "cap must have shape (1 or more, 32), not (0, 32)",
        ),
        ({"proof_levels": 41}, ValueError, "proof_levels must be in 0..40, not 41"),
    ],
)
def test_what_cannot_be_checked(
    changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    seal = sealed(3, 1)
    arguments: dict[str, Any] = {
        "pages": seal.pages[:2],
        "indices": [0, 1],
        "cap": seal.cap,
        "proof_levels": 1,
    }
    pattern = message if message.endswith(".*") else re.escape(message)
    with pytest.raises(error, match=f"^{pattern}$"):
        check_pages(**(arguments | changes))


def test_a_cap_of_another_shape_has_no_root() -> None:
    message = "cap must have shape (3, 32), not (2, 32)"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        root_of_cap(contents_of(2, 32), 5, 40, 1)
    with pytest.raises(ValueError, match=r"^num_pages must be in 1\.\.2\*\*40, not 0$"):
        default_proof_levels(0)


# Trees of pages that are there


def test_the_tree_of_sealed_pages_is_that_of_the_seal(chunk_bytes: int) -> None:
    for num_pages, levels in shapes(20):
        seal = sealed(num_pages, levels)
        tree = tree_of_pages(mg.PageMatrix(seal.pages), levels, LAYOUT)
        assert tree.root == seal.root
        np.testing.assert_array_equal(tree.cap, seal.cap)


def refused(pages: Bytes, levels: int, root: bytes) -> bool:
    try:
        return tree_of_pages(mg.PageMatrix(pages), levels, LAYOUT).root != root
    except mg.IntegrityError:
        return True


@pytest.mark.parametrize(("num_pages", "levels"), [(3, 0), (3, 2), (5, 1)])
def test_every_bit_of_every_page_is_in_the_tree(
    num_pages: int, levels: int, chunk_bytes: int
) -> None:
    seal = sealed(num_pages, levels, 3)
    flat = seal.pages.reshape(-1)
    for at in range(8 * flat.size):
        flat[at // 8] ^= 1 << at % 8
        assert refused(seal.pages, levels, seal.root)
        assert not check_pages(seal.pages, range(num_pages), seal.cap, levels)
        flat[at // 8] ^= 1 << at % 8
    assert not refused(seal.pages, levels, seal.root)


def test_no_two_pages_may_be_swapped(chunk_bytes: int) -> None:
    for num_pages, levels in shapes(9):
        seal = sealed(num_pages, levels)
        for one, other in combinations(range(num_pages), 2):
            pages = seal.pages.copy()
            pages[[one, other]] = pages[[other, one]]
            assert refused(pages, levels, seal.root)
            assert not check_pages(pages[[one, other]], [one, other], seal.cap, levels)
            assert not check_pages(pages[[one]], [one], seal.cap, levels)


def test_the_tree_of_a_mapped_file_with_a_short_last_page(tmp_path: Path) -> None:
    path = tmp_path / "pages"
    path.write_bytes(bytes(range(200)))
    contents = np.frombuffer(bytes(range(200)) + bytes(8), dtype=np.uint8).reshape(-1, 16)
    calls: list[tuple[int, int]] = []
    tree = tree_of_pages(mg.PageMatrix.open(path, 16), 0, progress=lambda *call: calls.append(call))
    assert tree.root == Table(tuple(row.tobytes() for row in contents), 0).root()
    assert calls == [(0, 208), (208, 208)]


def test_what_has_no_tree() -> None:
    pages = mg.PageMatrix(contents_of(4, 64))
    with pytest.raises(ValueError, match=r"^page_size must be in 65\.\.2\*\*40, not 64$"):
        tree_of_pages(pages, 2)
    with pytest.raises(ValueError, match=r"^proof_levels must be in 0\.\.2, not 3$"):
        tree_of_pages(pages, 3)
    with pytest.raises(TypeError, match=r"^layout must be bytes, not str$"):
        tree_of_pages(pages, 0, "x")  # type: ignore[arg-type]
    assert num_cap_nodes(5, 1) == 3
    with pytest.raises(ValueError, match=r"^proof_levels must be in 0\.\.3, not 4$"):
        num_cap_nodes(5, 4)
