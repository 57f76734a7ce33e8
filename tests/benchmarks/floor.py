"""The least that these models can cost: each one alone, at its best setting, with nothing around.

As many processes as cores, each with one thread; models are open and audio is decoded before a
clock starts; the processes begin together and take the next piece of work from one counter, the
longest first. The sum over the models is what a pipeline could reach that did nothing but them.

Run as `python -m tests.benchmarks.floor FOLDER RESULT.json`.
"""

import json
import multiprocessing as mp
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.audio import Wave, read_folder

CORES = len(os.sched_getaffinity(0))
SAMPLE_RATE = 16_000
MODELS = ("vad", "transcription", "dnsmos", "speaker")
ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS")}

Work = Callable[[list[Wave]], int]
"""Takes the waves of one recording; returns how many things it found, so none is optimised away."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Timed:
    """What one process did for one model."""

    model: str
    started: float
    ended: float
    """Seconds of the machine's monotonic clock, which all processes share."""
    found: int


def open_model(model: str) -> Work:
    """The model with the batches that the stages use, as work over one recording's waves."""
    from annotators.registry import resolve

    if model == "vad":
        from annotators.silero import Silero

        silero = Silero(resolve("silero").path)
        return lambda waves: sum(len(silero.probs(wave)) for wave in waves)
    if model == "transcription":
        from annotators.whisper import Whisper
        from stages.transcription import TranscriptionConfig

        asr = TranscriptionConfig()
        whisper = Whisper(
            resolve("tiny.en").path,
            beam_size=asr.beam_size,
            batch_size=asr.batch_size,
            gap_s=asr.gap_s,
        )
        return lambda waves: sum(len(clip.words) for clip in whisper.transcribe(waves, "en"))
    if model == "dnsmos":
        from annotators.dnsmos import Dnsmos
        from stages.dnsmos import DnsmosConfig

        dnsmos = Dnsmos(resolve("dnsmos").path, batch_size=DnsmosConfig().batch_size)
        return lambda waves: len(dnsmos.score(waves))
    from annotators.ge2e import Ge2e
    from stages.speaker import SpeakerConfig

    ge2e = Ge2e(resolve("ge2e").path, batch_size=SpeakerConfig().batch_size)
    return lambda waves: len(ge2e.embed(waves))


def clips_of(wave: Wave) -> list[Wave]:
    """The clips that voxquarry cuts from a recording: (samples,) each."""
    from annotators.registry import resolve
    from annotators.silero import Silero, speech_spans
    from schemas.rows import Chunk, Recording
    from stages.segmentation import SegmentationConfig, segment

    probs = Silero(resolve("silero").path).probs(wave)
    duration_s = len(wave) / SAMPLE_RATE
    recording = Recording(
        recording_id="floor",
        uri="",
        session_id="",
        duration_s=duration_s,
        sample_rate=SAMPLE_RATE,
        channels=1,
        codec="flac",
        size_bytes=0,
        num_chunks=1,
    )
    chunk = Chunk(
        recording=recording,
        index=0,
        start_sample=0,
        sample_rate=SAMPLE_RATE,
        wave=wave,
        wave_16k=wave,
        speech=speech_spans(probs, duration_s=duration_s),
    )
    return [chunk.clip_wave_16k(clip) for clip in segment(chunk, SegmentationConfig())]


def measure(folder: str, barrier: Any, turns: Any, results: Any) -> None:
    """One of the processes: open every model, then time each together with the others."""
    recordings = [[wave] for _, wave in read_folder(Path(folder))]
    clips = [clips_of(wave) for (wave,) in recordings]
    for model, turn in zip(MODELS, turns, strict=True):
        batches = recordings if model == "vad" else [batch for batch in clips if batch]
        batches = sorted(batches, key=lambda batch: -sum(map(len, batch)))
        work = open_model(model)
        work([batches[0][0][: 3 * SAMPLE_RATE]])  # what is loaded or planned at first use
        barrier.wait()
        started, found = time.monotonic(), 0
        while (index := _next(turn)) < len(batches):
            found += work(batches[index])
        results.put(Timed(model=model, started=started, ended=time.monotonic(), found=found))
        barrier.wait()
        del work
    results.put((sum(map(len, clips)), _seconds(clips)))


def _next(turn: Any) -> int:
    with turn.get_lock():
        index = int(turn.value)
        turn.value += 1
    return index


def _seconds(batches: Sequence[Sequence[Wave]]) -> float:
    return sum(len(wave) for batch in batches for wave in batch) / SAMPLE_RATE


def floor(folder: Path) -> dict[str, object]:
    """Wall seconds of each model over the folder, and their sum."""
    os.environ.update(ONE_THREAD)  # inherited by the processes, before they import anything
    context = mp.get_context("spawn")
    barrier = context.Barrier(CORES, timeout=3600)
    turns = [context.Value("i", 0) for _ in MODELS]
    results: Any = context.Queue()
    processes = [
        context.Process(target=measure, args=(str(folder), barrier, turns, results))
        for _ in range(CORES)
    ]
    for process in processes:
        process.start()
    timed: list[Timed] = []
    counts: tuple[int, float] = (0, 0.0)
    for _ in range(CORES * (len(MODELS) + 1)):
        value = _receive(results, processes)
        if isinstance(value, Timed):
            timed.append(value)
        else:
            counts = value
    for process in processes:
        process.join()
    seconds, words = {}, 0
    for model in MODELS:
        mine = [t for t in timed if t.model == model]
        seconds[model] = max(t.ended for t in mine) - min(t.started for t in mine)
        if model == "transcription":
            words = sum(t.found for t in mine)
    return {
        "wall_s": sum(seconds.values()),
        "num_clips": counts[0],
        "clip_s": counts[1],
        "num_words": words,
        "seconds": seconds,
    }


def _receive(results: Any, processes: Sequence[Any]) -> Any:
    import queue

    while True:
        try:
            return results.get(timeout=1.0)
        except queue.Empty:
            for process in processes:
                if process.exitcode not in (None, 0):
                    for other in processes:
                        other.terminate()
                    raise SystemExit(f"a process ended with {process.exitcode}") from None


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(floor(Path(sys.argv[1]))))
