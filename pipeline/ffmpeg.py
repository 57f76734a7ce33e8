"""Decode with FFmpeg what libsndfile does not read, or not as well.

Containers give a packet's time rounded (Matroska to a millisecond) or estimated, so a time does
not name a sample. A decoding from the start therefore leaves marks, pairs of a frame's time stamp
and the samples that came before it, and a later one that starts at a mark is exact.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, BinaryIO

import av
import numpy as np
import numpy.typing as npt

from schemas.errors import UndecodableAudio

Block = npt.NDArray[np.float32]

BLOCK_FRAMES = 1 << 15
# Decoders need some packets before their output is exact, and containers seek roughly.
PREROLL_S = 1.0
# Containers that state their length or stamp their packets. Of others (raw AAC, AMR, an mp3
# without a count) FFmpeg guesses the length from the bit rate.
COUNTED = frozenset(
    (
        *("aiff", "ape", "asf", "avi", "caf", "flac", "flv", "matroska"),
        *("mov", "mpc8", "ogg", "tta", "w64", "wav", "wv"),
    )
)
# Lossy formats pad their ends, and some containers count in packets.
LOSSY_SLACK_S = 0.25
LOSSLESS = frozenset({"flac", "alac", "tta", "wavpack", "ape"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """A frame that decoding can start from."""

    pts: int
    """The frame's time stamp, in the stream's time base."""
    position: int
    """Samples that lie before it."""


class FfmpegDecoder:
    """flac, mp3, m4a, mp4, mkv, webm … through PyAV; the first audio track."""

    def __init__(self, container: Any, *, counted: bool) -> None:
        self._container = container
        self._stream = container.streams.audio[0]
        context = self._stream.codec_context
        self.sample_rate = int(context.sample_rate)
        self.channels = int(context.channels)
        self.codec = f"{container.format.name.split(',')[0]}/{context.name}"
        self.cut_short = False
        self.num_damaged = 0
        self.marks: list[Mark] = []
        self.declared_frames = self._declared() if counted else None
        self.declared_slack_s = 0.0 if context.name in LOSSLESS else LOSSY_SLACK_S

    @classmethod
    @contextmanager
    def opened(cls, file: BinaryIO, uri: str, sndfile_says: str) -> Iterator["FfmpegDecoder"]:
        """Open a file at its start. Raises `UndecodableAudio`."""
        mp3_counted = _mp3_is_counted(file)
        try:
            # A playlist must not make FFmpeg open other files or addresses.
            container = av.open(file, options={"protocol_whitelist": "none"})
        except (av.FFmpegError, ValueError) as error:
            said = getattr(error, "strerror", None) or str(error)
            raise UndecodableAudio(
                f"{uri} is not audio: libsndfile says {sndfile_says!r}, FFmpeg says {said!r}"
            ) from error
        with container:
            if not container.streams.audio:
                raise UndecodableAudio(f"{uri} has no audio track")
            context = container.streams.audio[0].codec_context
            if context is None or not context.sample_rate or not context.channels:
                raise UndecodableAudio(f"{uri} has an audio track of an unknown codec")
            if context.name == "flac":
                # FLAC carries checksums, which FFmpeg does not heed unless told to.
                context.options = {"err_detect": "crccheck+explode"}
            kind = container.format.name.split(",")[0]
            yield cls(container, counted=mp3_counted if kind == "mp3" else kind in COUNTED)

    def _declared(self) -> int | None:
        if self._stream.duration:
            seconds = self._stream.duration * self._stream.time_base
        elif self._container.duration:
            seconds = Fraction(self._container.duration, av.time_base)
        else:
            return None
        return int(seconds * self.sample_rate)

    def blocks(self, start: int, stop: int | None, mark: Mark | None = None) -> Iterator[Block]:
        """See `Decoder`."""
        parts: list[Block] = []
        size = 0
        for position, samples in self._placed(mark):
            first = max(0, start - position)
            last = len(samples) if stop is None else min(len(samples), stop - position)
            if first < last:
                parts.append(samples[first:last])
                size += last - first
            if size >= BLOCK_FRAMES:
                yield np.concatenate(parts)
                parts, size = [], 0
            if stop is not None and position + len(samples) >= stop:
                break
        if parts:
            yield np.concatenate(parts)

    def _placed(self, mark: Mark | None) -> Iterator[tuple[int, Block]]:
        """Decoded frames with their first sample's position in the recording."""
        position: int | None = 0
        if mark is not None:
            self._seek(mark.pts)
            position = None
        previous: int | None = None
        for frame in self._frames():
            if position is None:
                assert mark is not None
                if frame.pts is None or frame.pts < mark.pts:
                    continue
                if frame.pts > mark.pts:
                    raise UndecodableAudio(
                        f"no frame at time stamp {mark.pts} any more, where one was before"
                    )
                position = mark.position
            if mark is None:
                self._note(frame.pts, previous, position)
                previous = frame.pts if frame.pts is not None else previous
            samples = self._as_float(frame)
            yield position, samples
            position += len(samples)

    def _seek(self, pts: int) -> None:
        base = self._stream.time_base
        self._container.seek(pts - int(Fraction(PREROLL_S) / base), stream=self._stream)

    def _note(self, pts: int | None, previous: int | None, position: int) -> None:
        """Leave a mark about every second, where the time stamp is the frame's own."""
        if pts is None or (previous is not None and pts <= previous):
            return
        if not self.marks or position - self.marks[-1].position >= self.sample_rate:
            self.marks.append(Mark(pts=pts, position=position))

    def _frames(self) -> Iterator[Any]:
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except av.FFmpegError:
                # What decoded stands; the count tells that some is missing.
                self.num_damaged += 1
                return
            if packet is None:
                return
            try:
                frames = packet.decode()
            except av.FFmpegError:
                # A damaged packet costs itself alone.
                self.num_damaged += 1
                continue
            yield from frames

    def _as_float(self, frame: Any) -> Block:
        """A decoded frame of any sample format as (frames, channels) float32."""
        channels = len(frame.layout.channels)
        if (frame.sample_rate, channels) != (self.sample_rate, self.channels):
            raise UndecodableAudio(
                f"the stream changes from {self.sample_rate} Hz, {self.channels} channels "
                f"to {frame.sample_rate} Hz, {channels} channels on its way"
            )
        samples = frame.to_ndarray()
        samples = samples.T if frame.format.is_planar else samples.reshape(-1, channels)
        if samples.dtype == np.uint8:
            return np.asarray((samples.astype(np.float32) - 128) / 128, np.float32)
        if np.issubdtype(samples.dtype, np.integer):
            return np.asarray(samples / -float(np.iinfo(samples.dtype).min), np.float32)
        return np.asarray(samples, np.float32)


def _mp3_is_counted(file: BinaryIO) -> bool:
    """Whether an mp3's first frame holds the number of frames (a Xing, Info or VBRI header)."""
    head = file.read(10)
    # An ID3 tag's length is written in four times seven bits.
    skip = 0
    if head[:3] == b"ID3" and len(head) == 10:
        skip = 10 + sum(byte << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
    file.seek(skip)
    first = file.read(256)
    file.seek(0)
    return any(name in first for name in (b"Xing", b"Info", b"VBRI"))
