"""`voxquarry forget`: take a voice out of a corpus, and keep it out.

    what goes → shown, agreed to → journal → tombstone → tables → markers → other files → journal ends

The journal holds all that goes. While it is there every other command refuses the corpus, and every
step can be done again, so an opt-out that was ended half-way is completed by the next.
"""

import json
import secrets
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table

from jobs.forget_files import blank_answers, clean_records, still_named_in, sweep
from jobs.forget_plan import Removal, Request, hours_of, removal_of
from jobs.forget_tables import Rewriting, rewrite_markers
from pipeline.lease import lease
from pipeline.storage import Corpus
from pipeline.tombstones import JOURNAL, Tombstone, journal, name_key, write
from schemas.arrow import TABLES
from schemas.errors import ConfigError
from schemas.ids import content_id


def run_forget(
    root: str,
    request: Request | None,
    *,
    dry_run: bool,
    agreed: Callable[[], bool],
    console: Console,
) -> bool:
    """Forget what is asked for, after completing what was interrupted; whether it was done.

    request: None only completes. agreed: asks. Raises `ConfigError` where nothing is meant, and
    `CorpusInUse` where another run writes to the corpus.
    """
    corpus = Corpus(root)
    if not corpus.exists():
        raise ConfigError(f"{root} holds no corpus; `voxquarry run SOURCE --out {root}` makes one")
    with lease(corpus, f"forget-{secrets.token_hex(8)}", console):
        return _forget(corpus, request, dry_run, agreed, console)


def _forget(
    corpus: Corpus,
    request: Request | None,
    dry_run: bool,
    agreed: Callable[[], bool],
    console: Console,
) -> bool:
    root = corpus.root
    begun = journal(corpus)
    if begun is not None:
        if dry_run:
            raise ConfigError(
                f"{root}: an opt-out was interrupted; `voxquarry forget {root}` completes it"
            )
        console.print("Completing an opt-out that was interrupted …")
        _complete(corpus, Removal(**begun), console)
    if request is None:
        if begun is None:
            raise ConfigError("name who: --recording, --speaker, --session or --source")
        return True
    if begun is not None and (begun["kind"], begun["name"]) == (request.kind, request.name):
        return True
    with console.status("Looking for all that goes …"):
        removal = removal_of(corpus, request)
        rewriting = Rewriting(corpus, removal)
        removal.failed = rewriting.failed()
        removal.rows = rewriting.count()
    _show(corpus, removal, console)
    if dry_run:
        console.print("A dry run: nothing was removed.")
        return False
    if not agreed():
        console.print("Nothing was removed.")
        return False
    removal.time = datetime.now(UTC).isoformat(timespec="seconds")
    corpus.write_json(JOURNAL, asdict(removal), indent=None)
    _complete(corpus, removal, console)
    return True


def _complete(corpus: Corpus, removal: Removal, console: Console) -> None:
    """Do all that the journal says, and end it."""
    stone = tombstone_of(removal)
    write(corpus, stone)
    rewriting = Rewriting(corpus, removal)
    for table in TABLES.values():
        with console.status(f"Taking it out of {table.name} …"):
            rewriting.rewrite(table)
    with console.status("Taking it out of the records …"):
        rewrite_markers(corpus, removal, stone.id)
        blank_answers(corpus, removal)
        clean_records(corpus, removal)
        sweep(corpus)
        strangers = list(still_named_in(corpus, removal))
    corpus.delete(JOURNAL)
    console.print(
        f"Forgotten: {removal.kind} {removal.name}, {sum(removal.rows.values()):,} rows. No run "
        "brings it back. Shares of samples and the report are made anew by compose and report.",
        highlight=False,
        markup=False,
    )
    if strangers:
        console.print(
            f"[yellow]{len(strangers)} files that voxquarry did not write still name it:[/] "
            + ", ".join(strangers[:5]),
            highlight=False,
        )


def tombstone_of(removal: Removal) -> Tombstone:
    """What is kept of an opt-out."""
    return Tombstone(
        # Every time the same, however often it is completed.
        id=content_id(json.dumps([removal.kind, removal.name, removal.time])),
        kind=removal.kind,
        keys=tuple(removal.keys),
        recordings=tuple(removal.recordings),
        uris=tuple(name_key("uri", uri) for uri in removal.uris),
        spans=removal.spans,
        reason=removal.reason,
        time=removal.time,
        rows=removal.rows,
    )


def _show(corpus: Corpus, removal: Removal, console: Console) -> None:
    """What goes, in rows and hours."""
    table = Table(
        "table", "rows", title=f"To forget: {removal.kind} {removal.name}", title_justify="left"
    )
    table.columns[1].justify = "right"
    for name, rows in removal.rows.items():
        table.add_row(name, f"{rows:,}")
    console.print(table)
    kept = len(removal.spans)
    console.print(
        f"{len(removal.recordings):,} recordings, {len(removal.clips):,} clips "
        f"({hours_of(corpus, removal):.2f} h), {len(removal.clones):,} clones"
        + (f"; of {kept:,} recordings only clips" if kept else "")
        + ". Recordings themselves, exports and trained models lie elsewhere and stay as they are.",
        highlight=False,
    )
