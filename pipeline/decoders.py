"""Open audio by uri and decode it in blocks: libsndfile where it reads the format, else FFmpeg.

A decoder yields (frames, channels) float32 in [-1, 1] at the file's own rate, from any frame on.
Nothing here holds more than a block.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any, Protocol

import av
import numpy as np
import numpy.typing as npt
import soundfile
from pyarrow import fs as pafs

from schemas.errors import EmptyFile, MissingSource, UndecodableAudio

Block = npt.NDArray[np.float32]

# Small enough that a damaged frame costs little of what came before it.
BLOCK_FRAMES = 1 << 15
# FFmpeg decoders need some packets before their output is exact.
PREROLL_S = 1.0


class Decoder(Protocol):
    """One open audio stream."""

    sample_rate: int
    channels: int
    codec: str
    declared_frames: int | None
    """What the header promises; None where it promises nothing."""
    cut_short: bool
    """The container itself shows that its end is missing."""

    def blocks(self, start: int, stop: int | None) -> Iterator[Block]:
        """Frames start … stop (None: to the end); ends early where the audio does."""
        ...


def open_bytes(uri: str) -> Any:
    """A seekable binary file for a local path or a uri. Raises `MissingSource`."""
    try:
        if "://" not in uri:
            return open(uri, "rb")
        filesystem, path = pafs.FileSystem.from_uri(uri)
        return filesystem.open_input_file(path)
    except (OSError, ValueError) as error:
        raise MissingSource(f"cannot open {uri}: {error}") from error


@contextmanager
def open_decoder(uri: str) -> Iterator[Decoder]:
    """Open the audio of a uri.

    Raises `MissingSource`, `EmptyFile`, or `UndecodableAudio` with what both decoders said.
    """
    with open_bytes(uri) as file:
        if not file.read(1):
            raise EmptyFile(f"{uri} holds no bytes")
        file.seek(0)
        try:
            with soundfile.SoundFile(file) as sound:
                # libsndfile starts an mp3 in the middle without the bits that frame borrows
                # from its forerunners; FFmpeg does not.
                if sound.format != "MP3":
                    yield SndfileDecoder(sound)
                    return
            sndfile_says = "left to FFmpeg"
        except soundfile.LibsndfileError as error:
            sndfile_says = str(error).rpartition(": ")[2]
        file.seek(0)
        try:
            container = av.open(file)
        except (av.FFmpegError, ValueError) as error:
            raise UndecodableAudio(
                f"{uri} is not audio: libsndfile says {sndfile_says!r}, FFmpeg says {error!s}"
            ) from error
        with container:
            if not container.streams.audio:
                raise UndecodableAudio(f"{uri} has no audio track")
            yield FfmpegDecoder(container)


class SndfileDecoder:
    """wav, flac, ogg, opus, aiff, caf … through libsndfile."""

    def __init__(self, sound: soundfile.SoundFile) -> None:
        self._sound = sound
        self.sample_rate = int(sound.samplerate)
        self.channels = int(sound.channels)
        self.codec = f"{sound.format}/{sound.subtype}"
        self.declared_frames: int | None = int(sound.frames)
        # For a wav whose data chunk is longer than the file, libsndfile corrects the count and
        # only its log tells.
        self.cut_short = "(should be" in sound.extra_info

    def blocks(self, start: int, stop: int | None) -> Iterator[Block]:
        """See `Decoder`."""
        if start:
            self._sound.seek(start)
        left = stop - start if stop is not None else None
        while left is None or left > 0:
            wanted = BLOCK_FRAMES if left is None else min(left, BLOCK_FRAMES)
            try:
                block = self._sound.read(wanted, dtype="float32", always_2d=True)
            except soundfile.LibsndfileError:
                # A damaged frame ends what can be decoded; the count tells that some is missing.
                return
            if not len(block):
                return
            left = None if left is None else left - len(block)
            yield block


class FfmpegDecoder:
    """mp3, m4a, mp4, mkv, webm … through PyAV; the first audio track."""

    def __init__(self, container: Any) -> None:
        self._container = container
        self._stream = container.streams.audio[0]
        context = self._stream.codec_context
        self.sample_rate = int(context.sample_rate)
        self.channels = int(context.channels)
        self.codec = f"{container.format.name.split(',')[0]}/{context.name}"
        self.cut_short = False
        self._origin = self._stream.start_time or 0
        self.declared_frames = self._declared()

    def _declared(self) -> int | None:
        if self._stream.duration:
            seconds = self._stream.duration * self._stream.time_base
        elif self._container.duration:
            seconds = Fraction(self._container.duration, av.time_base)
        else:
            return None
        return int(seconds * self.sample_rate)

    def blocks(self, start: int, stop: int | None) -> Iterator[Block]:
        """See `Decoder`. Positions come from the packets' time stamps."""
        if start:
            early = max(Fraction(0), Fraction(start, self.sample_rate) - Fraction(PREROLL_S))
            self._container.seek(
                int(early / self._stream.time_base) + self._origin, stream=self._stream
            )
        position: int | None = None
        for frame in self._frames():
            if position is None:
                ticks = (frame.pts or 0) - self._origin
                position = round(ticks * frame.time_base * self.sample_rate)
            block = _as_float(frame)
            first = max(0, start - position)
            last = len(block) if stop is None else min(len(block), stop - position)
            position += len(block)
            if first < last:
                yield block[first:last]
            if stop is not None and position >= stop:
                return

    def _frames(self) -> Iterator[Any]:
        try:
            yield from self._container.decode(self._stream)
        except (av.FFmpegError, io.UnsupportedOperation):
            # As with libsndfile: what decoded stands, and the count tells that some is missing.
            return


def _as_float(frame: Any) -> Block:
    """A decoded frame of any sample format as (frames, channels) float32."""
    samples = frame.to_ndarray()
    if frame.format.is_planar:
        samples = samples.T
    else:
        samples = samples.reshape(-1, len(frame.layout.channels))
    if np.issubdtype(samples.dtype, np.integer):
        if samples.dtype == np.uint8:
            return np.asarray((samples.astype(np.float32) - 128) / 128, np.float32)
        return np.asarray(samples / -float(np.iinfo(samples.dtype).min), np.float32)
    return np.asarray(samples, np.float32)
