"""`voxquarry ingest`: every phase for one language, then what came of it beside the others."""

from collections.abc import Collection
from dataclasses import replace

import polars as pl
from rich.console import Console
from rich.table import Table

from annotators.ctc import speaks
from annotators.languages import Language, base_code, languages
from annotators.registry import resolve
from annotators.whisper import knows_language
from jobs.language_balance import balance, gates, replay_temperature
from jobs.run_annotate import run_annotate
from jobs.run_compose import run_compose
from jobs.run_curate import run_curate
from jobs.run_encode import run_encode
from jobs.run_mine import run_mine
from jobs.settings import Settings
from pipeline.policy import load_policy
from pipeline.shelf import Shelf
from pipeline.sources import Source, list_sources, shelved
from pipeline.storage import Corpus
from schemas.errors import ConfigError


def run_ingest(
    spec: str,
    root: str,
    language: str,
    config: Settings,
    *,
    checkpoint: str,
    policy: str,
    retry: bool,
    console: Console,
) -> None:
    """Run the phases in order; each does only what is still to do. Raises a `VoxquarryError`."""
    row = known_language(language)
    taken = of_language(list_sources(spec), language, console)
    _explain(row, taken, config, console)
    console.rule("1/5 curate")
    run_curate(spec, root, config, policy=policy, retry=retry, console=console, sources=taken)
    corpus = Corpus(root)
    if balance(corpus).filter(language=row.code).is_empty():
        console.print(
            f"No clip of {row.name} is accepted, so there is nothing to mine, annotate or encode: "
            f"the table above says why. `voxquarry report {root}` lets you listen."
        )
        _show(corpus, row, policy, console)
        return
    console.rule("2/5 mine")
    run_mine(root, config, policy=policy, retry=retry, console=console)
    console.rule("3/5 annotate")
    run_annotate(root, config, policy=policy, relevel=False, retry=retry, console=console)
    console.rule("4/5 encode")
    run_encode(root, checkpoint, config, policy=policy, retry=retry, console=console)
    console.rule("5/5 compose")
    run_compose(root, checkpoint, config, policy=policy, console=console)
    _show(corpus, row, policy, console)


def known_language(declared: str) -> Language:
    """The row of a language tag. Raises `ConfigError` for one that has none."""
    code = base_code(declared)
    row = languages().get(code or "")
    if row is None:
        raise ConfigError(
            f"no row for the language {declared!r} in annotators/languages.yaml, which knows "
            f"{' '.join(sorted(languages()))}; add one, it is a line"
        )
    return row


def of_language(sources: Collection[Source], language: str, console: Console) -> Shelf[Source]:
    """The sources of a language, those that declare none among them.

    Raises `ConfigError` where all declare another.
    """
    code = base_code(language)
    tag = language.lower().replace("_", "-")
    taken = shelved(
        source if source.language else replace(source, language=tag)
        for source in sources
        if base_code(source.language) in (None, code)
    )
    others = sorted({base_code(source.language) or "" for source in sources} - {code, ""})
    if not taken:
        raise ConfigError(f"no source is in {code}: all declare {', '.join(others)}")
    if others:
        console.print(
            f"{len(sources) - len(taken)} of {len(sources)} sources declare {', '.join(others)} "
            "and are left out: ingest each language by its own."
        )
    return taken


def _explain(row: Language, taken: Collection[Source], config: Settings, console: Console) -> None:
    """Say how texts will come about; a language that nothing reads is no error."""
    given = sum(bool(source.transcript or source.utterances) for source in taken)
    console.print(
        f"{row.name}: {len(taken)} sources, {given} of them with transcripts; errors are counted as "
        f"{row.error.upper()}."
    )
    model = config.transcription.model
    if knows_language(resolve(model).path, row.whisper or row.code):
        console.print(f"{model} knows {row.name}: it transcribes, and checks what is given.")
        return
    aligner = config.ctc_alignment.model
    if aligner is not None and speaks(resolve(aligner).path, row.code):
        console.print(f"{model} does not know {row.name}; {aligner} places what is given.")
    elif aligner is None and given:
        console.print(
            f"[yellow]{model} does not know {row.name}, and no ctc_alignment.model is set:[/] given "
            "texts are taken by their times, or where a recording is one clip."
        )
    if given < len(taken):
        console.print(
            f"[yellow]{len(taken) - given} sources bring no transcript:[/] their clips are kept "
            "apart, rejected as no_text, and wait for a recogniser that knows them."
        )


def _show(corpus: Corpus, row: Language, policy: str, console: Console) -> None:
    """The gates of this language, and the balance of all."""
    table = Table("gate", "hours left", "of them", title=f"{row.name}, gate by gate")
    first = None
    for name, hours in gates(corpus, row.code, load_policy(policy)):
        first = first or hours
        share = f"{hours / first:.1%}" if first else "–"
        table.add_row(name, f"{hours:.3f}", share)
    console.print(table)
    shares = balance(corpus)
    temperature = replay_temperature(shares, row.code)
    _show_balance(shares, row, temperature, console)
    console.print(
        "Next: [bold]voxquarry report[/] to listen, [bold]voxquarry clone[/] for directed voices, "
        "[bold]voxquarry train --recipe finetune[/].",
    )


def _show_balance(
    shares: pl.DataFrame, row: Language, temperature: float, console: Console
) -> None:
    table = Table(
        *("language", "hours kept", "share", f"share at temperature {temperature:g}"),
        title="Balance",
    )
    hours = shares["hours"].to_numpy()
    flat = hours ** (1 / temperature)
    for (code, kept), share in zip(
        shares.select("language", "hours").iter_rows(), flat / max(flat.sum(), 1e-12), strict=True
    ):
        table.add_row(code, f"{kept:.3f}", f"{kept / max(hours.sum(), 1e-12):.1%}", f"{share:.1%}")
    console.print(table)
    if shares.height > 1:
        console.print(
            f"Trained on {row.name} alone, a model forgets the others and speaks them with its "
            f"accent. Keep them in: [bold]--set compose.stage_1.language_temperature={temperature:g}"
            f"[/] mixes the corpus as in the last column."
        )
