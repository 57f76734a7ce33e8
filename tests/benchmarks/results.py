"""What a system's run gave, and the bars that voxquarry is held to."""

from collections.abc import Mapping
from dataclasses import dataclass, field

FASTER_THAN_NAIVE = 2.5
FASTER_THAN_PEER = 5.0
OVER_FLOOR = 1.25
MODELS = ("vad", "transcription", "dnsmos", "speaker")


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """One system over the whole audio."""

    key: str
    """a naive, b voxquarry, c floor, d peer."""
    system: str
    wall_s: float = 0.0
    """From the start of the program to its end; for the floor, the sum over the models."""
    ray_start_s: float = 0.0
    worker_start_s: float = 0.0
    """Wall seconds until every worker had its models open."""
    num_clips: int = 0
    clip_s: float = 0.0
    num_words: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Wall seconds per stage; where stages share the cores, their seconds over the cores."""
    note: str = ""
    failure: str | None = None
    """Why there are no figures."""
    busy_before: float = 0.0
    """Cores that something else kept busy just before: with more than a few hundredths, the
    figures are not clean."""

    @property
    def started_wall_s(self) -> float:
        """Seconds once Ray and its workers have started."""
        return self.wall_s - self.ray_start_s - self.worker_start_s


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """One figure against what it must be."""

    name: str
    value: float | None
    """None when one of its two systems gave no figures."""
    bound: float
    at_least: bool

    @property
    def verdict(self) -> str:
        """PASS, FAIL or NOT MEASURED."""
        if self.value is None:
            return "NOT MEASURED"
        holds = self.value >= self.bound if self.at_least else self.value <= self.bound
        return "PASS" if holds else "FAIL"

    def __str__(self) -> str:
        sign = "≥" if self.at_least else "≤"
        value = "–" if self.value is None else f"{self.value:.2f}"
        return f"{self.verdict:12} {self.name}: {value} × (bar {sign} {self.bound:g} ×)"


def bars(results: Mapping[str, Result]) -> list[Bar]:
    """The three bars, from the results by key."""
    good = {key: result for key, result in results.items() if result.failure is None}
    ours = good.get("b")

    def times_faster(key: str) -> float | None:
        return good[key].wall_s / ours.wall_s if ours and key in good else None

    over = ours.started_wall_s / good["c"].wall_s if ours and "c" in good else None
    return [
        Bar(
            name="voxquarry faster than the naive loop, start to end",
            value=times_faster("a"),
            bound=FASTER_THAN_NAIVE,
            at_least=True,
        ),
        Bar(
            name="voxquarry faster than voxkitchen, start to end",
            value=times_faster("d"),
            bound=FASTER_THAN_PEER,
            at_least=True,
        ),
        Bar(
            name="voxquarry over the floor, once Ray and its workers have started",
            value=over,
            bound=OVER_FLOOR,
            at_least=False,
        ),
    ]
