"""Samples and latents of a corpus to packs, one block at a time; without Ray, and the same anywhere.

Shapes: F latent frames, C channels, A patches, P frames of a patch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor

from jobs.joining import followers
from model_core.sequences import Sequence as Row
from model_core.sequences import training_sequence
from model_core.tokenizer import TextTokenizer, described, flattened
from model_core.training.augment import AugmentConfig, with_phonemes
from model_core.training.order import (
    Fragment,
    OrderConfig,
    generator,
    in_share,
    packs_of,
    times_seen,
)
from model_core.training.packs import Pack, Position, Skipped, packed_up
from pipeline.latent_rows import Latents, read_latents
from pipeline.storage import Corpus
from schemas.arrow import SAMPLES
from schemas.errors import StorageError
from schemas.samples import STAGES, Place
from stages.composition import joined


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """All that decides what a worker's stream gives; pickles."""

    corpus: str
    tokenizer: str
    """A checkpoint's tokenizer.json."""
    patch_size: int
    channels: int
    stage: int
    """Of the curriculum: whose weights count."""
    max_positions: int
    """A longer sample is left out."""
    order: OrderConfig
    augment: AugmentConfig
    rank: int = 0
    workers: int = 1


class Task(NamedTuple):
    """A block to read, from one of its packs on."""

    epoch: int
    block: int
    fragments: tuple[Fragment, ...]
    first_pack: int = 0


class Chosen(NamedTuple):
    """A sample as this epoch takes it."""

    row: dict[str, Any]
    text: str
    """Transcript with its description, some words perhaps in phonemes."""
    reference: Place | None
    positions: int
    """Of its sequence, exactly."""
    more: tuple[Place, ...] = ()
    """Targets that are said after its own."""


def read_block(reading: Reading, task: Task) -> Iterator[tuple[Pack | None, list[Skipped]]]:
    """The packs of a block and what was left out before each; None where nothing was left of one.

    The last pair may carry None: what was left out after the last pack.
    """
    corpus = Corpus(reading.corpus)
    chosen: list[Chosen] = []
    skipped: list[Skipped] = []
    for fragment in task.fragments:
        for sample in _choose(reading, corpus, fragment, task.epoch):
            if sample.positions > reading.max_positions:
                why = f"{sample.positions} positions, {reading.max_positions} are allowed"
                skipped.append(Skipped(sample.row["sample_id"], why))
            else:
                chosen.append(sample)
    chosen = _joined(reading, chosen, task.epoch)
    positions = np.array([sample.positions for sample in chosen], dtype=np.int64)
    packs = packs_of(positions, reading.order, task.epoch, reading.rank, task.block)
    left = [[chosen[i] for i in pack] for pack in packs[task.first_pack :]]
    latents, faults = read_latents(
        corpus,
        (place for pack in left for sample in pack for place in _places(sample)),
        reading.channels,
    )
    for number, samples in enumerate(left, start=task.first_pack + 1):
        pack, faulty = _pack(reading, task, number, samples, latents, faults)
        yield pack, skipped + faulty
        skipped = []
    if skipped:
        yield None, skipped


def validation_packs(
    reading: Reading, row_groups: Sequence[tuple[str, int]], limit: int
) -> list[Pack]:
    """At most `limit` packs of held-out samples of all workers, the same at every call."""
    corpus = Corpus(reading.corpus)
    chosen: list[Chosen] = []
    for part, group in row_groups:
        held = _choose(reading, corpus, Fragment(part, group), 0, split="validation")
        chosen += [sample for sample in held if sample.positions <= reading.max_positions]
        if sum(sample.positions for sample in chosen) > limit * reading.order.pack_positions:
            break
    positions = np.array([sample.positions for sample in chosen], dtype=np.int64)
    packs = [[chosen[i] for i in pack] for pack in packs_of(positions, reading.order, 0)[:limit]]
    latents, faults = read_latents(
        corpus,
        (place for pack in packs for sample in pack for place in _places(sample)),
        reading.channels,
    )
    no_task = Task(epoch=0, block=0, fragments=())
    made = (_pack(reading, no_task, 0, pack, latents, faults)[0] for pack in packs)
    return [pack for pack in made if pack is not None]


def row_groups_of(corpus: Corpus) -> list[tuple[str, int]]:
    """Every row group of `samples`: (part, number)."""
    found = []
    for part in corpus.parts(SAMPLES.name):
        with pq.ParquetFile(f"{corpus.path}/{part}", filesystem=corpus.fs) as file:
            SAMPLES.check(file.schema_arrow, part)
            found += [(part, group) for group in range(file.num_row_groups)]
    return found


