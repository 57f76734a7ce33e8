"""The stages of the clone phase over real voices and texts, timed part by part."""

import argparse
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from annotators.cloner import Cloner, Utterance
from annotators.registry import checkpoint_folder, checkpoint_hash
from jobs.clone import open_judges
from model_core.synthesis import SpeechRequest
from schemas.cloning import Clone
from stages.dnsmos import DnsmosConfig
from stages.flac import flac_bytes
from stages.judging import Judges, Judging, JudgingConfig
from stages.marking import Marking
from stages.speaker import SpeakerConfig
from stages.speaking import Speaking, SpeakingConfig, Voices
from stages.transcription import TranscriptionConfig
from tests.benchmarks.random_checkpoint import write_random_checkpoint
from tests.benchmarks.systems import CORES
from tests.stages.planted import devset_utterances


@dataclass(slots=True)
class Parts:
    """Seconds by part."""

    cuda: bool
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Count what happens inside, once the device has done it."""
        self._wait()
        began = time.perf_counter()
        yield
        self._wait()
        self.seconds[part] += time.perf_counter() - began

    def watch(self, thing: Any, method: str, part: str) -> None:
        """Count the calls of one method."""
        plain = getattr(thing, method)

        def counted(*arguments: Any, **named: Any) -> Any:
            with self.timed(part):
                return plain(*arguments, **named)

        setattr(thing, method, counted)

    def _wait(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()


def speed(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Batched against one by one, over the same clones."""
    with tempfile.TemporaryDirectory() as folder:
        name = options.checkpoint
        if name is None:
            console.print(f"… random weights of {options.size}")
            write_random_checkpoint(Path(folder), options.size)
            name = folder
        clones = asked(options.clones)
        batched = measured(name, options, clones, options.batch_size)
        single = measured(name, options, clones[: options.one_by_one], None)
    shown(console, "All attempts in one batch", batched)
    shown(console, "One attempt after the other", single)
    faster = batched["speaking_x"] / single["speaking_x"]
    console.print(f"Speaking in batches is {faster:.1f} × as fast as one by one.")
    return {"batched": batched, "one_by_one": single, "batched_over_single": faster}


def asked(number: int) -> list[Clone]:
    """Real voices, and what others said."""
    spoken = devset_utterances(3.0)
    texts = [one.text for one in spoken if one.language == "en" and 30 <= len(one.text) <= 120]
    clones = []
    for at in range(number):
        text, voice = texts[at % len(texts)], spoken[-1 - at % len(spoken)]
        clones.append(
            Clone(
                clip_id=str(at),
                attempt=1,
                text=text,
                language="en",
                description="A calm, clear voice.",
                expected_s=len(text) / 15,
                seed=at,
                reference=voice.wave,
                reference_rate=voice.sample_rate,
                described=flac_bytes(voice.wave, voice.sample_rate),
            )
        )
    return clones


