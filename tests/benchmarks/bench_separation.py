"""What separation does for speech under music that training never heard, and what it costs.

    python -m tests.benchmarks.bench_separation sources --separator FOLDER

`sources` is what jobs.shipped.separator.sources wrote; its held-out speakers and tracks are mixed here.
Word errors are those of tiny.en on English utterances under the same tracks: those of a manifest with
transcripts (`--spoken`), or the few of the bundled recordings.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
import torch
from rich.console import Console
from rich.table import Table
from torchmetrics.functional.audio import scale_invariant_signal_distortion_ratio as si_sdr

from annotators.demucs import Separator
from annotators.dnsmos import Dnsmos
from annotators.music import Music
from annotators.registry import resolve
from annotators.text import error_count
from annotators.whisper import Whisper
from jobs.shipped.separator.mixing import RATE, Sources, Wave, at_snr, rms
from pipeline.sources import list_sources
from stages.separation import SeparationConfig, background, regions
from stages.stnr import stnr_db
from tests.benchmarks.bench_curate import machine
from tests.benchmarks.systems import busy_cores
from tests.stages.planted import devset_utterances

SNRS_DB = (0, 5, 10, 15)
PAUSE_S = 0.4
SECONDS = 10.0
SHORTEST_S = 1.5
CHUNK_S = 30.0


class HeldOut:
    """Speech and music that training never heard."""

    def __init__(self, folder: Path, seed: int = 1) -> None:
        self.sources = Sources.read(folder, "held_out")
        self.rng = np.random.default_rng(seed)
        self.turns = cycle(track for tracks in self.sources.music.values() for track in tracks)

    def speech(self, seconds: float) -> Wave:
        """Utterances of one speaker."""
        out, at = np.zeros(round(seconds * RATE), np.float32), 0
        speakers = list(self.sources.speech.values())
        mine = speakers[self.rng.integers(len(speakers))]
        while at < out.size:
            wave = mine[self.rng.integers(len(mine))]
            end = min(out.size, at + wave.size)
            out[at:end] = wave[: end - at] / rms(wave) * 0.05
            at = end + round(PAUSE_S * RATE)
        return out

    def music(self, size: int) -> Wave:
        """A stretch that is not silent, of one track after the other: some are much harder."""
        track = next(self.turns)
        while True:
            begin = int(self.rng.integers(0, max(1, track.size - size)))
            found = np.resize(track[begin : begin + size], size)
            if rms(found) > 1e-3:
                return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables. Exit code 1 when a bar is missed."""
    parser = argparse.ArgumentParser(prog="bench_separation", description=__doc__.split("\n")[0])
    parser.add_argument("sources", type=Path)
    parser.add_argument("--separator", required=True, help="name or folder")
    parser.add_argument("--detector", default="music", help="name or folder")
    parser.add_argument("--spoken", help="manifest of English utterances with their transcripts")
    parser.add_argument("--mixtures", type=int, default=48, help="of each kind")
    parser.add_argument("--out", type=Path, default=Path("bench-out"))
    options = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 120)
    torch.set_num_threads(1)
    console.print(f"[bold]Machine[/bold]  {machine()['cpu']}, one core, {machine()['date']}")
    busy = busy_cores()
    separator = Separator(resolve(options.separator).path)
    detector = Music(resolve(options.detector).path)
    held = HeldOut(options.sources)
    found: dict[str, Any] = {"machine": machine(), "busy_before": busy}
    found["distortion"] = distortion(separator, held, options.mixtures, console)
    found["words"] = words(separator, held, utterances(options.spoken), console)
    found["detection"] = detection(detector, held, options.mixtures, console)
    found["cost"] = cost(separator, detector, held, console)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "separation.json").write_text(json.dumps(found, indent=1))
    return show_bars(found, console)


