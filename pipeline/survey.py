"""Take in a source: hash its bytes, read its header, and cut it into chunks in silence."""

import bisect
import hashlib
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from pipeline.audio import MAX_RATE, SHORTEST_S, ChunkPlan, Mono, recording_of
from pipeline.decoders import Decoder, Mark, open_decoder
from pipeline.ffmpeg import PREROLL_S
from pipeline.opening import open_bytes
from pipeline.sources import Source
from schemas.errors import DataError, EmptyAudio, EmptyFile, MissingSource, TooShortAudio

FRAMES_PER_S = 100
# A cut is looked for in the last minute of a chunk, in the middle of the quietest half second.
SEARCH_S = 60.0
QUIET_S = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Surveyed:
    """A recording with its plan."""

    recording_id: str
    chunks: tuple[ChunkPlan, ...]


def survey(source: Source, chunk_s: float = 600.0) -> Surveyed:
    """Hash, probe and cut one source into chunks of at most `chunk_s` seconds.

    A recording of one chunk is not decoded here. Raises a `DataError` if it is no usable audio.
    """
    recording_id = hash_of(source.uri)
    with open_decoder(source.uri) as decoder:
        rate = min(decoder.sample_rate, MAX_RATE)
        declared = decoder.declared_frames
        whole = ChunkPlan(
            source=source,
            recording_id=recording_id,
            index=0,
            num_chunks=1,
            sample_rate=rate,
            start_sample=0,
            end_sample=None,
            duration_s=(declared or 0) / decoder.sample_rate,
        )
        if declared is not None and declared / decoder.sample_rate < SHORTEST_S:
            if not declared:
                raise EmptyAudio(f"{source.uri} holds no samples")
            raise TooShortAudio(
                f"{whole.duration_s:.3f} s of audio, the shortest usable is {SHORTEST_S} s"
            )
        if declared is not None and whole.duration_s <= chunk_s:
            return Surveyed(recording_id=recording_id, chunks=(whole,))
        return Surveyed(recording_id=recording_id, chunks=_cut(whole, decoder, chunk_s))


def hash_of(uri: str) -> str:
    """blake2b-128 of a file's bytes. Raises `EmptyFile` or `MissingSource`."""
    digest = hashlib.blake2b(digest_size=16)
    size = 0
    try:
        with open_bytes(uri) as file:
            while block := file.read(1 << 20):
                digest.update(block)
                size += len(block)
    except OSError as error:
        raise MissingSource(f"reading {uri} failed: {error}") from error
    if not size:
        raise EmptyFile(f"{uri} holds no bytes")
    return digest.hexdigest()


def _cut(whole: ChunkPlan, decoder: Decoder, chunk_s: float) -> tuple[ChunkPlan, ...]:
    """Decode all of it once, in blocks, and plan chunks that end in silence."""
    mono = Mono(decoder)
    hop = whole.sample_rate // FRAMES_PER_S
    energies = []
    rest = np.zeros(0, np.float32)
    for block in decoder.blocks(0, None):
        wave = np.concatenate([rest, mono.add(block)])
        used = len(wave) // hop * hop
        energies.append(np.mean(wave[:used].reshape(-1, hop) ** 2, axis=1))
        rest = wave[used:]
    if not mono.frames:
        raise EmptyAudio(f"{whole.source.uri} decodes to no samples")
    cuts = cut_points(np.concatenate(energies), chunk_s)
    bounds = [0, *(cut * hop for cut in cuts), None]
    total = round(mono.frames * whole.sample_rate / decoder.sample_rate)
    recording = recording_of(replace(whole, num_chunks=len(bounds) - 1), decoder, mono)
    return tuple(
        replace(
            whole,
            index=index,
            num_chunks=len(bounds) - 1,
            start_sample=start or 0,
            end_sample=end,
            duration_s=((end or total) - (start or 0)) / whole.sample_rate,
            recording=recording,
            num_active=mono.active,
            mark=_mark_before(decoder, (start or 0) / whole.sample_rate),
        )
        for index, (start, end) in enumerate(pairwise(bounds))
    )


def _mark_before(decoder: Decoder, start_s: float) -> Mark | None:
    """The last mark that leaves room to settle before the chunk."""
    latest = (start_s - PREROLL_S) * decoder.sample_rate
    index = bisect.bisect_right(decoder.marks, latest, key=lambda mark: mark.position)
    return decoder.marks[index - 1] if index else None


def cut_points(energies: npt.NDArray[np.float32], chunk_s: float) -> list[int]:
    """Frames (10 ms) to cut at, so that no piece is longer than `chunk_s`.

    energies: (frames,) mean power per frame.
    """
    longest = int(chunk_s * FRAMES_PER_S)
    search = int(min(SEARCH_S, chunk_s / 2) * FRAMES_PER_S)
    width = int(QUIET_S * FRAMES_PER_S)
    cuts: list[int] = []
    start = 0
    while len(energies) - start > longest:
        window = energies[start + longest - search : start + longest]
        smooth = np.convolve(window.astype(np.float64), np.ones(width), mode="valid")
        start += longest - search + int(np.argmin(smooth)) + width // 2
        cuts.append(start)
    return cuts


def header_seconds(source: Source) -> float | None:
    """Length by the header alone, for estimates; None where it tells nothing or nothing opens."""
    try:
        with open_decoder(source.uri) as decoder:
            if decoder.declared_frames is None:
                return None
            return decoder.declared_frames / decoder.sample_rate
    except DataError:
        return None
