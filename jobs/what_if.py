"""Thresholds tried: what a policy would keep if its limits were others."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import polars as pl

from pipeline.policy import Policy, breaks, judge
from pipeline.reviews import read_reviews
from pipeline.storage import Corpus
from schemas.arrow import CLIPS


def scores_to_judge(corpus: Corpus, policy: Policy) -> pl.DataFrame:
    """What `WhatIf` looks at: the policy's columns, lengths, and what is needed to listen."""
    columns = {*policy.columns, "duration_s", "language", "text"}
    return corpus.read(CLIPS, sorted(columns))


class WhatIf:
    """Verdicts under other thresholds, fast enough to follow a slider.

    Each rule is judged once; a changed one is judged again, alone.
    """

    def __init__(
        self, clips: pl.DataFrame, policy: Policy, reviews: pl.DataFrame | None = None
    ) -> None:
        """clips: of `scores_to_judge`. reviews: as `pipeline.policy.judge` takes them."""
        self.clips, self.policy, self._reviews = clips, policy, reviews
        # Screening and tiers are no rule's: what a policy without rules rejects.
        self._fixed = ~judge(clips, replace(policy, rules={}))["accepted"]
        self._broken = {name: self._breaks(name, policy) for name in policy.rules}

    def kept(self, changes: Mapping[str, Mapping[str, Any]]) -> pl.Series:
        """Which clips are accepted if rules have other limits.

        changes: reason → limits, such as {"low_snr": {"min": 20.0}}. Raises `KeyError` for a
        reason that the policy has no rule of.
        """
        rules = {
            name: replace(self.policy.rules[name], **limits) for name, limits in changes.items()
        }
        changed = replace(self.policy, rules={**self.policy.rules, **rules})
        broken = self._broken | {name: self._breaks(name, changed) for name in rules}
        return ~pl.select(pl.any_horizontal(self._fixed, *broken.values())).to_series()

    def hours(self, kept: pl.Series) -> float:
        """Of the accepted clips."""
        return float(self.clips["duration_s"].filter(kept).sum()) / 3600

    def lost(self, changes: Mapping[str, Mapping[str, Any]]) -> pl.DataFrame:
        """Clips that the policy keeps and the changed one does not, the shortest names first."""
        now, then = self.kept({}), self.kept(changes)
        return self.clips.filter(now & ~then).sort("clip_id")

    def curve(self, reason: str, side: str, limits: Sequence[float]) -> pl.DataFrame:
        """Hours kept at each limit of one rule. side: `min` or `max`."""
        hours = [self.hours(self.kept({reason: {side: limit}})) for limit in limits]
        return pl.DataFrame({"limit": list(limits), "hours": hours})

    def _breaks(self, reason: str, policy: Policy) -> pl.Series:
        return breaks(self.clips, policy, reason, self._reviews)


def what_if(corpus: Corpus, policy: Policy) -> WhatIf:
    """Over all clips of a corpus."""
    return WhatIf(scores_to_judge(corpus, policy), policy, read_reviews(corpus))