def distortion(
    separator: Separator, held: HeldOut, number: int, console: Console
) -> dict[str, dict[str, float]]:
    """SI-SDR and DNSMOS, before and after, by the ratio of speech to music."""
    quality = Dnsmos(resolve("dnsmos").path)
    table = Table(
        *("speech to music", "SI-SDR before", "after", "better by", "worst"),
        *("BAK before", "after", "OVRL before", "after"),
        title="Speech under music that training never heard",
    )
    found = {}
    for snr in (*SNRS_DB, None):
        rows = []
        for _ in range(number):
            speech = held.speech(SECONDS)
            below = np.zeros_like(speech)
            if snr is not None:
                below = at_snr(speech, held.music(speech.size), snr)
            mixed = speech + below
            said = separator.speech(mixed[:, None])[:, 0]
            before, after = quality.score([mixed, said])
            distances = [
                float(si_sdr(torch.from_numpy(x), torch.from_numpy(speech))) for x in (mixed, said)
            ]
            rows.append((*distances, before.bak, after.bak, before.ovrl, after.ovrl))
        mean = np.mean(rows, axis=0)
        better = [row[1] - row[0] for row in rows]
        key = "clean" if snr is None else f"{snr} dB"
        found[key] = {
            "before": float(mean[0]),
            "after": float(mean[1]),
            "better": float(np.mean(better)),
            "bak": float(mean[3] - mean[2]),
        }
        distances_shown = [f"{x:.1f}" for x in (*mean[:2], np.mean(better), min(better))]
        if snr is None:  # against itself
            distances_shown = ["–", distances_shown[1], "–", "–"]
        table.add_row(key, *distances_shown, *(f"{value:.2f}" for value in mean[2:]))
    console.print(table)
    return found


def utterances(manifest: str | None) -> list[tuple[Wave, str]]:
    """English utterances at 16 kHz with their texts."""
    if manifest is None:
        bundled = devset_utterances(SHORTEST_S)
        return [(one.wave, one.text) for one in bundled if one.language == "en" and one.text]
    found = []
    for source in list_sources(manifest):
        wave, rate = sf.read(source.uri, dtype="float32")
        assert rate == RATE, source.uri
        if source.language == "en" and source.transcript and wave.size >= SHORTEST_S * RATE:
            found.append((wave, source.transcript))
    return found


def words(
    separator: Separator, held: HeldOut, spoken: Sequence[tuple[Wave, str]], console: Console
) -> dict[str, float]:
    """Word error rate over all words, of the utterances as they are, under music, and separated.

    As in a run, whole recordings are separated, and the clips of one are read together.
    """
    asr = Whisper(resolve("tiny.en").path)
    number = sum(error_count(text, text, "en").units for _, text in spoken)
    title = f"tiny.en on {len(spoken)} English utterances, {number} words"
    table = Table("speech to music", "WER before", "after", title=title)
    found = {}
    for snr in (None, 10, 5, 0):
        wrong = np.zeros(2)
        for group in recordings(spoken):
            speech, spans = recording([wave for wave, _ in group])
            below = np.zeros_like(speech)
            if snr is not None:
                below = at_snr(speech, held.music(speech.size), snr)
            mixed = speech + below
            for way, wave in enumerate((mixed, separator.speech(mixed[:, None])[:, 0])):
                heard = asr.transcribe([wave[start:end] for start, end in spans], "en")
                wrong[way] += sum(
                    error_count(text, one.text, "en").errors
                    for (_, text), one in zip(group, heard, strict=True)
                )
        before, after = (wrong / number).tolist()
        key = "clean" if snr is None else f"{snr} dB"
        table.add_row(key, f"{before:.1%}", f"{after:.1%}")
        found |= {f"{key} before": before, f"{key} after": after}
    console.print(table)
    return found


def recordings(spoken: Sequence[tuple[Wave, str]]) -> list[list[tuple[Wave, str]]]:
    """Utterances in groups of about `CHUNK_S`."""
    groups: list[list[tuple[Wave, str]]] = [[]]
    for one in spoken:
        groups[-1].append(one)
        if sum(wave.size / RATE + PAUSE_S for wave, _ in groups[-1]) > CHUNK_S:
            groups.append([])
    return [group for group in groups if group]


