"""Open audio by uri and decode it in blocks: libsndfile where it reads the format well, else FFmpeg.

A decoder yields (frames, channels) float32 in [-1, 1] at the file's own rate, from any frame on.
Nothing here holds more than a block.
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import soundfile

from pipeline.ffmpeg import BLOCK_FRAMES, Block, FfmpegDecoder, Mark
from pipeline.opening import open_bytes, watched
from schemas.errors import DataError, EmptyFile, MissingSource

__all__ = ["Block", "Decoder", "Mark", "SndfileDecoder", "open_decoder"]

# libsndfile starts an mp3 in the middle without the bits that a frame borrows from the ones
# before it, and gives up a FLAC at its first damaged frame, or at once where the header leaves
# the length open. FFmpeg does neither.
FFMPEG_DOES_BETTER = frozenset({"MP3", "FLAC"})
_PROMISE = re.compile(r"^\s*(?:data|SSND)\s*: (\d+) \(should be (\d+)\)", re.MULTILINE)


class Decoder(Protocol):
    """One open audio stream."""

    sample_rate: int
    channels: int
    codec: str
    declared_frames: int | None
    """What the header promises; None where it promises nothing that can be relied on."""
    declared_slack_s: float
    """How far the promise may lie beside the truth in a sound file."""
    cut_short: bool
    """The container itself shows that its end is missing."""
    num_damaged: int
    """Packets that did not decode, so far."""
    marks: list[Mark]
    """Places to start from that a decoding from the start came by; none where a seek is exact."""

    def blocks(self, start: int, stop: int | None, mark: Mark | None = None) -> Iterator[Block]:
        """Frames start … stop (None: to the end); ends early where the audio does.

        mark: one of an earlier decoding's marks, at or before start. Without it, a decoder whose
        seeks are not exact decodes from the beginning.
        """
        ...


@contextmanager
def open_decoder(uri: str) -> Iterator[Decoder]:
    """Open the audio of a uri.

    Raises `MissingSource` (also when reading fails on the way), `EmptyFile`, or
    `UndecodableAudio` with what both decoders said.
    """
    raw = watched(uri, quiet=True)
    try:
        with open_bytes(raw) as file, _opened(file, uri) as decoder:
            yield decoder
    except DataError as error:
        if raw.failure is None:
            raise
        raise MissingSource(f"reading {uri} failed: {raw.failure}") from error
    if raw.failure is not None:
        raise MissingSource(f"reading {uri} failed: {raw.failure}") from raw.failure


@contextmanager
def _opened(file: io.BufferedReader, uri: str) -> Iterator[Decoder]:
    if not file.read(1):
        raise EmptyFile(f"{uri} holds no bytes")
    file.seek(0)
    try:
        sound = soundfile.SoundFile(file)
    except soundfile.LibsndfileError as error:
        sndfile_says = str(error).rpartition(": ")[2]
    else:
        with sound:
            if sound.format not in FFMPEG_DOES_BETTER:
                yield SndfileDecoder(sound)
                return
        sndfile_says = "left to FFmpeg"
    file.seek(0)
    with FfmpegDecoder.opened(file, uri, sndfile_says) as decoder:
        yield decoder


class SndfileDecoder:
    """wav, ogg, opus, aiff, caf … through libsndfile. Its seeks are exact."""

    def __init__(self, sound: soundfile.SoundFile) -> None:
        self._sound = sound
        self.sample_rate = int(sound.samplerate)
        self.channels = int(sound.channels)
        self.codec = f"{sound.format}/{sound.subtype}"
        self.declared_frames: int | None = int(sound.frames)
        self.declared_slack_s = 0.0
        self.num_damaged = 0
        self.marks: list[Mark] = []
        log = sound.extra_info
        self.cut_short = "lacks an end-of-stream bit" in log
        # For a data chunk that is longer than the file, libsndfile corrects the count and only
        # its log tells.
        if (found := _PROMISE.search(log)) and not _placeholder(int(found[1])):
            promised, there = int(found[1]), int(found[2])
            if promised > there > 0:
                self.cut_short = True
                self.declared_frames = int(sound.frames * promised / there)

    def blocks(self, start: int, stop: int | None, mark: Mark | None = None) -> Iterator[Block]:
        """See `Decoder`."""
        if start:
            self._sound.seek(start)
        left = stop - start if stop is not None else None
        while left is None or left > 0:
            wanted = BLOCK_FRAMES if left is None else min(left, BLOCK_FRAMES)
            try:
                block = self._sound.read(wanted, dtype="float32", always_2d=True)
            except soundfile.LibsndfileError:
                # What decoded stands; the count tells that some is missing.
                self.num_damaged += 1
                return
            if not len(block):
                return
            left = None if left is None else left - len(block)
            yield block


def _placeholder(num_bytes: int) -> bool:
    """Whether a chunk size is what recorders and pipes write where the length is unknown."""
    return (
        num_bytes == 0
        or num_bytes >= 0xFFFF_FF00  # FFmpeg
        or 0x7FFF_F000 <= num_bytes <= 0x8000_0100  # SoX, arecord
    )
