"""`voxquarry evaluate`: speak, judge, compare, and print the tables."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from annotators.registry import resolve
from jobs.evaluation.figures import (
    SystemFigures,
    audio_vae_of,
    differences_of,
    groups_of,
    real_time_factor,
)
from jobs.evaluation.following import following
from jobs.evaluation.held_out import read_samples
from jobs.evaluation.judging import Panel, judges_fingerprint
from jobs.evaluation.lists import read_list
from jobs.evaluation.rows import RECORDINGS, UTTERANCES, RecordingRow, UtteranceRow
from jobs.evaluation.showing import markdown, sheets_of, show
from jobs.evaluation.system_run import Described, SystemRun
from jobs.evaluation.systems import System, systems_of
from jobs.evaluation.utterances import Refused, UtteranceSet
from jobs.running import as_recorded
from jobs.settings import Settings
from pipeline.profile import as_plain
from pipeline.run_record import versions
from pipeline.storage import Corpus
from schemas.errors import ConfigError

RESULTS, REPORT = "results.json", "results.md"
_SETTINGS = ("evaluate", "speaking", "transcription", "dnsmos", "speaker", "vad", "experts")


def run_evaluate(
    checkpoints: Sequence[str],
    on: Sequence[str],
    out: Path,
    config: Settings,
    *,
    language: str | None,
    console: Console,
) -> list[SystemFigures]:
    """Do what is missing below `out`, and write the tables of all. Raises VoxquarryError.

    on: test lists and corpora. language: of the lists.
    """
    with console.status("Reading the test set …"):
        asked = read_sets(on, language, config)
        systems = systems_of(checkpoints, asked.utterances)
        judges = judges_fingerprint(config)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{out} cannot be written: {error.strerror}") from error
    panel = Panel(config)
    figures: list[SystemFigures] = []
    rows: list[UtteranceRow] = []
    recordings: list[RecordingRow] = []
    for system in systems:
        run = SystemRun(system, asked, out, panel, console)
        mine, described = run.utterances(judges)
        rebuilt = run.recordings()
        first = [row for row in rows if row.system == systems[0].label]
        with console.status("Intervals …"):
            figures.append(figures_of(system, mine, described, rebuilt, first, config))
        rows += mine
        recordings += rebuilt
    refused = [*asked.refused, *refused_in(rows, recordings)]
    write(out, figures, rows, recordings, refused, config)
    show(sheets_of(figures), refused, console)
    console.print(
        f"{out}: {RESULTS}, {REPORT}, utterances.parquet, recordings.parquet, and the audio.",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    return figures


def read_sets(on: Sequence[str], language: str | None, config: Settings) -> UtteranceSet:
    """All utterances of the lists and corpora. Raises ConfigError."""
    found: list[UtteranceSet] = []
    for name in on:
        if Path(name).is_file():
            found.append(read_list(Path(name), language))
        elif ("://" in name or Path(name).is_dir()) and Corpus(name).exists():
            found.append(read_samples(name, config.evaluate))
        else:
            raise ConfigError(f"{name} is neither a test list nor a corpus")
    origins = [name for one in found for name in {u.origin for u in one.utterances}]
    twice = next((name for name in origins if origins.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"two test sets are called {twice!r}; give one folder another name")
    return reduce(add, found)


def figures_of(
    system: System,
    rows: Sequence[UtteranceRow],
    described: Described,
    recordings: Sequence[RecordingRow],
    first: Sequence[UtteranceRow],
    config: Settings,
) -> SystemFigures:
    """All figures of a system. first: the rows of the first one, none for that one itself."""
    how, verifier = config.evaluate, config.annotate.verifier
    return SystemFigures(
        label=system.label,
        is_checkpoint=system.checkpoint is not None,
        model_hash=system.model_hash,
        groups=groups_of(rows, how),
        differences=differences_of(first, rows, how) if first else [],
        real_time_factor=real_time_factor(rows, how),
        following={origin: following(said, verifier, how) for origin, said in described.items()},
        audio_vae=audio_vae_of(recordings, how),
    )


def refused_in(
    rows: Sequence[UtteranceRow], recordings: Sequence[RecordingRow]
) -> Iterator[Refused]:
    """What a system could not say, hear or give back."""
    for row in rows:
        if row.error is not None:
            yield Refused(
                where=f"{row.origin}, {row.utterance_id}",
                utterance_id=row.utterance_id,
                system=row.system,
                error=row.error,
                message=row.message or "",
            )
    for sound in recordings:
        if sound.error is not None:
            yield Refused(
                where=sound.name,
                utterance_id=None,
                system=sound.system,
                error=sound.error,
                message=sound.message or "",
            )


def write(
    out: Path,
    figures: Sequence[SystemFigures],
    rows: Sequence[UtteranceRow],
    recordings: Sequence[RecordingRow],
    refused: Sequence[Refused],
    config: Settings,
) -> None:
    """Rows as Parquet, figures as JSON and Markdown; each file whole or not at all."""
    store = Corpus(str(out))
    store.write_table("utterances.parquet", UTTERANCES, rows)
    store.write_table("recordings.parquet", RECORDINGS, recordings)
    machine = machine_of(config)
    account = {
        "systems": [asdict(figure) for figure in figures],
        "refused": [asdict(one) for one in refused],
        "settings": {name: as_plain(getattr(config, name)) for name in _SETTINGS},
        "models": models_of(config),
        "machine": machine,
    }
    store.write_json(RESULTS, account)
    text = markdown(sheets_of(figures), refused, [_how(config, machine)])
    store.write_text(REPORT, text)


def models_of(config: Settings) -> list[dict[str, Any]]:
    """Who judged. Raises ModelLoadError."""
    asr, voices, quality = config.transcription.model, config.speaker.model, config.dnsmos.model
    names = (asr, voices, quality, config.vad.model, *config.experts.models)
    return as_recorded([resolve(name) for name in names])


def machine_of(config: Settings) -> dict[str, str]:
    """Where the speech was made, as far as its speed depends on it."""
    device = config.speaking.device
    where = (
        torch.cuda.get_device_name() if device == "cuda" else f"{config.speaking.threads} threads"
    )
    return {"device": device, "of": where, **versions()}


def _how(config: Settings, machine: Mapping[str, str]) -> str:
    """The line above the tables: what the figures mean."""
    how, speaking = config.evaluate, config.speaking
    judges = (config.transcription.model, config.speaker.model, config.dnsmos.model)
    return (
        f"In brackets: {100 * how.confidence:g} % intervals, bootstrap over utterances (of the "
        f"real-time factor over units of {how.unit}). Judged by {', '.join(judges)}. One attempt at "
        f"each utterance, seed {how.seed}, {speaking.num_steps} steps, cfg {speaking.cfg:g}, "
        f"{speaking.dtype}, {speaking.batch_size} at once, on {machine['device']} ({machine['of']})."
    )
