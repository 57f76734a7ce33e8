"""Figures with their bootstrap intervals.

Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics 7, 1979, by
percentiles. For error rates of a corpus with utterances as units: Bisani and Ney, "Bootstrap
estimates for confidence intervals in ASR performance evaluation", ICASSP 2004.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import bootstrap

from jobs.evaluation.config import EvaluateConfig

F64 = npt.NDArray[np.float64]

_AT_ONCE = 4_000_000
"""Numbers that one step of the bootstrap may draw."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """An estimate. low and high: of its interval; None where one unit says nothing of others."""

    value: float
    low: float | None = None
    high: float | None = None
    units: int


def ratio(
    numerators: Sequence[float], denominators: Sequence[float], config: EvaluateConfig
) -> Figure | None:
    """Sum over sum, with units drawn as pairs. None where the denominators sum to nothing."""
    above, below = np.asarray(numerators, np.float64), np.asarray(denominators, np.float64)
    weighty = below > 0
    if not weighty.any():
        return None
    value = float(above.sum() / below.sum())
    units = len(above)
    # A draw of nothing but weightless units would have no ratio.
    if units < 2 or not weighty.all():
        return Figure(value=value, units=units)
    found = bootstrap(
        (above, below),
        _ratios,
        paired=True,
        vectorized=True,
        n_resamples=config.resamples,
        batch=max(1, _AT_ONCE // units),
        confidence_level=config.confidence,
        method="percentile",
        rng=np.random.default_rng(config.seed),
    ).confidence_interval
    return Figure(value=value, low=float(found.low), high=float(found.high), units=units)


def mean(values: Sequence[float], config: EvaluateConfig) -> Figure | None:
    """The mean of units; None without any."""
    return ratio(values, [1.0] * len(values), config)


def _ratios(above: F64, below: F64, axis: int = -1) -> F64:
    ratios: F64 = above.sum(axis=axis) / below.sum(axis=axis)
    return ratios
