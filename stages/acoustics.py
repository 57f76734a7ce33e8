"""What the voice of each clip does, in numbers."""

from collections.abc import Sequence
from dataclasses import asdict, replace

from annotators.acoustics import measure
from schemas.attributes import Attributes, HeardClip
from stages.prosody import emphasis_of, pauses_of


def attributes_of(clip: HeardClip) -> Attributes:
    """Pitch, loudness, timbre, pauses and emphasis. Raises EmptyAudio."""
    acoustics, contour = measure(clip.wave, clip.sample_rate, clip.bandwidth_hz)
    pauses = pauses_of(clip.speech)
    emphasis, emphasised = emphasis_of(clip.words, contour)
    return Attributes(
        **asdict(acoustics),
        clip_id=clip.clip_id,
        pause_ratio=pauses.ratio if pauses else None,
        num_pauses=pauses.number if pauses else None,
        longest_pause_s=pauses.longest_s if pauses else None,
        emphasis=emphasis,
        emphasised=emphasised,
        attempt=clip.attempt,
    )


class AcousticsStage:
    """Fills `attributes`."""

    name = "acoustics"

    def setup(self) -> None:
        """Nothing to open: Praat is a library."""

    def process(self, batch: Sequence[HeardClip]) -> list[HeardClip]:
        """Return the clips with their measures."""
        return [replace(clip, attributes=attributes_of(clip)) for clip in batch]
