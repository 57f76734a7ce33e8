"""Segments of a corpus's accepted clips, shuffled, for AudioVAE training.

An epoch shuffles blocks of neighbouring rows and reads them a chunk at a time; inside a chunk all
segments of all clips are shuffled. So memory holds one chunk's compressed audio, whatever the size
of the corpus, and a cursor says where to go on without reading what came before.

Shapes: S samples.
"""

import io
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from math import ceil, gcd
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import soundfile as sf
import torch
from torch import Tensor

from jobs.vae_variation import DRAWS, VariationConfig, varied
from model_core.audio import resampled
from model_core.audio_vae import AudioVAEConfig
from model_core.vae_training.batches import Batch, Cursor, HeldOutClip, Skipped
from pipeline.storage import Corpus
from schemas.arrow import CLIPS, VERDICTS
from schemas.errors import ConfigError
from schemas.ids import content_id

logger = logging.getLogger(__name__)

# A resampler that starts this much before the segment has forgotten that it started.
MARGIN_S = 0.04
LEAST_HELD_OUT = 4
SHORTEST_HELD_OUT_S = 0.3


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentsConfig:
    """What is cut from the clips."""

    seconds: float = 0.38
    """Length of a training segment; a shorter clip is filled up with silence."""
    per_clip: int = 4
    """Segments that are cut from a clip each time it is read, at places drawn anew."""
    chunk_clips: int = 1024
    """Clips whose segments are shuffled among each other; memory holds as many, some 100 kB each."""
    held_out_share: float = 0.02
    """Of the clips, by a hash of their ids: training never sees them."""
    held_out_most: int = 32
    """Held-out clips that are listened to at every validation."""
    held_out_s: float = 8.0
    """Seconds from the start of a held-out clip that are listened to."""
    variation: VariationConfig = field(default_factory=VariationConfig)
    """How segments are changed before anyone hears them; held-out clips never are."""

    def __post_init__(self) -> None:
        for name in ("seconds", "per_clip", "chunk_clips", "held_out_most", "held_out_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"segments.{name} must be > 0, got {getattr(self, name)}")
        if not 0 <= self.held_out_share < 1:
            raise ConfigError(
                f"segments.held_out_share must be in [0, 1), got {self.held_out_share}"
            )


class Block(NamedTuple):
    """Neighbouring rows of a part that are read together."""

    part: str
    rows: tuple[int, ...]


class _Clip(NamedTuple):
    clip_id: str
    audio: bytes | None
    sample_rate: int
    """What the recording could hold, in hertz."""


class ClipSegments:
    """Implements `SegmentStream` over a corpus."""

    def __init__(
        self,
        corpus: Corpus,
        vae: AudioVAEConfig,
        config: SegmentsConfig,
        *,
        batch_size: int,
        seed: int,
    ) -> None:
        """Plan over the accepted clips. Raises ConfigError where there are fewer than two."""
        self.corpus, self.vae, self.config = corpus, vae, config
        self.batch_size, self.seed = batch_size, seed
        self.frames = max(1, round(config.seconds * vae.sample_rate / vae.hop))
        clips = accepted_places(corpus)
        if clips.height < 2:
            raise ConfigError(
                f"{corpus.root} has {clips.height} accepted clips; training needs one, and another "
                "to measure by"
            )
        chosen = held_out_ids(clips["clip_id"].to_list(), config.held_out_share)
        is_held_out = clips["clip_id"].is_in(list(chosen))
        self._held_out, self._clips = clips.filter(is_held_out), clips.filter(~is_held_out)
        self._blocks = _blocks(self._clips)
        self._rates = dict(clips.select("clip_id", "true_rate").iter_rows())
        self._cached: list[_Clip] | None = None
        self._told: set[str] = set()

    @property
    def num_clips(self) -> int:
        """Clips to train on."""
        return self._clips.height

    @property
    def fingerprint(self) -> str:
        """Of the clips and of how they are cut."""
        cuts = f"{self.frames} {self.batch_size} {self.seed} {self.config}"
        return content_id(cuts, *self._clips["clip_id"].to_list())

    def batches(self, start: Cursor) -> Iterator[Batch]:
        """Batches without end. Raises ConfigError when no clip of a whole epoch can be read."""
        epoch, first, skip = start
        while True:
            fruitful = first > 0 or skip > 0
            for chunk, blocks in enumerate(self._chunks(epoch)):
                if chunk < first:
                    continue
                for batch in self._of_chunk(blocks, Cursor(epoch, chunk, skip)):
                    fruitful = True
                    yield batch
                skip = 0
            if not fruitful:
                raise ConfigError(f"no clip of {self.corpus.root} can be read; the log says why")
            epoch, first = epoch + 1, 0

    def held_out(self) -> list[HeldOutClip]:
        """The clips to measure by. Raises ConfigError when none can be read."""
        found = []
        most = self._held_out.head(self.config.held_out_most)
        for clip in self._read(_blocks(most)):
            try:
                if clip.audio is None:
                    raise ValueError("it has no audio")
                with sf.SoundFile(io.BytesIO(clip.audio)) as file:
                    wave = file.read(int(self.config.held_out_s * file.samplerate), "float32")
                    rate = file.samplerate
                if len(wave) < SHORTEST_HELD_OUT_S * rate:
                    raise ValueError(f"it is shorter than {SHORTEST_HELD_OUT_S} s")
            except (sf.LibsndfileError, ValueError) as error:
                logger.warning("held-out clip %s is left out: %s", clip.clip_id, error)
                continue
            frames = max(1, int(len(wave) / rate * self.vae.sample_rate / self.vae.hop))
            heard, target = self._both(wave, rate, 0, frames)
            found.append(HeldOutClip(clip.clip_id, heard, target, self._told_rate(clip)))
        if not found:
            raise ConfigError(f"no held-out clip of {self.corpus.root} can be read")
        return found

    # ------------------------------------------------------------------ an epoch

    def _chunks(self, epoch: int) -> list[list[Block]]:
        """The epoch's blocks in its order, in chunks of about `chunk_clips` clips."""
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self._blocks))
        chunks: list[list[Block]] = [[]]
        held = 0
        for index in order:
            if held >= self.config.chunk_clips:
                chunks.append([])
                held = 0
            chunks[-1].append(self._blocks[index])
            held += len(self._blocks[index].rows)
        return chunks

    def _of_chunk(self, blocks: Sequence[Block], start: Cursor) -> Iterator[Batch]:
        size, num_clips = self.batch_size, sum(len(block.rows) for block in blocks)
        rng = np.random.default_rng([self.seed, start.epoch, start.chunk])
        order = rng.permutation(np.repeat(np.arange(num_clips), self.config.per_clip))
        # Whole batches alone: some clips give one segment more.
        order = np.concatenate([order, rng.integers(0, num_clips, -len(order) % size)])
        places = rng.random(len(order))
        draws = rng.random((len(order), DRAWS))
        if start.batch * size >= len(order):
            return
        skipped: list[Skipped] = []
        clips = self._chunk_clips(blocks, skipped)
        for batch in range(start.batch, len(order) // size):
            span = slice(batch * size, (batch + 1) * size)
            segments = []
            for index, *drawn in zip(order[span], places[span], draws[span], strict=True):
                clip = clips[index]
                if clip is None:
                    continue
                try:
                    segments.append((*self._segment(clip, *drawn), self._told_rate(clip)))
                except (sf.LibsndfileError, ValueError) as error:
                    self._skip(clip.clip_id, str(error), skipped)
            if segments:
                yield self._batch(segments, Cursor(start.epoch, start.chunk, batch + 1), skipped)
                skipped = []

    def _batch(
        self,
        segments: list[tuple[Tensor, Tensor, int]],
        after: Cursor,
        skipped: Sequence[Skipped],
    ) -> Batch:
        # What could not be read leaves room for what could.
        full = [segments[index % len(segments)] for index in range(self.batch_size)]
        return Batch(
            torch.stack([heard for heard, _, _ in full])[:, None],
            torch.stack([target for _, target, _ in full])[:, None],
            torch.tensor([rate for _, _, rate in full]),
            after,
            tuple(skipped),
        )

    def _chunk_clips(self, blocks: Sequence[Block], skipped: list[Skipped]) -> list[_Clip | None]:
        """One per row of the blocks; None for what cannot be read. A small corpus is kept."""
        # In the order of the plan, so that a chunk of all clips is the same in every epoch.
        clips = self._cached
        if clips is None:
            clips = self._read(sorted(blocks))
            if self.num_clips <= self.config.chunk_clips:
                self._cached = clips
        for clip in clips:
            if clip.audio is None:
                self._skip(clip.clip_id, "its audio is missing or its part cannot be read", skipped)
        return [clip if clip.audio is not None else None for clip in clips]

    def _skip(self, clip_id: str, reason: str, skipped: list[Skipped]) -> None:
        if clip_id not in self._told:
            self._told.add(clip_id)
            skipped.append(Skipped(clip_id, reason))

    # ------------------------------------------------------------------ reading and cutting

    def _read(self, blocks: Sequence[Block]) -> list[_Clip]:
        """The clips of the blocks, in their order; without audio where their part is damaged."""
        found = []
        for part, rows in blocks:
            try:
                table = self.corpus.read_rows(part, np.array(rows), ["clip_id", "audio"])
                for clip_id, audio in zip(*(c.to_pylist() for c in table.columns), strict=True):
                    found.append(_Clip(clip_id, audio, self._rates[clip_id]))
            except (OSError, pa.ArrowException, KeyError) as error:
                logger.warning("%s cannot be read: %s", part, error)
                found += [_Clip(f"{part}, row {row}", None, 0) for row in rows]
        return found

    def _segment(
        self, clip: _Clip, place: float, draws: npt.NDArray[np.float64]
    ) -> tuple[Tensor, Tensor]:
        """A segment at a place in [0, 1) of where it may begin. Raises LibsndfileError."""
        assert clip.audio is not None
        with sf.SoundFile(io.BytesIO(clip.audio)) as file:
            rate = file.samplerate
            # Where a sample of all rates falls together, if that is often enough.
            grid = rate // gcd(rate, self.vae.sample_rate, self.vae.out_sample_rate)
            grid = grid if grid <= MARGIN_S * rate else 1
            length = ceil(self.frames * self.vae.hop * rate / self.vae.sample_rate)
            begin = int(place * (max(0, file.frames - length) // grid + 1)) * grid
            before = min(begin, int(MARGIN_S * rate) // grid * grid)
            file.seek(begin - before)
            wave = file.read(before + length + int(MARGIN_S * rate), "float32")
        if wave.ndim != 1 or not len(wave):
            raise ValueError(f"it decodes to samples of shape {wave.shape}, not to one channel")
        return self._both(
            varied(wave, rate, self.config.variation, draws), rate, before, self.frames
        )

    def _both(self, wave: np.ndarray, rate: int, before: int, frames: int) -> tuple[Tensor, Tensor]:
        """The samples from `before` on, at the encoder's rate and at the decoder's: whole frames."""
        source = torch.from_numpy(wave)
        cuts = []
        for target, hop in (
            (self.vae.sample_rate, self.vae.hop),
            (self.vae.out_sample_rate, self.vae.out_hop),
        ):
            start, size = round(before * target / rate), frames * hop
            cut = resampled(source, rate, target, v2=True)[start : start + size]
            cuts.append(torch.nn.functional.pad(cut, (0, size - len(cut))))
        return cuts[0], cuts[1]

    def _told_rate(self, clip: _Clip) -> int:
        """What the decoder is told of a clip, in hertz: no more than it can speak."""
        return min(clip.sample_rate, self.vae.out_sample_rate)


def accepted_places(corpus: Corpus) -> pl.DataFrame:
    """Where each accepted clip lies (part, row, block of rows read together), and its true_rate:
    hertz that its recording could hold, which is less than its sample rate if it was upsampled.
    """
    kept = corpus.read(VERDICTS, ["clip_id", "accepted"]).filter("accepted").select("clip_id")
    columns = ["clip_id", "sample_rate", "bandwidth_hz", "upsampled"]
    pieces = []
    for part, table in corpus.scan(CLIPS, columns):
        frame = pl.from_arrow(table.replace_schema_metadata())
        assert isinstance(frame, pl.DataFrame)
        frame = frame.with_row_index("row").with_columns(part=pl.lit(part))
        pieces.append(frame.join(kept, on="clip_id", how="semi", maintain_order="left"))
    if not pieces:
        return pl.DataFrame({"clip_id": []}, schema={"clip_id": pl.String})
    band = (2 * pl.col("bandwidth_hz")).ceil().cast(pl.Int64).clip(1)
    narrowed = pl.when("upsampled").then(pl.min_horizontal("sample_rate", band))
    # A clip may lie in two parts; the last attempt at it overtakes.
    clips = pl.concat(pieces).unique("clip_id", keep="last", maintain_order=True)
    return clips.with_columns(
        true_rate=pl.coalesce(narrowed, "sample_rate"),
        block=pl.col("row") // CLIPS.rows_per_group,
    )


def held_out_ids(clip_ids: Sequence[str], share: float) -> set[str]:
    """Clips whose hash falls into the share; at least a few of the lowest, never more than half.

    A clip's place does not depend on the others, so a corpus that grows keeps what was held out.
    """
    drawn = {name: _uniform(name) for name in clip_ids}
    least = min(LEAST_HELD_OUT, len(drawn) // 2)
    ranked = sorted(drawn, key=lambda name: (drawn[name], name))
    num = max(least, sum(value < share for value in drawn.values()))
    return set(ranked[: min(num, len(ranked) // 2)])


def _uniform(text: str) -> float:
    """A number in [0, 1) that only the text decides."""
    digest = blake2b(text.encode(), digest_size=8, person=b"held-out").digest()
    return int.from_bytes(digest) / 2**64


def _blocks(clips: pl.DataFrame) -> list[Block]:
    """Rows by part and block, in the order of the parts."""
    grouped = clips.group_by("part", "block", maintain_order=True).agg("row")
    return [Block(part, tuple(rows)) for part, _, rows in grouped.iter_rows()]