def recording(waves: Sequence[Wave]) -> tuple[Wave, list[tuple[int, int]]]:
    """Utterances with pauses between them, and where each is, a little of the pauses with it."""
    pause = np.zeros(round(PAUSE_S * RATE), np.float32)
    parts, spans, at = [pause], [], pause.size
    for wave in waves:
        spans.append((at - pause.size // 4, at + wave.size + pause.size // 4))
        parts += [wave, pause]
        at += wave.size + pause.size
    return np.concatenate(parts), spans


def detection(detector: Music, held: HeldOut, number: int, console: Console) -> dict[str, float]:
    """Share of half-minute chunks that separation would be sent to."""
    config = SeparationConfig()
    table = Table("chunks", "sent to separation", "share of their time", title="Detector")
    found = {}
    for snr in (*SNRS_DB, 20, None):
        times = []
        for _ in range(number):
            wave = held.speech(CHUNK_S)
            if snr is not None:
                wave = wave + at_snr(wave, held.music(wave.size), snr)
            wave = (wave * 10 ** (held.rng.uniform(-12, 6) / 20)).astype(np.float32)
            there = background(detector.probs(wave), stnr_db(wave), config)
            spans = regions(there, CHUNK_S, config)
            times.append(sum(span.end_s - span.start_s for span in spans) / CHUNK_S)
        key = "clean" if snr is None else f"{snr} dB"
        found[key] = float(np.mean(np.array(times) > 0))
        table.add_row(key, f"{found[key]:.1%}", f"{np.mean(times):.1%}")
    console.print(table)
    return found


def cost(
    separator: Separator, detector: Music, held: HeldOut, console: Console
) -> dict[str, float]:
    """Seconds of one core for a second of audio."""
    wave = held.speech(60.0)
    found = {}
    for name, call in (
        ("detector", lambda: (detector.probs(wave), stnr_db(wave))),
        ("separator", lambda: separator.speech(wave[:, None])),
    ):
        call()
        began = time.process_time()
        call()
        found[name] = (time.process_time() - began) / 60
        console.print(f"{name}: {found[name]:.4f} s of one core for a second of audio")
    return found


def show_bars(found: dict[str, Any], console: Console) -> int:
    """Each bar and whether it holds."""
    distortion, words, detection = found["distortion"], found["words"], found["detection"]
    fewer = 1 - words["5 dB after"] / max(words["5 dB before"], 1e-9)
    checks = (
        ("SI-SDR at 0 dB better by", distortion["0 dB"]["better"], ">=", 7.0),
        ("SI-SDR at 5 dB better by", distortion["5 dB"]["better"], ">=", 7.0),
        ("SI-SDR at 10 dB better by", distortion["10 dB"]["better"], ">=", 4.0),
        ("SI-SDR of clean speech", distortion["clean"]["after"], ">=", 20.0),
        ("DNSMOS BAK at 5 dB better by", distortion["5 dB"]["bak"], ">=", 0.0),
        ("word errors at 5 dB, fewer by", fewer, ">=", 0.3),
        (
            "WER of clean speech, worse by",
            words["clean after"] - words["clean before"],
            "<=",
            0.005,
        ),
        ("chunks with music found", min(detection[f"{s} dB"] for s in SNRS_DB), ">=", 0.95),
        ("clean chunks sent", detection["clean"], "<=", 0.03),
        ("detector, s of a core per s", found["cost"]["detector"], "<=", 0.02),
        ("separator, s of a core per s", found["cost"]["separator"], "<=", 0.15),
    )
    missed = 0
    for name, value, sign, bound in checks:
        held = value >= bound if sign == ">=" else value <= bound
        missed += not held
        console.print(f"{'PASS' if held else 'FAIL'}  {name} {value:.3f} (bar {sign} {bound:g})")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
