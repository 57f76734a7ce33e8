"""A small corpus of latents and samples in all five layouts, made here: no audio, no model."""

import zlib
from pathlib import Path

import numpy as np
import torch

from jobs.block_reading import Reading
from model_core.sequences import training_sequence
from model_core.tokenizer import TextTokenizer, described
from model_core.training.augment import AugmentConfig
from model_core.training.order import OrderConfig
from pipeline.storage import Corpus
from schemas.arrow import LATENTS, SAMPLES
from schemas.latents import Latent
from schemas.samples import Place, Sample

CHANNELS, PATCH = 16, 4
TOKENIZER = Path(__file__).parents[1] / "data" / "core" / "v2" / "tokenizer.json"
SESSIONS, CLIPS = 4, 5
PER_GROUP = 15
"""Rows of a row group of `samples`, so that a small corpus has several."""


def latent_of(clip: int) -> np.ndarray:
    """(F, C): clips differ in length and content."""
    random = np.random.default_rng(clip)
    frames = PATCH * int(random.integers(4, 12))
    return random.standard_normal((frames, CHANNELS)).astype("<f2")


def make_corpus(root: Path, *, damage: dict[int, np.ndarray] | None = None) -> Corpus:
    """20 clips in 4 sessions, 5 layouts each; clips 0 and 7 are held out for validation.

    damage: clip → what to write in the place of its latent.
    """
    corpus = Corpus(str(root))
    latents, places = [], []
    for clip in range(SESSIONS * CLIPS):
        values = (damage or {}).get(clip, latent_of(clip))
        content = values.tobytes()
        frames = len(latent_of(clip))
        latents.append(
            Latent(
                clip_id=f"clip{clip:02}",
                latent=content,
                frames=frames,
                channels=CHANNELS,
                crc32=zlib.crc32(content),
                vae_hash="vae",
                attempt=1,
            )
        )
        places.append(
            Place(clip_id=f"clip{clip:02}", part="latents/current.parquet", row=clip, frames=frames)
        )
    corpus.write_current("encode", LATENTS, LATENTS.to_arrow(latents))
    samples = [sample for clip in range(len(places)) for sample in _samples(clip, places)]
    pieces = [
        SAMPLES.to_arrow(samples[at : at + PER_GROUP]) for at in range(0, len(samples), PER_GROUP)
    ]
    corpus.write_version("compose", SAMPLES, "made", pieces)
    return corpus


def _samples(clip: int, places: list[Place]) -> list[Sample]:
    session = clip // CLIPS
    others = [p for i, p in enumerate(places) if i // CLIPS == session and i != clip]
    voices = {"reference": others[:3], "described_reference": others[1:3]}
    words = {"described": "A calm voice", "described_reference": "An old man"}
    tokenizer = TextTokenizer(TOKENIZER)
    made = []
    for layout in ("text", "described", "reference", "described_reference", "continuation"):
        text = f"speech is said in clip {clip}"
        target, references = places[clip], voices.get(layout, [])
        joined = layout == "continuation" and clip % CLIPS > 0
        prompt = places[clip - 1] if joined else None
        cut = 8 if layout == "continuation" and not joined else 0
        ids = tokenizer.ids(described(text, words.get(layout)))
        longest = max((place.frames for place in references), default=0)
        sequence = training_sequence(
            ids,
            torch.zeros((target.frames - cut) // PATCH, PATCH, CHANNELS),
            reference=torch.zeros(longest // PATCH, PATCH, CHANNELS) if references else None,
            prompt=torch.zeros((prompt.frames if prompt else cut) // PATCH, PATCH, CHANNELS),
        )
        made.append(
            Sample(
                sample_id=f"{clip:02}-{layout}",
                layout=layout,
                target=target,
                target_start=cut,
                prompt=prompt,
                references=tuple(references),
                text=text,
                description=words.get(layout),
                language="en",
                source=None,
                session_id=f"session{session}",
                synthetic=False,
                split="validation" if clip in (0, 7) else "train",
                duration_s=target.frames / 25,
                tokens=len(ids),
                positions=len(sequence),
                weights=(1.0, 0.2, 0.0),
            )
        )
    return made


def reading_of(corpus: Corpus, **changes: object) -> Reading:
    """How the tests read it: stage 1 takes every sample once an epoch."""
    values: dict[str, object] = {
        "corpus": corpus.root,
        "tokenizer": str(TOKENIZER),
        "patch_size": PATCH,
        "channels": CHANNELS,
        "stage": 1,
        "max_positions": 200,
        "order": OrderConfig(seed=3, pack_positions=200, block_fragments=2),
        "augment": AugmentConfig(phoneme_samples=0.3),
    }
    return Reading(**{**values, **changes})  # type: ignore[arg-type]
