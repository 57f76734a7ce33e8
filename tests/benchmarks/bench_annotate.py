"""`make bench`: what it costs to measure, level and describe clips, on one core.

Measuring is compared with its floor, the calls into Praat and pyloudnorm alone, on the same real
clips in the same run. Levels, traits and sentences are timed over a made-up corpus.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import parselmouth
import polars as pl
import pyloudnorm
import soundfile as sf
from parselmouth.praat import call
from rich.console import Console
from rich.table import Table

from annotators.verifier import VerifierConfig
from schemas.attributes import HeardClip, Traits
from stages.acoustics import AcousticsStage
from stages.description import Draft, described
from stages.experts import Experts, ExpertsConfig
from stages.levels import levels_of, measured
from stages.traits import traits_of
from tests.benchmarks.systems import busy_cores

DEVSET = Path(__file__).parents[1] / "data" / "devset"
CLIPS = 1_000_000
SENTENCES = 5_000
RATE = 16_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="bench_annotate", description=__doc__.split("\n")[0])
    parser.add_argument("--clips", type=int, default=CLIPS, help="of the made-up corpus")
    options = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 110)
    busy = busy_cores()
    clips = real_clips()
    audio_s = sum(clip.duration_s for clip in clips)
    experts = Experts(ExpertsConfig())
    experts.setup()
    heard = AcousticsStage().process(clips)
    table = Table("step", "over", "seconds", "each", title="annotate, one core")
    rows: list[tuple[str, str, float, str]] = []

    def timed(
        name: str, over: str, work: Callable[[], object], each: Callable[[float], str]
    ) -> None:
        started = time.perf_counter()
        work()
        seconds = time.perf_counter() - started
        rows.append((name, over, seconds, each(seconds)))

    def of_real_time(seconds: float) -> str:
        return f"{seconds / audio_s:.2%} of real time"

    told = f"{len(clips)} clips, {audio_s:.0f} s"
    timed("floor: Praat and pyloudnorm", told, lambda: floor(clips), of_real_time)
    timed("acoustics", told, lambda: AcousticsStage().process(clips), of_real_time)
    timed("experts (acoustic)", told, lambda: experts.process(heard), of_real_time)
    frame = made_up(options.clips)
    found: list[pl.DataFrame] = []

    def level() -> None:
        found.append(traits_of(frame, levels_of(measured(frame)), 0.3))

    timed(
        "levels and traits",
        f"{options.clips:,} clips",
        level,
        lambda s: f"{s / options.clips * 1e6:.1f} µs",
    )
    drafts = [
        Draft(clip_id=row["clip_id"], language="en", traits=Traits(**row))
        for row in found[0].head(SENTENCES).iter_rows(named=True)
    ]
    config = VerifierConfig()
    timed(
        "write and verify, English",
        f"{SENTENCES:,} clips",
        lambda: [described(draft, config) for draft in drafts],
        lambda s: f"{s / SENTENCES * 1e3:.2f} ms",
    )
    for name, over, seconds, each in rows:
        table.add_row(name, over, f"{seconds:.2f}", each)
    console.print(table)
    console.print(
        f"acoustics: {rows[1][2] / rows[0][2]:.2f} × its floor; {busy:.1f} cores were busy before."
    )
    return 0


def real_clips() -> list[HeardClip]:
    """True utterances of the bundled recordings."""
    truth = pl.read_parquet(DEVSET / "ground_truth.parquet")
    clips = []
    for path in sorted((DEVSET / "audio").glob("*.flac")):
        wave, _ = sf.read(path, dtype="float32")
        for row in truth.filter(pl.col("recording_id") == path.stem).to_dicts():
            piece = wave[round(row["start"] * RATE) : round(row["end"] * RATE)]
            clip = HeardClip(
                clip_id=str(len(clips)), attempt=1, wave=piece, sample_rate=RATE, wave_16k=piece
            )
            clips.append(clip)
    return clips


def floor(clips: Sequence[HeardClip]) -> None:
    """Pitch twice, periods, jitter, shimmer, formants and loudness, and nothing around them."""
    meter = pyloudnorm.Meter(RATE)
    for clip in clips:
        wave = clip.wave.astype(np.float64)
        sound = parselmouth.Sound(wave, RATE)
        for low, high in ((60, 700), (120, 400)):
            pitch = sound.to_pitch_ac(time_step=0.01, pitch_floor=low, pitch_ceiling=high)
        points = call([sound, pitch], "To PointProcess (cc)")
        call(points, "Get jitter (local)", 0, 0, 0.0001, 0.02, 1.3)
        call([sound, points], "Get shimmer (local)", 0, 0, 0.0001, 0.02, 1.3, 1.6)
        sound.to_formant_burg(time_step=0.01, max_number_of_formants=5, maximum_formant=5500)
        if wave.size > 0.4 * RATE:
            meter.integrated_loudness(wave)


def made_up(number: int) -> pl.DataFrame:
    """Measures as a corpus of several voices and languages has them."""
    rng = np.random.default_rng(0)
    male = rng.random(number) < 0.5
    return pl.DataFrame(
        {
            "clip_id": [f"c{i}" for i in range(number)],
            "f0_median_hz": np.where(male, 115, 205) * 2 ** (rng.normal(0, 2, number) / 12),
            "f0_range_st": rng.uniform(4, 14, number),
            "jitter": np.exp(rng.normal(-3.9, 0.3, number)),
            "shimmer": np.exp(rng.normal(-2.7, 0.3, number)),
            "hnr_db": rng.normal(16, 2, number),
            "alpha_ratio_db": rng.normal(-16, 3, number),
            "loudness_lufs": rng.normal(-24, 4, number),
            "pause_ratio": rng.uniform(0, 0.3, number),
            "num_pauses": rng.integers(0, 4, number),
            "emphasis": rng.uniform(0, 1.5, number),
            "gender": np.where(male, "male", "female"),
            "gender_confidence": rng.uniform(0.7, 1, number),
            "age": np.full(number, "adult"),
            "age_confidence": rng.uniform(0.7, 1, number),
            "language": rng.choice(["en", "zh", "es"], number),
            "speaker": np.char.add("s", rng.integers(0, max(1, number // 100), number).astype(str)),
            "session_id": np.full(number, "s"),
            "chars_per_s": np.exp(rng.normal(2.6, 0.3, number)),
            "snr_db": np.full(number, 40.0),
        }
    ).with_columns(
        pl.lit(None, pl.String).alias("emotion"),
        *(
            pl.lit(None, pl.Float64).alias(name)
            for name in ("emotion_confidence", "arousal", "valence")
        ),
    )


if __name__ == "__main__":
    sys.exit(main())
