"""How right and how complete mined pairs are, against a development set's truth.

`python -m tests.integration.pair_figures CORPUS DEVSET` prints the table for any curated corpus of
it. Sessions are made anew from its clean recordings, since most recordings have one voice.

- precision: pairs of one voice, of all mined pairs whose voices are known;
- gate recall: pairs of one voice that pass both limits, of those that the rules allow, before at
  most k of them are chosen; both clips clean and of 2 s or more;
- target recall: clips with an allowed clean clip of their voice that got a right reference.
"""

import json
import sys
from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table

from jobs.voice_thresholds import encoder_of, with_thresholds
from pipeline.storage import Corpus
from schemas.arrow import CLIPS, DUPLICATES, RECORDINGS, VERDICTS
from stages.mining import (
    COLUMNS,
    MiningConfig,
    Session,
    are_clean,
    embeddings_of,
    mine,
    timeline_of,
)
from stages.voice_pairs import BARRED, VoicePairs

# One woman, recorded in two languages.
SAME = {"allison_es": "allison"}
OVERLAP_S = 0.05


def clean_clips(corpus: Corpus, devset: Path) -> pl.DataFrame:
    """Clips of recordings without degradation, in order, with `voice`: null where several speak."""
    rows = [json.loads(line) for line in (devset / "recordings.jsonl").read_text().splitlines()]
    plain = [row["recording_id"] for row in rows if not row["degradations"]]
    repeats = corpus.read_standing(DUPLICATES, "duplicates", "text_id", ["clip_id"])
    recordings = corpus.read(RECORDINGS, ["recording_id", "uri"]).with_columns(
        name=pl.col("uri").str.split("/").list.last().str.strip_suffix(".flac")
    )
    clips = (
        corpus.read(CLIPS, COLUMNS)
        .join(recordings, on="recording_id")
        .filter(pl.col("name").is_in(plain))
        .join(corpus.read(VERDICTS, ["clip_id", "accepted"]), on="clip_id")
        .with_columns(repeats=pl.col("clip_id").is_in(repeats["clip_id"].implode()))
        .sort("uri", "start_s")
    )
    truth = pl.read_parquet(devset / "ground_truth.parquet")
    voices = []
    for row in clips.iter_rows(named=True):
        heard = truth.filter(
            pl.col("recording_id") == row["name"],
            pl.col("start") < row["end_s"] - OVERLAP_S,
            pl.col("end") > row["start_s"] + OVERLAP_S,
        )["speaker"].unique()
        names = {SAME.get(name, name) for name in heard}
        voices.append(names.pop() if len(names) == 1 else None)
    return clips.with_columns(voice=pl.Series(voices, dtype=pl.String))


def measure(clips: pl.DataFrame, config: MiningConfig) -> Counter[str]:
    """Counts for one session."""
    session = Session(
        session_id="s",
        clips=clips.select(COLUMNS),
        accepted=clips["accepted"].to_numpy(),
        repeats=clips["repeats"].to_numpy(),
    )
    mined = mine(session, config)
    voice = np.array([name or "" for name in clips["voice"]], dtype=object)
    known = (voice[mined.targets] != "") & (voice[mined.references] != "")
    right = known & (voice[mined.targets] == voice[mined.references])
    counts = Counter(pairs=int(known.sum()), right=int(right.sum()))
    embeddings, measured = embeddings_of(session.clips)
    part = session.accepted & ~session.repeats & measured
    clean = part & are_clean(session.clips, config)
    targets, references = np.flatnonzero(part), np.flatnonzero(clean)
    if not references.size:
        return counts
    pairs = VoicePairs(embeddings, timeline_of(session), targets, references, config.block)
    cosines = pairs.cosines(np.arange(targets.size))
    assert config.min_cosine is not None
    voices = pairs.voices(pairs.survey(4 * config.references_per_target), config.min_cosine)
    alike = voices @ voices[np.searchsorted(targets, references)].T
    passed = (cosines >= config.min_cosine) & (alike >= (config.min_voice_cosine or -1))
    same = (voice[targets][:, None] == voice[references]) & (voice[targets] != "")[:, None]
    same &= cosines > BARRED
    rows = clean[targets]
    counts.update(same=int(same[rows].sum()), found=int((passed & same)[rows].sum()))
    served = np.isin(targets, mined.targets[right])
    has = same.any(axis=1) & rows
    counts.update(has=int(has.sum()), served=int((has & served).sum()))
    return counts


def scenarios(clips: pl.DataFrame) -> dict[str, list[pl.DataFrame]]:
    """Sessions as they are, and of several files and voices."""

    def by(frame: pl.DataFrame, column: str) -> list[pl.DataFrame]:
        return [group for _, group in frame.group_by(column, maintain_order=True)]

    def joined(groups: Sequence[pl.DataFrame]) -> list[pl.DataFrame]:
        pairs = [
            pair for pair in combinations(groups, 2) if pair[0]["voice"][0] != pair[1]["voice"][0]
        ]
        return [pl.concat(pair).sort("uri", "start_s") for pair in pairs]

    alone = clips.filter(
        pl.col("voice").is_not_null().all().over("name")
        & (pl.col("voice").n_unique() == 1).over("name")
    )
    return {
        "sessions as declared": by(clips, "name"),
        "all files of a voice": by(alone, "voice"),
        "two files of two voices": joined(by(alone, "name")),
        "two voices, all files": joined(by(alone, "voice")),
        "everything in one session": [clips],
    }


def main(corpus: Corpus, devset: Path, console: Console) -> None:
    """Print the table."""
    config = with_thresholds(MiningConfig(), corpus, encoder_of(corpus))
    clips = clean_clips(corpus, devset)
    table = Table(
        *("sessions", "number", "pairs", "precision", "gate recall", "target recall"),
        title=f"Mined pairs at cosine {config.min_cosine} and voice cosine "
        f"{config.min_voice_cosine}, {clips['accepted'].sum()} accepted clips",
    )
    for name, groups in scenarios(clips).items():
        counts: Counter[str] = Counter()
        for group in groups:
            counts.update(measure(group, config))
        shares = (("right", "pairs"), ("found", "same"), ("served", "has"))
        told = [f"{counts[a] / counts[b]:.4f}" if counts[b] else "–" for a, b in shares]
        table.add_row(name, str(len(groups)), str(counts["pairs"]), *told)
    console.print(table)


if __name__ == "__main__":
    main(Corpus(sys.argv[1]), Path(sys.argv[2]), Console(width=110))
