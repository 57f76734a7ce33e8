"""What stages tell Prometheus, through Ray's own exporter on every node.

    ray_voxquarry_stage_busy_seconds_total{phase, stage}    seconds that workers spent in a stage
    ray_voxquarry_stage_audio_seconds_total{phase, stage}   seconds of audio that went through it

Ray puts `ray_` before a name, `_total` behind a counter's, and the node to the tags.
"""

from ray.util.metrics import Counter

TAGS = ("phase", "stage")


class StageMetrics:
    """The counters of one worker of a phase."""

    def __init__(self, phase: str) -> None:
        self.phase = phase
        self._busy = Counter(
            "voxquarry_stage_busy_seconds", "Seconds that workers spent in a stage.", TAGS
        )
        self._audio = Counter(
            "voxquarry_stage_audio_seconds", "Seconds of audio that went through a stage.", TAGS
        )

    def add(self, stage: str, busy_s: float, audio_s: float) -> None:
        """Count what one unit took in a stage.

        audio_s: as far as the plan knows the lengths of its items.
        """
        tags = {"phase": self.phase, "stage": stage}
        # A counter refuses zero.
        for counter, seconds in ((self._busy, busy_s), (self._audio, audio_s)):
            if seconds > 0:
                counter.inc(seconds, tags)
