"""The tables at the end of `voxquarry annotate`."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table


def show(facts: Mapping[str, Any], console: Console) -> None:
    """Print what became of the clips, and what the verifier took out. facts: the run record's."""
    counts = facts["counts"]
    table = Table("", "clips", "share", title="Descriptions", title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    rows = [
        ("accepted clips", counts["accepted"]),
        ("measured", counts["measured"]),
        ("could not be measured (quarantine)", counts["measuring_quarantined"]),
        ("expressive enough to be described", counts["chosen"]),
        ("[bold]described[/]", counts["described"]),
        *((f"rejected: {reason}", number) for reason, number in counts["rejected"].items()),
        ("no usable answer (quarantine)", counts["describing_quarantined"]),
        ("waiting for a higher spend ceiling", facts.get("waiting", 0)),
    ]
    always = {"accepted clips", "measured", "expressive enough to be described"}
    for name, number in rows:
        if number or name in always or "bold" in name:
            table.add_row(name, f"{number:,}", f"{number / max(1, counts['accepted']):.1%}")
    console.print(table)
    if counts["contradicted"]:
        claims = Table(
            *("claim", "made", "contradicted and taken out"),
            title="What the verifier found",
            title_justify="left",
        )
        for name, made in sorted(counts["claims"].items()):
            claims.add_row(name, f"{made:,}", f"{counts['contradicted'].get(name, 0):,}")
        console.print(claims)
    for model, number in counts["writers"].items():
        console.print(f"{number:,} descriptions by {model}.", highlight=False)
    if "spent" in facts:
        console.print(f"{facts['spent']:.2f} spent on this corpus so far.", highlight=False)
    if counts["measuring_quarantined"] or counts["describing_quarantined"]:
        console.print("--retry-quarantined tries what is in quarantine again.")
