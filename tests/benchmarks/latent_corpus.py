"""A corpus of random latents and samples, of real lengths, to time the reader on."""

import json
import tempfile
import time
import zlib
from pathlib import Path

import numpy as np
import torch

from jobs.block_reading import Reading
from jobs.sample_stream import SampleStream
from model_core.tokenizer import TextTokenizer
from model_core.training.augment import AugmentConfig
from model_core.training.order import OrderConfig
from model_core.training.packs import START
from pipeline.storage import Corpus
from schemas.arrow import LATENTS, SAMPLES
from schemas.latents import Latent
from schemas.samples import Place, Sample
from tests.benchmarks.random_checkpoint import TOKENIZER

CHANNELS, PATCH, CLIPS = 64, 4, 3000
_WORDS = "the quick brown fox jumps over the lazy dog "


def frames_per_second() -> float:
    """Latent frames that one process and one thread reads, checks, tokenises and packs a second.

    Every sample has a text; two in five also a reference. An epoch, after one that warms the cache.
    """
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        reading = _make(folder)
        frames = 0
        for epoch in (0, 1):
            frames, began = 0, time.perf_counter()
            for pack in SampleStream(reading, background=False).packs(START._replace(epoch=epoch)):
                if pack.after.epoch != epoch:
                    break
                frames += pack.patches.shape[0] * PATCH
            seconds = time.perf_counter() - began
    return frames / seconds


def _make(folder: str) -> Reading:
    corpus = Corpus(folder)
    lengths = json.loads(Path(__file__).with_name("clip_lengths.json").read_text())["clips"]
    random = np.random.default_rng(0)
    file = TOKENIZER / "tokenizer.json"
    tokenizer = TextTokenizer(file)
    tokens: dict[str, int] = {}
    latents, samples = [], []
    places: list[Place] = []
    for number in range(CLIPS):
        characters, seconds = lengths[random.integers(len(lengths))]
        frames = -(-round(seconds * 25) // PATCH) * PATCH
        content = random.standard_normal((frames, CHANNELS)).astype("<f2").tobytes()
        clip_id = f"clip{number}"
        latents.append(
            Latent(
                clip_id=clip_id,
                latent=content,
                frames=frames,
                channels=CHANNELS,
                crc32=zlib.crc32(content),
                vae_hash="random",
                attempt=1,
            )
        )
        places.append(
            Place(clip_id=clip_id, part="latents/current.parquet", row=number, frames=frames)
        )
        text = (_WORDS * 9)[:characters]
        if text not in tokens:
            tokens[text] = len(tokenizer.ids(text))
        voice = places[-2] if number % 5 < 2 and number else None
        positions = tokens[text] + 2 + frames // PATCH
        positions += voice.frames // PATCH + 2 if voice else 0
        samples.append(
            Sample(
                sample_id=str(number),
                layout="reference" if voice else "text",
                target=places[-1],
                target_start=0,
                references=(voice,) if voice else (),
                text=text,
                language="en",
                session_id="session",
                synthetic=False,
                split="train",
                duration_s=seconds,
                tokens=tokens[text],
                positions=positions,
                weights=(1.0, 1.0, 1.0),
            )
        )
    corpus.write_current("encode", LATENTS, LATENTS.to_arrow(latents))
    corpus.write_current("compose", SAMPLES, SAMPLES.to_arrow(samples))
    return Reading(
        corpus=folder,
        tokenizer=str(file),
        patch_size=PATCH,
        channels=CHANNELS,
        stage=1,
        max_positions=4096,
        order=OrderConfig(),
        augment=AugmentConfig(),
    )
