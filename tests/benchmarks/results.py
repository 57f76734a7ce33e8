"""What a system's run gave, and the bars that voxquarry is held to."""

from collections.abc import Mapping
from dataclasses import dataclass, field

FASTER_THAN_NAIVE = 2.5
FASTER_THAN_PEER = 5.0
OVER_FLOOR = 1.25
QUIET_CORES = 0.2
LEAST_OVER_FLOOR = 0.8
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
    """Cores that something else kept busy just before."""

    @property
    def is_clean(self) -> bool:
        """Whether the machine was free when this system started."""
        return self.busy_before <= QUIET_CORES

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
    is_clean: bool = True

    @property
    def verdict(self) -> str:
        """PASS, FAIL, NOT MEASURED, or NOT CLEAN when other work was in the way of either."""
        if self.value is None:
            return "NOT MEASURED"
        if not self.is_clean:
            return "NOT CLEAN"
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

    def clean(key: str) -> bool:
        return all(good[name].is_clean for name in ("b", key) if name in good)

    over = ours.started_wall_s / good["c"].wall_s if ours and "c" in good else None
    return [
        Bar(
            name="voxquarry faster than the naive loop, start to end",
            value=times_faster("a"),
            bound=FASTER_THAN_NAIVE,
            at_least=True,
            is_clean=clean("a"),
        ),
        Bar(
            name="voxquarry faster than voxkitchen, start to end",
            value=times_faster("d"),
            bound=FASTER_THAN_PEER,
            at_least=True,
            is_clean=clean("d"),
        ),
        Bar(
            name="voxquarry over the floor, once Ray and its workers have started",
            value=over,
            bound=OVER_FLOOR,
            at_least=False,
            # Nothing but screening gets far below the floor: there the floor itself was held up.
            is_clean=clean("c") and (over is None or over > LEAST_OVER_FLOOR),
        ),
    ]
