"""Figures of a model card: what a recogniser and a voice encoder make of a checkpoint's speech.

    python -m jobs.shipped.measure CORPUS --checkpoint CHECKPOINT

Texts are those of the corpus, said by the voice that they were recorded with: once texts that
training saw, once texts that were held out. The last row is the recordings themselves, as the
AudioVAE gives them back, which no model of this AudioVAE can be better than.
"""

import argparse
import io
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
import soundfile
import soxr
import torch
from rich.console import Console

from annotators.ge2e import Ge2e
from annotators.registry import checkpoint_folder, resolve
from annotators.text import char_error_rate, normalised
from annotators.whisper import Whisper
from model_core.audio import latents_of
from model_core.checkpoint import load_checkpoint
from model_core.flow_matching import SolverConfig
from model_core.synthesis import Recording, SpeechRequest, Synthesizer
from pipeline.storage import Corpus
from schemas.arrow import CLIPS, SAMPLES
from schemas.rows import Wave

RATE = 16_000
SHOWN = 6
"""Texts of each kind that are told beside what was heard."""


class Line(NamedTuple):
    """A text, the clip that says it, and another one of the same voice."""

    text: str
    clip: Wave
    voice: Wave


class Spoken(NamedTuple):
    """What was made of a line, at 16 kHz."""

    wave: Wave
    ended: bool


def main(root: str, checkpoint: str, number: int, cfg: float, steps: int) -> None:
    """Print the table."""
    opened = load_checkpoint(checkpoint_folder(checkpoint))
    speaker = Synthesizer(opened, solver=SolverConfig(num_steps=steps, cfg=cfg))
    asr = Whisper(resolve("tiny.en").path)
    voices = Ge2e(resolve("ge2e").path)
    table = [
        "| texts | number | CER, at most 100 % each | ended by itself | cosine to the voice | seconds, × recorded |",
        "|---|---|---|---|---|---|",
    ]
    for split, name in (("train", "seen in training"), ("validation", "held out")):
        lines = list(lines_of(Corpus(root), split, number))
        table += told(name, lines, spoken(speaker, lines), asr, voices)
    back = passed_through(speaker, lines)
    table += told("held out, the recordings through the AudioVAE", lines, back, asr, voices)
    console = Console()
    for row in table:
        console.print(row, markup=False, highlight=False, soft_wrap=True)


def lines_of(corpus: Corpus, split: str, number: int) -> Iterator[Line]:
    """The longest text of each recording of a split, in the order of their ids, each beside another
    clip's voice; of what was held out, only texts that no recording of the training says as well.
    """
    rows = corpus.read(SAMPLES, ["target", "text", "split", "layout"]).filter(layout="text")
    rows = rows.with_columns(
        clip_id=pl.col("target").struct.field("clip_id"),
        said=pl.col("text").map_elements(lambda text: normalised(text, "en"), pl.String),
    )
    sounds = corpus.read(CLIPS, ["clip_id", "recording_id", "session_id", "duration_s", "audio"])
    seen = rows.filter(split="train")["said"]
    wanted = rows.filter(split=split).join(sounds, on="clip_id")
    if split != "train":
        wanted = wanted.filter(~pl.col("said").is_in(seen.implode()))
    wanted = wanted.filter(pl.col("text").str.len_chars() >= 10).sort("duration_s", "clip_id")
    wanted = wanted.unique("recording_id", keep="last").sort("clip_id").head(number)
    long = sounds.filter(pl.col("duration_s").is_between(3, 8)).sort("clip_id")
    for text, clip_id, session, audio in wanted.select(
        "text", "clip_id", "session_id", "audio"
    ).iter_rows():
        others = long.filter((pl.col("session_id") == session) & (pl.col("clip_id") != clip_id))
        voice = others["audio"][0] if others.height else audio
        yield Line(text, _wave(audio), _wave(voice))


def spoken(speaker: Synthesizer, lines: Sequence[Line]) -> list[Spoken]:
    """Each text in its voice."""
    requests = (
        SpeechRequest(text=line.text, reference=_recording(line.voice), seed=number)
        for number, line in enumerate(lines)
    )
    found = dict(speaker.speak(requests))
    return [
        Spoken(_at_model_rate(found[i].wave.numpy(), found[i].sample_rate), found[i].stopped)
        for i in range(len(lines))
    ]


def passed_through(speaker: Synthesizer, lines: Sequence[Line]) -> list[Spoken]:
    """The recordings after the AudioVAE's encoder and decoder."""
    found = []
    for line in lines:
        wave = torch.from_numpy(line.clip)
        patches = speaker.encode_reference(Recording(wave, RATE))
        with torch.inference_mode():
            back = speaker.vae.decode(latents_of(patches)[None])[0, 0]
        found.append(Spoken(_at_model_rate(back.float().numpy(), speaker.sample_rate), True))
    return found


def told(
    name: str, lines: Sequence[Line], made: Sequence[Spoken], asr: Whisper, voices: Ge2e
) -> list[str]:
    """A row of the table, and some of the texts beside what was heard."""
    heard = [text.text for text in asr.transcribe([one.wave for one in made], "en", alone=True)]
    lengths = [len(normalised(line.text, "en")) for line in lines]
    # A recogniser that loops on what it cannot understand would count many times.
    rates = [
        min(1.0, char_error_rate(line.text, text, "en"))
        for line, text in zip(lines, heard, strict=True)
    ]
    cer = float(np.dot(rates, lengths) / sum(lengths))
    ours = voices.embed([one.wave for one in made])
    theirs = voices.embed([line.clip for line in lines])
    cosines = [float(np.dot(a.embedding, b.embedding)) for a, b in zip(ours, theirs, strict=True)]
    ratio = sum(len(one.wave) for one in made) / sum(len(line.clip) for line in lines)
    ended = np.mean([one.ended for one in made])
    row = f"| {name} | {len(lines)} | {cer:.1%} | {ended:.0%} | {np.mean(cosines):.3f} | {ratio:.2f} |"
    shown = list(zip(lines, heard, rates, strict=True))[:SHOWN]
    return [row, *(f"    {rate:5.0%}  {line.text!r} -> {text!r}" for line, text, rate in shown)]


def _wave(audio: bytes) -> Wave:
    wave, rate = soundfile.read(io.BytesIO(audio), dtype="float32")
    return _at_model_rate(wave, rate)


def _at_model_rate(wave: Wave, rate: int) -> Wave:
    return np.asarray(soxr.resample(wave, rate, RATE, quality="HQ"), np.float32)


def _recording(wave: Wave) -> Recording:
    return Recording(torch.from_numpy(wave), RATE)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("corpus")
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--number", type=int, default=40, help="texts of each kind")
    parser.add_argument("--cfg", type=float, default=2.0)
    parser.add_argument("--steps", type=int, default=10)
    given = parser.parse_args()
    main(given.corpus, given.checkpoint, given.number, given.cfg, given.steps)
