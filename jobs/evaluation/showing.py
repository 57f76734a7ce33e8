"""The figures side by side: on the terminal, in Markdown, in JSON."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from jobs.evaluation.figures import DNSMOS, REBUILT, Group, SystemFigures
from jobs.evaluation.intervals import Figure
from jobs.evaluation.utterances import Refused

NAMES = {
    "dnsmos_ovrl": "DNSMOS overall ↑",
    "dnsmos_sig": "DNSMOS speech ↑",
    "dnsmos_bak": "DNSMOS background ↑",
    "dnsmos_p808": "DNSMOS P.808 ↑",
    "mel_16k": "mel distance, 16 kHz ↓",
    "mel_48k": "mel distance, 48 kHz ↓",
    "stoi": "STOI ↑",
    "pesq": "PESQ, wide band ↑",
}
SHOWN_REFUSED = 10
"""Of what was refused, on the terminal; the JSON has all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sheet:
    """One table: a title, the systems as columns, and rows of cells."""

    title: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, ...]]


def sheets_of(systems: Sequence[SystemFigures]) -> list[Sheet]:
    """Speech by set and language; what descriptions did; AudioVAE and speed."""
    sheets = [
        _speech(origin, language, systems)
        for origin, language in dict.fromkeys(
            (group.origin, group.language) for system in systems for group in system.groups
        )
    ]
    sheets += [
        _following(origin, [system for system in systems if origin in system.following])
        for origin in dict.fromkeys(name for system in systems for name in system.following)
    ]
    checkpoints = [system for system in systems if system.is_checkpoint]
    if checkpoints:
        sheets.append(_machine(checkpoints))
    return sheets


def _speech(origin: str, language: str | None, systems: Sequence[SystemFigures]) -> Sheet:
    known = {
        system.label: group
        for system in systems
        for group in system.groups
        if (group.origin, group.language) == (origin, language)
    }
    measure = next(iter(known.values())).measure.upper()

    def row(name: str, cell: Callable[[Group], str]) -> tuple[str, ...]:
        return name, *(cell(group) for group in known.values())

    def scores(name: str) -> tuple[str, ...]:
        return row(NAMES[name], lambda group: told(group.dnsmos[name]))

    rows = [
        row("utterances", lambda group: f"{group.utterances:,}"),
        row(f"{measure}, % ↓", lambda group: told(group.error_rate, 100, 2)),
        row(
            f"{measure}, % of an utterance, mean ↓",
            lambda group: told(group.error_rate_mean, 100, 2),
        ),
        row("similarity of voice ↑", lambda group: told(group.similarity, 1, 3)),
        *(scores(name) for name in DNSMOS),
        row("did not end by itself", lambda group: f"{group.cut:,}"),
        row("silent", lambda group: f"{group.silent:,}"),
        row("could not be done", lambda group: f"{group.refused:,}"),
    ]
    for name, scale, digits, attribute in (
        (f"{measure}, less the first", 100, 2, "error_rate"),
        ("similarity, less the first", 1, 3, "similarity"),
    ):
        changes = {
            system.label: getattr(change, attribute)
            for system in systems
            for change in system.differences
            if (change.origin, change.language) == (origin, language)
        }
        if any(change is not None for change in changes.values()):
            cells = (told(changes.get(label), scale, digits, sign=True) for label in known)
            rows.append((name, *cells))
    return Sheet(title=f"{origin}, {language or 'any language'}", columns=list(known), rows=rows)


def _following(origin: str, systems: Sequence[SystemFigures]) -> Sheet:
    names = dict.fromkeys(name for system in systems for name in system.following[origin])
    rows = []
    for name in names:
        cells = []
        for system in systems:
            found = system.following[origin].get(name)
            if found is None:
                cells.append("–")
                continue
            chance = "–" if found.by_chance is None else f"{100 * found.by_chance:.0f}"
            cells.append(
                f"{told(found.followed, 100, 0)}, by chance {chance} "
                f"({found.judged:,} of {found.claims:,} claims judged)"
            )
        rows.append((name.replace("_", " "), *cells))
    return Sheet(
        title=f"{origin}: descriptions followed, % ↑",
        columns=[one.label for one in systems],
        rows=rows,
    )


def _machine(systems: Sequence[SystemFigures]) -> Sheet:
    rows = [
        (
            "real-time factor ↓",
            *(told(system.real_time_factor, 1, 3) for system in systems),
        )
    ]
    if any(system.audio_vae for system in systems):
        rows.append(
            (
                "recordings through the AudioVAE",
                *(f"{_recordings(system):,}" for system in systems),
            )
        )
        rows += [
            (NAMES[name], *(told(system.audio_vae.get(name), 1, 3) for system in systems))
            for name in REBUILT
        ]
    return Sheet(
        title="Speed and AudioVAE", columns=[system.label for system in systems], rows=rows
    )


def _recordings(system: SystemFigures) -> int:
    return max((figure.units for figure in system.audio_vae.values() if figure), default=0)


def told(figure: Figure | None, scale: float = 1, digits: int = 2, *, sign: bool = False) -> str:
    """`2.31 [1.9, 2.8]`; a dash for what was not measured."""
    if figure is None:
        return "–"
    form = f"{'+' if sign else ''}.{digits}f"
    value = f"{figure.value * scale:{form}}"
    if figure.low is None or figure.high is None:
        return value
    return f"{value} [{figure.low * scale:{form}}, {figure.high * scale:{form}}]"


def show(sheets: Sequence[Sheet], refused: Sequence[Refused], console: Console) -> None:
    """Print the tables, and what could not be done."""
    for sheet in sheets:
        table = Table(title=escape(sheet.title), title_justify="left")
        table.add_column("")
        for column in sheet.columns:
            table.add_column(escape(column), justify="right")
        for row in sheet.rows:
            table.add_row(*(escape(cell) for cell in row))
        console.print(table)
    for one in refused[:SHOWN_REFUSED]:
        console.print(
            _told_refused(one), style="yellow", markup=False, highlight=False, soft_wrap=True
        )
    if len(refused) > SHOWN_REFUSED:
        console.print(f"… and {len(refused) - SHOWN_REFUSED:,} more", style="yellow")


def _told_refused(one: Refused) -> str:
    system = f" ({one.system})" if one.system else ""
    text = f"{one.where}{system}: {one.error}: {one.message}"
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def markdown(sheets: Sequence[Sheet], refused: Sequence[Refused], notes: Sequence[str]) -> str:
    """The same tables as a file that people share."""
    parts = ["# Evaluation", *notes]
    for sheet in sheets:
        rule = ["---", *(["---:"] * len(sheet.columns))]
        lines = [["", *sheet.columns], rule, *sheet.rows]
        parts.append(f"## {_cell(sheet.title)}")
        parts.append("\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines))
    if refused:
        parts.append("## Not evaluated")
        parts.append("\n".join(f"- {_cell(_told_refused(one))}" for one in refused))
    return "\n\n".join(parts) + "\n"


def _cell(text: str) -> str:
    """Text from outside that stays in its cell."""
    return text.replace("\n", " ").replace("\r", " ").replace("|", "\\|").replace("<", "&lt;")
