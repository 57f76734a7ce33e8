"""Gender, age group and emotion of each clip, as the experts hear them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace

from annotators.acoustic_expert import AcousticExpert
from annotators.expert import Expert, Opinion, Sound, combined
from annotators.registry import resolve
from schemas.attributes import Acoustics, HeardClip
from schemas.errors import ConfigError

ACOUSTIC = "acoustic"


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpertsConfig:
    """Who judges what."""

    voice: str = ACOUSTIC
    """For gender and age: `acoustic` (pitch and formants), a known model such as `age-gender`, a
    path, or a hub repository in the transformers format."""
    emotion: str = ACOUSTIC
    """`acoustic` compares a clip with the speaker's others once all are measured; else a model as
    above, such as `emotion-dim`."""
    device: str = "cpu"
    """`cpu` or `cuda`."""
    threads: int = 1
    """Threads of a model on a CPU."""
    batch_size: int = 8
    """Clips per call of a model."""

    def __post_init__(self) -> None:
        for name in ("threads", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"experts.{name} must be at least 1, got {getattr(self, name)}")

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models that have weights to find."""
        return tuple(name for name in (self.voice, self.emotion) if name != ACOUSTIC)


def open_experts(config: ExpertsConfig) -> list[Expert]:
    """The experts with their weights, the first one's word before the second's.

    Raises ModelLoadError.
    """
    experts: list[Expert] = []
    for name in dict.fromkeys(config.models):
        from annotators.wav2vec2_expert import Wav2Vec2Expert

        experts.append(
            Wav2Vec2Expert(
                resolve(name).path,
                device=config.device,
                threads=config.threads,
                batch_size=config.batch_size,
            )
        )
    return [AcousticExpert(), *experts] if config.voice == ACOUSTIC else experts


def judged(batch: Sequence[HeardClip], experts: Sequence[Expert]) -> list[HeardClip]:
    """The clips with the experts' opinions in their attributes."""
    sounds = []
    for clip in batch:
        assert clip.attributes is not None, "clips are measured first"
        measures = {f.name: getattr(clip.attributes, f.name) for f in fields(Acoustics)}
        sounds.append(Sound(wave_16k=clip.wave_16k, acoustics=Acoustics(**measures)))
    views: list[list[Opinion]] = [expert.judge(sounds) for expert in experts]
    done = []
    for clip, opinions in zip(batch, zip(*views, strict=True), strict=True):
        assert clip.attributes is not None
        opinion = asdict(combined(opinions))
        done.append(replace(clip, attributes=replace(clip.attributes, **opinion)))
    return done


class Experts:
    """Fills gender, age and, where a model judges it, emotion."""

    name = "experts"

    def __init__(self, config: ExpertsConfig) -> None:
        self.config = config
        self._experts: list[Expert] | None = None

    def setup(self) -> None:
        """Open the experts. Raises ModelLoadError."""
        self._experts = open_experts(self.config)

    def process(self, batch: Sequence[HeardClip]) -> list[HeardClip]:
        """Return the clips with what the experts hear."""
        assert self._experts is not None, "setup() comes first"
        return judged(batch, self._experts)