def measured(
    checkpoint: str, options: argparse.Namespace, clones: list[Clone], batch_size: int | None
) -> dict[str, Any]:
    """Make the clones, a warm-up before; batch_size None: one attempt at a time."""
    cuda = options.device == "cuda"
    half = cuda or options.size == "2B"  # in float32 its weights alone are 9 GB
    config = SpeakingConfig(
        candidates=options.candidates if batch_size else 1,
        num_steps=options.num_steps,
        longest=options.longest,
        device=options.device,
        dtype="bfloat16" if half else "float32",
        threads=1 if cuda else CORES,
        batch_size=batch_size or 1,
    )
    model_hash = checkpoint_hash(checkpoint_folder(checkpoint))
    voices = Voices(config, checkpoint, model_hash)
    speaking = Speaking(config, checkpoint, model_hash)
    opened: list[Judges] = []
    transcription = TranscriptionConfig(model=options.asr, device=options.device, threads=CORES)
    judges = partial(open_judges, transcription, DnsmosConfig(threads=CORES), SpeakerConfig())

    def kept_open() -> Judges:
        opened.append(judges())
        return opened[-1]

    marking, judging_ = Marking(), Judging(JudgingConfig(), kept_open)
    for stage in (voices, speaking, marking, judging_):
        stage.setup()
    cloner = voices._cloner
    assert cloner is not None
    if options.checkpoint is None:
        never_ending(cloner)
    warm_up = [replace(clones[0], text="Yes.", expected_s=0.5)]
    judging_.process(marking.process(speaking.process(voices.process(warm_up))))
    parts = Parts(cuda)
    vae = cloner._synthesizer.vae
    parts.watch(vae, "decode", "AudioVAE decode")
    (judge,) = opened
    parts.watch(judge.asr, "transcribe", "recogniser")
    parts.watch(judge.voices, "embed", "speaker encoder")
    parts.watch(judge.quality, "score", "DNSMOS")
    parts.watch(judge.watermark, "score", "watermark detector")
    groups = [clones] if batch_size else [[clone] for clone in clones]
    spoken_s = 0.0
    with busy_share(cuda) as shares_seen:
        began = time.perf_counter()
        for group in groups:
            with parts.timed("references"):
                voiced = voices.process(group)
            with parts.timed("speaking"):
                said = speaking.process(voiced)
            spoken_s += sum(
                len(c.wave) / c.sample_rate
                for one in said
                for c in one.candidates
                if c.wave is not None
            )
            with parts.timed("watermark and FLAC"):
                marked = marking.process(said)
            with parts.timed("judging"):
                judging_.process(marked)
        wall_s = time.perf_counter() - began
    del vae.decode  # the cloner is shared; what counted its calls was this run's alone
    seconds = dict(parts.seconds)
    seconds["language models and LocDiT"] = seconds["speaking"] - seconds["AudioVAE decode"]
    return {
        "attempts": len(clones) * config.candidates,
        "spoken_s": spoken_s,
        "wall_s": wall_s,
        "audio_x": spoken_s / wall_s,
        "kept_x": spoken_s / config.candidates / wall_s,
        "speaking_x": spoken_s / seconds["speaking"],
        "seconds": seconds,
        "gpu_busy": sum(shares_seen) / len(shares_seen) if shares_seen else None,
    }


def never_ending(cloner: Cloner) -> None:
    """Random weights end anywhere; this way each attempt is as long as its text may take."""
    plain = cloner._request

    def longest(utterance: Utterance) -> SpeechRequest:
        request = plain(utterance)
        return replace(request, min_patches=request.max_patches)

    cloner._request = longest  # type: ignore[method-assign]


_SHOWN = (
    *("references", "language models and LocDiT", "AudioVAE decode", "watermark and FLAC"),
    *("recogniser", "speaker encoder", "DNSMOS", "watermark detector"),
)


def shown(console: Console, title: str, figures: dict[str, Any]) -> None:
    """Share of time by part, and seconds of speech a second."""
    table = Table("part", "seconds", "share", title=title, title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for part in _SHOWN:
        seconds = figures["seconds"][part]
        table.add_row(part, f"{seconds:.2f}", f"{seconds / figures['wall_s']:.1%}")
    console.print(table)
    busy = figures["gpu_busy"]
    console.print(
        f"{figures['attempts']} attempts, {figures['spoken_s']:.1f} s of speech in "
        f"{figures['wall_s']:.1f} s: {figures['audio_x']:.2f} × real time, "
        f"{figures['kept_x']:.2f} × of clips that are kept; speaking alone "
        f"{figures['speaking_x']:.2f} ×" + (f"; GPU busy {busy:.0%}" if busy is not None else ""),
        highlight=False,
    )


@contextmanager
def busy_share(cuda: bool) -> Iterator[list[float]]:
    """Share of the time in which the GPU worked, every 0.1 s, as its driver says."""
    seen: list[float] = []
    if not cuda:
        yield seen
        return
    query = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
    with tempfile.TemporaryFile("w+") as told:
        process = subprocess.Popen([*query, "-i", "0", "-lms", "100"], stdout=told)
        try:
            yield seen
        finally:
            process.terminate()
            process.wait()
            told.seek(0)
            seen += [int(line) / 100 for line in told if line.strip().isdigit()]
