"""The result of the demo of breached passwords, shown to people. Imports rich."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table

from morphogen.bench.describe import describe_size
from morphogen.cli.tables import print_table
from morphogen.demo.breached import BreachedResult


def show_breached(result: BreachedResult, console: Console) -> None:
    """Print the result of the demo.

    Parameters
    ----------
    result : BreachedResult
    console : rich.console.Console
    """
    console.print(
        f"List     {result.entries:,} passwords by the beginning of their SHA-1, made here in "
        f"{result.list_seconds:.1f} s\n"
        f"Table    {result.num_pages:,} pages of {result.page_size:,} bytes "
        f"({describe_size(result.table_bytes)}), {100 * result.load:.0f}% full, built in "
        f"{result.build_seconds:.1f} s"
    )
    console.print(f"Root     {result.root}", soft_wrap=True)
    console.print(
        "         The table's owner publishes it, and the client knows it from there.\n"
        f"Servers  two ({result.device}), each a process of its own\n"
    )
    rows = _columns("password", "SHA-1 begins", "found", "", left=2)
    for lookup in result.lookups:
        found = "not in the list" if lookup.count is None else f"{lookup.count:,} times"
        right = "as in the list" if lookup.right else "WRONG"
        rows.add_row(lookup.password, lookup.prefix, found, right)
    print_table(rows, console)

    rows = _columns("bytes of a lookup", "each server", "both", left=1)
    for label, size in (
        ("sent", result.sent),
        ("received", result.received),
        ("in all", result.sent + result.received),
    ):
        rows.add_row(label, f"{size:,}", f"{2 * size:,}")
    rows.add_row("once, the cap that proves pages", f"{result.cap_bytes:,}", "")
    rows.add_row("to download the list instead", f"{result.list_bytes:,}", "")
    print_table(rows, console)
    console.print(
        "Both servers see the same whatever the password, and whether or not it is in the list. "
        f"A lookup took {result.lookup_ms:.1f} ms (median)."
    )

    rows = _columns("page", "leads to node of the cap", "which is", "", left=0)
    for proof in result.proof:
        rows.add_row(
            f"{proof.page:,}",
            str(proof.cap_node),
            f"{proof.cap_hash[:16]}...",
            "proven" if proof.proven else "WRONG",
        )
    print_table(rows, console)
    console.print(
        f"That {result.lookups[-1].password!r} is not in the list is proven: it could be on these "
        "pages only. The client hashes each of them up to the cap, and the cap up to the root.\n"
    )
    for known, refusal in zip(("in the list", "not in it"), result.refused, strict=True):
        console.print(
            f"One server lies about a password that is {known}: "
            + (f"refused, {refusal}" if refusal else "NOT CAUGHT"),
            style=None if refusal else "bold red",
        )
    if result.ok:
        console.print(
            f"All {len(result.lookups) + result.compared} lookups gave what the list says, and "
            "both lies were caught.",
            style="green",
        )
    else:
        console.print(
            f"{result.wrong} lookups differ from the list, or a page or a lie was not as it "
            "should be.",
            style="bold red",
        )


def _columns(*headings: str, left: int) -> Table:
    rows = Table(box=box.SIMPLE_HEAD)
    for at, heading in enumerate(headings):
        rows.add_column(heading, justify="left" if at < left else "right")
    return rows
