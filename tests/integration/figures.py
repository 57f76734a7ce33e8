"""How good a curated corpus is, against a development set's truth, per condition.

`python -m tests.integration.figures CORPUS DEVSET` prints the table for any pair.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table
from scipy.ndimage import binary_dilation
from whisper_normalizer.english import EnglishTextNormalizer

from pipeline.storage import Corpus
from schemas.arrow import CLIPS, RECORDINGS, VERDICTS

FRAME_S = 0.01
COLLAR_S = 0.25
COLLAR = np.ones(2 * round(COLLAR_S / FRAME_S) + 1, bool)
# The truth's own resolution: an edge this far inside a word is on its border.
EDGE_SLACK_S = 0.02


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """One recording, or all of one condition."""

    recordings: int
    clips: int
    accepted: int
    heard_frames: int
    heard_right: int
    """Frames heard as speech with true speech within the collar."""
    real_frames: int
    real_found: int
    """Frames of true speech with heard speech within the collar."""
    words: int
    word_errors: int
    edges: int
    edges_in_words: int

    @property
    def f1(self) -> float:
        precision = self.heard_right / max(1, self.heard_frames)
        recall = self.real_found / max(1, self.real_frames)
        return 2 * precision * recall / max(1e-9, precision + recall)

    @property
    def wer(self) -> float:
        return self.word_errors / self.words if self.words else float("nan")

    @property
    def accepted_share(self) -> float:
        return self.accepted / self.clips if self.clips else float("nan")


def condition_of(row: dict[str, Any]) -> str:
    """Clean wideband, meeting, 8 kHz source, or what was done to the recording."""
    kinds = [f"{d['type']}{d.get('snr_db') or ''}" for d in row["degradations"]]
    if row["recording_id"].startswith("en_ami"):
        return "meeting"
    if kinds:
        narrow = row["source_sample_rate"] == 8_000 and kinds != ["bandlimit8k"]
        return kinds[0] + (" of 8 kHz" if narrow else "")
    return "clean 8 kHz source" if row["source_sample_rate"] == 8_000 else "clean wideband"


def frames(spans: list[tuple[float, float]], num_frames: int) -> np.ndarray:
    mask = np.zeros(num_frames, bool)
    for start, end in spans:
        mask[round(start / FRAME_S) : round(end / FRAME_S)] = True
    return mask


def measure(corpus: Corpus, devset: Path) -> dict[str, tuple[str, str, Figures]]:
    """Recording name → (condition, language, figures)."""
    columns = ["clip_id", "recording_id", "start_s", "end_s", "duration_s", "speech", "text_asr"]
    clips = corpus.read(CLIPS, columns).join(corpus.read(VERDICTS), on="clip_id")
    names = {
        row["recording_id"]: Path(row["uri"]).stem
        for row in corpus.read(RECORDINGS, ["recording_id", "uri"]).to_dicts()
    }
    clips = clips.with_columns(name=pl.col("recording_id").replace_strict(names))
    regions = pl.read_parquet(devset / "speech_regions.parquet")
    truth = pl.read_parquet(devset / "ground_truth.parquet").sort("start")
    normalise = EnglishTextNormalizer()
    found = {}
    for line in (devset / "recordings.jsonl").read_text().splitlines():
        row = json.loads(line)
        name = row["recording_id"]
        mine = clips.filter(pl.col("name") == name).sort("start_s")
        spoken = [
            (region["start"], region["end"])
            for region in regions.filter(pl.col("recording_id") == name).to_dicts()
        ]
        num_frames = round(row["duration_s"] / FRAME_S) + 1
        real = frames(spoken, num_frames)
        heard = frames(
            [
                (clip["start_s"] + span["start_s"], clip["start_s"] + span["end_s"])
                for clip in mine.to_dicts()
                for span in clip["speech"]
            ],
            num_frames,
        )
        texts = truth.filter(pl.col("recording_id") == name)["text"].to_list()
        words = errors = 0
        if row["language"] == "en" and all(texts) and mine["text_asr"].null_count() == 0:
            out = jiwer.process_words(
                normalise(" ".join(texts)), normalise(" ".join(mine["text_asr"]))
            )
            words = out.hits + out.substitutions + out.deletions
            errors = out.substitutions + out.deletions + out.insertions
        edges = [*mine["start_s"], *mine["end_s"]]
        inside = [
            edge
            for edge in edges
            if any(a + EDGE_SLACK_S < edge < b - EDGE_SLACK_S for a, b in spoken)
        ]
        figures = Figures(
            recordings=1,
            clips=mine.height,
            accepted=int(mine["accepted"].sum()),
            heard_frames=int(np.sum(heard)),
            heard_right=int(np.sum(heard & binary_dilation(real, COLLAR))),
            real_frames=int(np.sum(real)),
            real_found=int(np.sum(real & binary_dilation(heard, COLLAR))),
            words=words,
            word_errors=errors,
            edges=len(edges),
            edges_in_words=len(inside),
        )
        found[name] = (condition_of(row), row["language"], figures)
    return found


def total(parts: list[Figures]) -> Figures:
    return Figures(
        **{
            name: sum(getattr(part, name) for part in parts)
            for name in Figures.__dataclass_fields__
        }
    )


def by_condition(measured: dict[str, tuple[str, str, Figures]]) -> dict[str, Figures]:
    conditions = sorted({condition for condition, _, _ in measured.values()})
    return {
        wanted: total([f for condition, _, f in measured.values() if condition == wanted])
        for wanted in conditions
    }


def show(rows: dict[str, Figures], console: Console) -> None:
    table = Table(
        *("condition", "recordings", "clips", "accepted", "frame F1", "WER", "edges in words"),
        title="Against the truth",
    )
    for condition, f in [*rows.items(), ("all", total(list(rows.values())))]:
        table.add_row(
            condition,
            str(f.recordings),
            str(f.clips),
            f"{f.accepted_share:.0%}",
            f"{f.f1:.4f}",
            f"{f.wer:.2%}" if f.words else "–",
            f"{f.edges_in_words} of {f.edges}",
        )
    console.print(table)


if __name__ == "__main__":
    show(by_condition(measure(Corpus(sys.argv[1]), Path(sys.argv[2]))), Console(width=110))
