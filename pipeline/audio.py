"""From a plan to a chunk: mono audio at the native rate, and at 16 kHz for the models.

The channel policy: the mean of the channels that carry signal; a silent channel is left out and
noted. Rates above 48 kHz are brought to 48 kHz block by block; lower ones stay as they are.
"""

from dataclasses import dataclass
from math import gcd

import numpy as np
import soxr

from pipeline.decoders import Block, Decoder, Mark, open_decoder
from pipeline.sources import Source
from schemas.errors import EmptyAudio, NonFiniteAudio, TooShortAudio, UndecodableAudio
from schemas.rows import Chunk, Recording, Wave

MAX_RATE = 48_000
MODEL_RATE = 16_000
SHORTEST_S = 0.3
# A channel whose loudest sample is below -80 dBFS carries nothing.
SILENT_PEAK = 1e-4
# A resampler that starts this much before the chunk has forgotten that it started.
CONTEXT_S = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class ChunkPlan:
    """Where a chunk lies in its recording. Samples are at `sample_rate`."""

    source: Source
    recording_id: str
    index: int
    num_chunks: int
    sample_rate: int
    start_sample: int
    end_sample: int | None
    """None: to the end, wherever the audio turns out to end."""
    duration_s: float
    """As planned: from the header where the recording was not decoded yet."""
    recording: Recording | None = None
    """Known before reading where the survey had to decode the recording."""
    num_active: int | None = None
    """Channels that carry signal somewhere in the recording, so that the level does not jump
    between chunks; None where only the chunk itself can tell."""
    mark: Mark | None = None
    """Where a decoder without exact seeks starts; at or before the chunk."""


class Mono:
    """Sums channels block by block and keeps track of which of them carry signal."""

    def __init__(self, decoder: Decoder, start: int = 0) -> None:
        self.native_rate = decoder.sample_rate
        self.sample_rate = min(self.native_rate, MAX_RATE)
        self.peaks = np.zeros(decoder.channels, np.float32)
        self.frames = 0
        self._start = start
        self._stream = (
            soxr.ResampleStream(self.native_rate, self.sample_rate, 1, dtype="float32")
            if self.native_rate != self.sample_rate
            else None
        )

    def add(self, block: Block, *, last: bool = False) -> Wave:
        """Sum of the channels, at `sample_rate`. Raises `NonFiniteAudio`."""
        finite = np.isfinite(block)
        if not finite.all():
            bad = np.flatnonzero(~finite.all(axis=1))
            at_s = (self._start + self.frames + bad[0]) / self.native_rate
            raise NonFiniteAudio(
                f"{bad.size} samples or more are NaN or infinite from {at_s:.3f} s"
            )
        if len(block):
            self.peaks = np.maximum(self.peaks, np.abs(block).max(axis=0))
        self.frames += len(block)
        total = block.sum(axis=1) if block.shape[1] > 1 else block[:, 0]
        if self._stream is None:
            return np.asarray(total, np.float32)
        return np.asarray(self._stream.resample_chunk(total, last=last), np.float32)

    @property
    def active(self) -> int:
        """Channels that carry signal; at least 1."""
        return max(1, int(np.count_nonzero(self.peaks > SILENT_PEAK)))

    def flags(self, decoder: Decoder, *, ended_early: bool) -> tuple[str, ...]:
        """What a reader of the recording should know."""
        found = []
        if ended_early or decoder.cut_short:
            found.append("truncated")
        if decoder.num_damaged:
            found.append("damaged")
        if 0 < np.count_nonzero(self.peaks > SILENT_PEAK) < len(self.peaks):
            found.append("silent_channel")
        if self._stream is not None:
            found.append("resampled_to_48k")
        return tuple(found)


class Pair:
    """Both channels of a stereo recording, at most at 48 kHz."""

    def __init__(self, native_rate: int) -> None:
        rate = min(native_rate, MAX_RATE)
        self._stream = (
            soxr.ResampleStream(native_rate, rate, 2, dtype="float32")
            if native_rate != rate
            else None
        )

    def add(self, block: Block, *, last: bool = False) -> Wave:
        """(samples, 2) of each, as `Mono` resamples their sum."""
        if self._stream is None:
            return np.asarray(block, np.float32)
        return np.asarray(self._stream.resample_chunk(block, last=last), np.float32)


