"""`voxquarry detect`: which sound files, and which clips of a corpus, carry our watermark."""

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from annotators.watermark import THRESHOLD, Watermark, pieces, score_of
from jobs.clone_plan import PHASE as CLONE
from jobs.running import step_bar
from pipeline.audio import Mono
from pipeline.decoders import open_decoder
from pipeline.sources import list_sources
from pipeline.storage import Corpus
from schemas.arrow import CLIPS, SYNTHETIC
from schemas.arrow import Table as CorpusTable
from schemas.errors import ConfigError, DataError, EmptyAudio, MissingSource, UndecodableAudio


@dataclass(frozen=True, kw_only=True, slots=True)
class Heard:
    """A file or clip, and how sure the detector is."""

    name: str
    duration_s: float = 0.0
    score: float = 0.0
    failure: str | None = None
    """Why there is no score."""

    @property
    def marked(self) -> bool:
        """Whether it counts as marked."""
        return self.failure is None and self.score >= THRESHOLD


@dataclass(kw_only=True, slots=True)
class ClipCount:
    """The clips of one table, and those that stand out."""

    kind: str
    expected: bool
    """Whether such clips should be marked."""
    clips: int = 0
    marked: int = 0
    odd: list[Heard] = field(default_factory=list)
    """Unmarked where they should be, marked where they should not be, or unreadable."""

    def add(self, heard: Heard) -> None:
        """Count one clip."""
        self.clips += 1
        self.marked += heard.marked
        if heard.failure is not None or heard.marked != self.expected:
            self.odd.append(heard)


def detect(paths: Sequence[str], console: Console) -> bool:
    """Print the score and the verdict of each file and corpus; False if something was unreadable.

    paths: sound files, folders, globs, manifests, uris, or corpora.
    """
    watermark = Watermark()
    readable = True
    files: list[str | Heard] = []
    for path in paths:
        if (corpus := _corpus_at(path)) is not None:
            readable &= _detect_in_corpus(corpus, watermark, console)
        else:
            files += _files_of(path)
    if files:
        readable &= _detect_in_files(files, watermark, console)
    return readable


def hear(uri: str, watermark: Watermark) -> Heard:
    """Score a sound file of any rate, length and number of channels; a failure is in the result."""
    chances = []
    try:
        with open_decoder(uri) as decoder:
            mono = Mono(decoder)
            # Piece by piece, so that ten hours cost the memory of seconds.
            blocks = _mono_blocks(mono, decoder.blocks(0, None))
            for piece in pieces(blocks, mono.sample_rate):
                chances.append(watermark.log_chance(piece, mono.sample_rate))
        if not mono.frames:
            raise EmptyAudio("decodes to no samples")
    except DataError as error:
        return Heard(name=uri, failure=f"{type(error).__name__}: {error}")
    return Heard(name=uri, duration_s=mono.frames / mono.native_rate, score=score_of(chances))


def _corpus_at(path: str) -> Corpus | None:
    if "://" not in path and not Path(path).is_dir():
        return None
    corpus = Corpus(path)
    return corpus if corpus.exists() else None


def _files_of(path: str) -> list[str | Heard]:
    try:
        return [source.uri for source in list_sources(path)]
    except ConfigError as error:
        # One wrong path among many is no reason to leave the others unheard.
        return [Heard(name=path, failure=f"{type(error).__name__}: {error}")]


def _detect_in_files(files: Sequence[str | Heard], watermark: Watermark, console: Console) -> bool:
    heard = []
    with step_bar(console) as bar:
        task = bar.add_task("listening", total=len(files), note="")
        for file in files:
            heard.append(hear(file, watermark) if isinstance(file, str) else file)
            bar.advance(task)
    _show(heard, console, title="Watermark")
    failed = sum(one.failure is not None for one in heard)
    marked = sum(one.marked for one in heard)
    unreadable = f", {failed} unreadable" if failed else ""
    console.print(f"{marked} of {len(heard)} files are marked{unreadable}.", highlight=False)
    return not failed