def _choose(
    reading: Reading, corpus: Corpus, fragment: Fragment, epoch: int, split: str = "train"
) -> list[Chosen]:
    try:
        with pq.ParquetFile(f"{corpus.path}/{fragment.part}", filesystem=corpus.fs) as file:
            table = file.read_row_group(fragment.row_group)
    except (OSError, pa.ArrowException) as error:
        raise StorageError(
            f"{fragment.part} cannot be read; was the corpus composed anew meanwhile? ({error})"
        ) from error
    targets = pc.struct_field(table["target"], "clip_id").to_pylist()
    weights = np.array(table["weights"].to_pylist(), dtype=np.float64)
    if weights.shape[1:] != (len(STAGES),):
        raise StorageError(f"{fragment.part}: a sample needs a weight for each of {STAGES}")
    times = times_seen(targets, weights[:, reading.stage - 1], reading.order, epoch)
    taken = in_share(targets, fragment) & (table["split"].to_numpy() == split) & (times > 0)
    rows = np.flatnonzero(taken)
    return [
        _as_taken(reading, row, epoch, copy, augment=split == "train")
        for row, number in zip(table.take(rows).to_pylist(), times[rows], strict=True)
        for copy in range(number)
    ]


def _as_taken(
    reading: Reading, row: dict[str, Any], epoch: int, copy: int, *, augment: bool
) -> Chosen:
    """The sample with its words and its voice for this time.

    copy: 0 for the first time in the epoch.
    """
    positions: int = row["positions"]
    plain = flattened(row["text"])
    transcript = plain
    if augment:
        random = generator(reading.order.seed, "phonemes", epoch, row["sample_id"], copy)
        transcript = with_phonemes(plain, row["language"], reading.augment, random)
    text = described(transcript, row["description"])
    if transcript != plain:
        positions += len(_tokenizer(reading.tokenizer).ids(text)) - row["tokens"]
    references = [Place(**place) for place in row["references"]]
    if not references:
        return Chosen(row, text, None, positions)
    # Another one, where there are several, the next time.
    order = generator(reading.order.seed, "reference", row["sample_id"]).permutation(
        len(references)
    )
    reference = references[order[(epoch + copy) % len(references)]]
    longest = max(place.frames for place in references)
    spared = (longest - reference.frames) // reading.patch_size
    return Chosen(row, text, reference, positions - spared)


def _joined(reading: Reading, chosen: Sequence[Chosen], epoch: int) -> list[Chosen]:
    """The samples of a block, some of them followed by others' targets, as far as they may grow."""
    rows = [sample.row for sample in chosen]
    found = []
    for sample, others in zip(
        chosen, followers(rows, reading.augment, reading.order.seed, "join", epoch), strict=True
    ):
        for other in others:
            longer = _followed(reading, sample, chosen[other])
            if longer.positions <= reading.max_positions:
                sample = longer
        found.append(sample)
    return found


def _followed(reading: Reading, sample: Chosen, other: Chosen) -> Chosen:
    """The sample with another one's words and target after its own."""
    # Of the other one only what is said, and not how it is described.
    said = other.text.removeprefix(described("", other.row["description"]))
    text = joined(sample.text, said)
    place = Place(**other.row["target"])
    tokens = _tokenizer(reading.tokenizer)
    added = (
        len(tokens.ids(text)) - len(tokens.ids(sample.text)) + place.frames // reading.patch_size
    )
    return sample._replace(
        text=text, positions=sample.positions + added, more=(*sample.more, place)
    )


def _places(sample: Chosen) -> Iterator[Place]:
    yield Place(**sample.row["target"])
    yield from sample.more
    if sample.row["prompt"] is not None:
        yield Place(**sample.row["prompt"])
    if sample.reference is not None:
        yield sample.reference


def _pack(
    reading: Reading,
    task: Task,
    number: int,
    samples: Sequence[Chosen],
    latents: dict[str, Latents],
    faults: dict[str, str],
) -> tuple[Pack | None, list[Skipped]]:
    """The samples whose latents are sound as one pack, and the others with what is wrong."""
    sequences, ids, layouts, skipped = [], [], [], []
    for sample in samples:
        bad = [place.clip_id for place in _places(sample) if place.clip_id in faults]
        if bad:
            why = f"clip {bad[0]}: {faults[bad[0]]}"
            skipped.append(Skipped(sample.row["sample_id"], why))
            continue
        sequences.append(_sequence(reading, sample, latents))
        ids.append(sample.row["sample_id"])
        layouts.append(sample.row["layout"])
    if not sequences:
        return None, skipped
    after = Position(task.epoch, task.block, number)
    return packed_up(sequences, ids, layouts, after=after), skipped


def _sequence(reading: Reading, sample: Chosen, latents: dict[str, Latents]) -> Row:
    row = sample.row

    def patches(clip_id: str) -> Tensor:
        """(F, C) -> (A, P, C)."""
        latent = latents[clip_id].reshape(-1, reading.patch_size, reading.channels)
        return torch.from_numpy(latent.copy())

    own = patches(row["target"]["clip_id"])
    target = torch.cat([own, *(patches(place.clip_id) for place in sample.more)])
    start = row["target_start"] // reading.patch_size
    prompt = target[:start] if start else None
    if row["prompt"] is not None:
        prompt = patches(row["prompt"]["clip_id"])
    return training_sequence(
        _tokenizer(reading.tokenizer).ids(sample.text),
        target[start:],
        reference=None if sample.reference is None else patches(sample.reference.clip_id),
        prompt=prompt,
    )


@lru_cache(maxsize=1)
def _tokenizer(file: str) -> TextTokenizer:
    """Kept by the process from block to block."""
    return TextTokenizer(Path(file))