def read_chunk(plan: ChunkPlan, *, stereo: bool = False) -> Chunk:
    """Decode a chunk. Sample-exact and the same at every call.

    stereo: keep both channels of a stereo recording too, beside their mean.

    Raises `EmptyAudio`, `TooShortAudio`, `NonFiniteAudio`, `UndecodableAudio` where it is no
    longer what the survey found, or what `open_decoder` raises.
    """
    with open_decoder(plan.source.uri) as decoder:
        start, stop, lead = _native(plan, decoder.sample_rate)
        mono = Mono(decoder, start)
        pair = Pair(decoder.sample_rate) if stereo and decoder.channels == 2 else None
        parts, sides = [], []
        for block in decoder.blocks(start, stop, plan.mark):
            parts.append(mono.add(block))
            if pair is not None:
                sides.append(pair.add(block))
        end = np.zeros((0, decoder.channels), np.float32)
        parts.append(mono.add(end, last=True))
        if pair is not None:
            sides.append(pair.add(end, last=True))
        recording = plan.recording or recording_of(plan, decoder, mono)
    planned = None if plan.end_sample is None else plan.end_sample - plan.start_sample
    kept = slice(lead, None if planned is None else lead + planned)
    wave = np.concatenate(parts)[kept]
    del parts
    if not wave.size:
        raise EmptyAudio(f"{plan.source.uri} decodes to no samples")
    if planned is not None and wave.size != planned:
        raise UndecodableAudio(
            f"{plan.source.uri} gives {wave.size} samples from {plan.start_sample} on, "
            f"{planned} when it was surveyed"
        )
    if recording.duration_s < SHORTEST_S:
        raise TooShortAudio(
            f"{recording.duration_s:.3f} s of audio, the shortest usable is {SHORTEST_S} s"
        )
    # A float file may swing beyond full scale; the models and FLAC end there.
    num_active = plan.num_active or mono.active
    wave = np.clip(wave / num_active, -1.0, 1.0)
    return Chunk(
        recording=recording,
        index=plan.index,
        start_sample=plan.start_sample,
        sample_rate=plan.sample_rate,
        wave=wave,
        wave_16k=at_model_rate(wave, plan.sample_rate),
        stereo=np.concatenate(sides)[kept] if sides and num_active == 2 else None,
        flags=recording.flags,
    )


def at_model_rate(wave: Wave, sample_rate: int) -> Wave:
    """The wave at 16 kHz."""
    if sample_rate == MODEL_RATE:
        return wave
    return np.asarray(soxr.resample(wave, sample_rate, MODEL_RATE, quality="HQ"), np.float32)


def recording_of(plan: ChunkPlan, decoder: Decoder, mono: Mono) -> Recording:
    """The recording's row, once all of it was decoded through `mono`."""
    source = plan.source
    declared = decoder.declared_frames
    slack = decoder.declared_slack_s * decoder.sample_rate
    ended_early = declared is not None and mono.frames < declared - slack
    return Recording(
        recording_id=plan.recording_id,
        uri=source.uri,
        session_id=source.session_id,
        speaker=source.speaker,
        language=source.language,
        licence=source.licence,
        consent=source.consent,
        source=source.source,
        transcript=source.transcript,
        utterances=source.utterances,
        duration_s=mono.frames / decoder.sample_rate,
        declared_duration_s=None if declared is None else declared / decoder.sample_rate,
        sample_rate=decoder.sample_rate,
        channels=decoder.channels,
        codec=decoder.codec,
        size_bytes=source.size_bytes or 0,
        num_chunks=plan.num_chunks,
        flags=mono.flags(decoder, ended_early=ended_early),
    )


def _native(plan: ChunkPlan, native_rate: int) -> tuple[int, int | None, int]:
    """The chunk's bounds in frames of the file, and how many samples come before it.

    Where the recording is resampled, the bounds hold some context on either side, and start
    where a sample of both rates falls together: the chunk is then what resampling all of the
    recording would give.
    """
    if native_rate == plan.sample_rate:
        return plan.start_sample, plan.end_sample, 0
    common = gcd(native_rate, plan.sample_rate)
    native, kept = native_rate // common, plan.sample_rate // common
    context = int(CONTEXT_S * plan.sample_rate)
    periods = max(0, plan.start_sample - context) // kept
    stop = None
    if plan.end_sample is not None:
        stop = -(-(plan.end_sample + context) * native // kept)
    return periods * native, stop, plan.start_sample - periods * kept