def _detect_in_corpus(corpus: Corpus, watermark: Watermark, console: Console) -> bool:
    counts = [
        ClipCount(kind="synthetic", expected=True),
        ClipCount(kind="recorded", expected=False),
    ]
    ledger = corpus.latest_items(CLONE)
    standing = {(clip_id, attempt) for clip_id, (attempt, item) in ledger.items() if item.done}
    num_clips = len(corpus.read(CLIPS, ["clip_id"]))
    with step_bar(console) as bar:
        task = bar.add_task("listening", total=len(standing) + num_clips, note="")
        synthetic, recorded = counts
        for clip_id, attempt, audio in _rows(corpus, SYNTHETIC, "clip_id", "attempt", "audio"):
            if (clip_id, attempt) in standing:
                synthetic.add(_hear_clip(clip_id, audio, watermark))
                bar.advance(task)
        for clip_id, audio in _rows(corpus, CLIPS, "clip_id", "audio"):
            recorded.add(_hear_clip(clip_id, audio, watermark))
            bar.advance(task)
    table_of_counts = Table(title=f"Watermark in {escape(corpus.root)}", title_justify="left")
    table_of_counts.add_column("clips")
    for heading in ("number", "marked", "share", "unreadable"):
        table_of_counts.add_column(heading, justify="right")
    for count in counts:
        unreadable = sum(heard.failure is not None for heard in count.odd)
        share = f"{100 * count.marked / count.clips:.1f} %" if count.clips else "–"
        table_of_counts.add_row(
            count.kind, f"{count.clips:,}", f"{count.marked:,}", share, f"{unreadable:,}"
        )
    console.print(table_of_counts)
    for count in counts:
        if count.odd:
            _show(count.odd, console, title=f"{count.kind} clips that stand out")
    return not any(heard.failure for count in counts for heard in count.odd)


def _rows(corpus: Corpus, table: CorpusTable, *columns: str) -> Iterator[tuple[Any, ...]]:
    """Some columns of each committed row, as plain values."""
    for _, part in corpus.scan(table, columns):
        # Some clips at a time leave Arrow for Python.
        for batch in part.to_batches(max_chunksize=64):
            yield from zip(*(batch[name].to_pylist() for name in columns), strict=True)


def _hear_clip(clip_id: str, audio: bytes | None, watermark: Watermark) -> Heard:
    try:
        if audio is None:
            raise MissingSource("no audio is stored")
        try:
            wave, rate = soundfile.read(io.BytesIO(audio), dtype="float32")
        except soundfile.LibsndfileError as error:
            raise UndecodableAudio(str(error)) from error
        score = watermark.score(wave, rate)
    except DataError as error:
        return Heard(name=clip_id, failure=f"{type(error).__name__}: {error}")
    return Heard(name=clip_id, duration_s=len(wave) / rate, score=score)


def _mono_blocks(mono: Mono, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    channels = len(mono.peaks)
    for block in blocks:
        yield mono.add(block) / channels
    yield mono.add(np.zeros((0, channels), np.float32), last=True) / channels


def _show(heard: Sequence[Heard], console: Console, *, title: str) -> None:
    table = Table(title=title, title_justify="left")
    table.add_column("path" if title == "Watermark" else "clip", overflow="fold")
    for heading in ("seconds", "score"):
        table.add_column(heading, justify="right")
    table.add_column("verdict", overflow="fold")
    for one in heard:
        if one.failure is not None:
            table.add_row(escape(one.name), "–", "–", f"[red]{escape(one.failure)}[/]")
            continue
        verdict = "[bold green]marked[/]" if one.marked else "no mark"
        table.add_row(escape(one.name), f"{one.duration_s:.2f}", f"{one.score:.2f}", verdict)
    console.print(table)
