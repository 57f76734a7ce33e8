"""How well the watermark is found, how often where it is not, what it costs the ear, and its speed.

Real speech, by default the bundled recordings cut into clips of 1 to 10 s; `--speech` takes any
folder of recordings. Detection is after each of what clips go through, and after worse.
"""

import argparse
import sys
import time
from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.table import Table

from annotators.dnsmos import Dnsmos
from annotators.registry import resolve
from annotators.watermark import THRESHOLD, Watermark
from pipeline.audio import at_model_rate
from pipeline.decoders import open_decoder
from pipeline.sources import list_sources
from tests.attacks import (
    EVERYDAY,
    Attack,
    Wave,
    chain,
    cut,
    faster,
    flac,
    gain,
    mp3,
    noise,
    resampled,
)
from tests.benchmarks.systems import ROOT

RATES = (16_000, 48_000)
LENGTHS_S = (1.0, 10.0)
QUIETEST = 0.003
"""RMS of a clip that holds speech."""
LEAST_FOUND, MOST_FALSE, MOST_DNSMOS = 99.0, 1.0, 0.05

WORSE: dict[str, Attack] = {
    "FLAC, 16 kHz, MP3 32 kbit/s": chain(flac, resampled, lambda w, r: mp3(w, r, 32)),
    "8 kHz": lambda wave, rate: resampled(wave, rate, 8_000),
    "a tenth as loud, 16 bit": chain(gain(0.1), flac),
    "white noise at 30 dB": noise(30),
    "white noise at 20 dB": noise(20),
    "middle second alone": lambda wave, rate: (_middle(wave, rate), rate),
    "first half cut off": lambda wave, rate: cut(wave.size / rate / 2)(wave, rate),
    "0.1 % faster (speed and pitch)": faster(1.001),
    "1 % faster (speed and pitch)": faster(1.01),
    "5 % faster (speed and pitch)": faster(1.05),
    "two clips mixed at equal power": lambda wave, rate: (_mixed(wave), rate),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 1 when a bar was missed."""
    parser = argparse.ArgumentParser(prog="bench_watermark", description=__doc__.split("\n")[0])
    parser.add_argument("--speech", default=str(ROOT / "tests" / "data" / "devset" / "audio"))
    parser.add_argument("--clips", type=int, default=200, help="to be marked, per sample rate")
    parser.add_argument("--real", type=int, default=2000, help="at most, for false positives")
    options = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 120)
    clips = real_clips(options.speech, options.real)
    rng = np.random.default_rng(1)
    chosen = rng.permutation(len(clips))[: options.clips]
    console.print(
        f"{len(clips)} clips, {sum(map(len, clips)) / 16_000 / 60:.0f} minutes; "
        f"{len(chosen)} of them marked at each of {RATES}. Threshold {THRESHOLD}."
    )
    watermark = Watermark()
    held = [show_detection(console, watermark, [clips[i] for i in chosen], rate) for rate in RATES]
    held.append(show_false(console, watermark, clips))
    return 0 if all(held) else 1


def real_clips(folder: str, most: int) -> list[Wave]:
    """Clips of 1 to 10 s at 16 kHz that hold speech; longer recordings are cut at random."""
    rng = np.random.default_rng(0)
    clips = []
    for source in list_sources(folder):
        with open_decoder(source.uri) as decoder:
            blocks = list(decoder.blocks(0, None))
            rate = decoder.sample_rate
        wave = at_model_rate(np.concatenate(blocks).mean(axis=1), rate)
        low, high = (int(seconds * 16_000) for seconds in LENGTHS_S)
        while wave.size >= low:
            size = wave.size if wave.size <= high else int(rng.integers(low, high))
            clip, wave = wave[:size], wave[size:]
            if np.sqrt(np.mean(np.square(clip))) >= QUIETEST:
                clips.append(clip)
    return [clips[i] for i in rng.permutation(len(clips))[:most]]


def show_detection(
    console: Console, watermark: Watermark, clips: Sequence[Wave], rate: int
) -> bool:
    """Share found after each attack, the change of DNSMOS, and seconds; False if a bar is missed."""
    at_rate = [resampled(clip, 16_000, rate)[0].clip(-1, 1) for clip in clips]
    started = time.process_time()
    marked = [watermark.mark(clip, rate) for clip in at_rate]
    mark_s = time.process_time() - started
    started = time.process_time()
    for clip in marked:
        watermark.score(clip, rate)
    score_s = time.process_time() - started
    table = Table(title=f"Marked at {rate} Hz: {len(clips)} clips", title_justify="left")
    table.add_column("after", no_wrap=True)
    for heading in ("found %", "score, mean", "lowest", "below 2 s: found %"):
        table.add_column(heading, justify="right")
    short = np.array([clip.size < 2 * rate for clip in at_rate])
    held = True
    for name, attack in (EVERYDAY | WORSE).items():
        scores = np.array([watermark.score(*attack(clip, rate)) for clip in marked])
        found = 100 * np.mean(scores >= THRESHOLD)
        held &= bool(name not in EVERYDAY or found >= LEAST_FOUND)
        of_short = f"{100 * np.mean(scores[short] >= THRESHOLD):.1f}" if short.any() else "–"
        table.add_row(name, f"{found:.1f}", f"{scores.mean():.2f}", f"{scores.min():.2f}", of_short)
    console.print(table)
    pairs = list(zip(at_rate, marked, strict=True))
    snr = [10 * np.log10(np.sum(a**2) / np.sum((b - a) ** 2)) for a, b in pairs]
    change = _dnsmos_change(pairs, rate)
    seconds = sum(clip.size for clip in at_rate) / rate
    console.print(
        f"DNSMOS overall {change.mean():+.3f} in the mean (bar ±{MOST_DNSMOS}), "
        f"{np.quantile(change, 0.05):+.3f} to {np.quantile(change, 0.95):+.3f} in nine of ten; the "
        f"mark is {np.mean(snr):.1f} dB below the speech ({min(snr):.1f} at the loudest).\n"
        f"Marking takes {1000 * mark_s / seconds:.1f} ms of one core for a second of audio, "
        f"scoring {1000 * score_s / seconds:.1f} ms.",
        highlight=False,
    )
    return held and abs(float(change.mean())) < MOST_DNSMOS


def show_false(console: Console, watermark: Watermark, clips: Sequence[Wave]) -> bool:
    """Share of real clips that pass for marked; False if the bar is missed."""
    table = Table(title=f"Not marked: {len(clips)} real clips", title_justify="left")
    table.add_column("after", no_wrap=True)
    for heading in ("false positives %", "number", "highest score", "p99"):
        table.add_column(heading, justify="right")
    held = True
    for name in ("as marked", "FLAC, 16 kHz, MP3 64 kbit/s"):
        scores = np.array([watermark.score(*EVERYDAY[name](clip, 16_000)) for clip in clips])
        false = scores >= THRESHOLD
        held &= bool(100 * false.mean() <= MOST_FALSE)
        table.add_row(
            "nothing" if name == "as marked" else name,
            f"{100 * false.mean():.2f}",
            f"{false.sum()}",
            f"{scores.max():.2f}",
            f"{np.quantile(scores, 0.99):.2f}",
        )
    console.print(table)
    return held


def _dnsmos_change(pairs: Sequence[tuple[Wave, Wave]], rate: int) -> np.ndarray:
    """(clips,) overall quality with the mark minus without it."""
    dnsmos = Dnsmos(resolve("dnsmos").path)
    before = dnsmos.score([at_model_rate(clip, rate) for clip, _ in pairs])
    after = dnsmos.score([at_model_rate(clip, rate) for _, clip in pairs])
    return np.array([b.ovrl - a.ovrl for a, b in zip(before, after, strict=True)])


def _middle(wave: Wave, rate: int) -> Wave:
    start = (wave.size - rate) // 2
    return wave[start : start + rate]


def _mixed(wave: Wave) -> Wave:
    """With itself backwards: speech of the same voice and power that carries no mark."""
    return (wave + wave[::-1]) / 2


if __name__ == "__main__":
    sys.exit(main())
