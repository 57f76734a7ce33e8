"""From rows to figures: by set and language, by described attribute, and of the AudioVAE."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from annotators.languages import base_code
from annotators.text import WITHOUT_SPACES
from jobs.evaluation.config import EvaluateConfig
from jobs.evaluation.following import Following
from jobs.evaluation.intervals import Figure, mean, ratio
from jobs.evaluation.rows import RecordingRow, UtteranceRow

DNSMOS = ("dnsmos_ovrl", "dnsmos_sig", "dnsmos_bak", "dnsmos_p808")
REBUILT = ("mel_16k", "mel_48k", "stoi", "pesq")


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """The utterances of one set in one language, as one system said them."""

    origin: str
    language: str | None
    measure: str
    """`wer` or `cer`."""
    utterances: int
    """That were judged."""
    refused: int
    silent: int
    cut: int
    """The model did not end them."""
    error_rate: Figure | None
    """All errors over all words, or characters; utterances are the interval's units."""
    error_rate_mean: Figure | None
    """The mean of the utterances' own rates, which some papers print."""
    similarity: Figure | None
    dnsmos: Mapping[str, Figure | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """A system less the first one, on the utterances that both have."""

    origin: str
    language: str | None
    error_rate: Figure | None
    similarity: Figure | None


@dataclass(frozen=True, kw_only=True, slots=True)
class SystemFigures:
    """All figures of one system."""

    label: str
    is_checkpoint: bool
    """False: the recordings."""
    model_hash: str
    groups: Sequence[Group]
    differences: Sequence[Difference]
    """To the first system; empty for the first."""
    real_time_factor: Figure | None
    """Seconds of work for a second of speech; what was spoken together is the interval's unit."""
    following: Mapping[str, Mapping[str, Following]]
    """Origin → attribute → how it was followed."""
    audio_vae: Mapping[str, Figure | None]


def measure_of(language: str | None) -> str:
    """How errors are counted in a language: `wer` or `cer`."""
    return "cer" if base_code(language) in WITHOUT_SPACES else "wer"


def grouped(
    rows: Sequence[UtteranceRow],
) -> dict[tuple[str, str | None], list[UtteranceRow]]:
    """Rows by set and language, in the order of the rows."""
    found: dict[tuple[str, str | None], list[UtteranceRow]] = {}
    for row in rows:
        found.setdefault((row.origin, base_code(row.language)), []).append(row)
    return found


def groups_of(rows: Sequence[UtteranceRow], config: EvaluateConfig) -> list[Group]:
    """Figures of each set and language."""
    return [
        _group(origin, language, some, config) for (origin, language), some in grouped(rows).items()
    ]


def _group(
    origin: str, language: str | None, rows: Sequence[UtteranceRow], config: EvaluateConfig
) -> Group:
    judged = [row for row in rows if row.error is None]
    counted = [(row.errors, row.units) for row in judged if row.errors is not None and row.units]
    rates = [errors / units for errors, units in counted]
    return Group(
        origin=origin,
        language=language,
        measure=measure_of(language),
        utterances=len(judged),
        refused=len(rows) - len(judged),
        silent=sum(row.audible is False for row in judged),
        cut=sum(row.stopped is False for row in judged),
        error_rate=ratio([e for e, _ in counted], [u for _, u in counted], config),
        error_rate_mean=mean(rates, config),
        similarity=_mean_of(judged, "similarity", config),
        dnsmos={name: _mean_of(judged, name, config) for name in DNSMOS},
    )


def _mean_of(rows: Sequence[Any], name: str, config: EvaluateConfig) -> Figure | None:
    """Of what was measured."""
    values = [getattr(row, name) for row in rows]
    return mean([value for value in values if value is not None], config)


def real_time_factor(rows: Sequence[UtteranceRow], config: EvaluateConfig) -> Figure | None:
    """Seconds of work over seconds of speech."""
    spent = {row.unit: (row.unit_s, row.unit_audio_s) for row in rows if row.unit is not None}
    pairs = [(s, audio_s) for s, audio_s in spent.values() if s and audio_s]
    return ratio([s for s, _ in pairs], [audio_s for _, audio_s in pairs], config)


def audio_vae_of(rows: Sequence[RecordingRow], config: EvaluateConfig) -> dict[str, Figure | None]:
    """Means over the recordings; empty without any."""
    return {name: _mean_of(rows, name, config) for name in REBUILT} if rows else {}


def differences_of(
    first: Sequence[UtteranceRow], other: Sequence[UtteranceRow], config: EvaluateConfig
) -> list[Difference]:
    """`other` less `first`, by set and language; negative error rates are better."""
    known = {(row.origin, row.utterance_id): row for row in first if row.error is None}
    found = []
    for (origin, language), rows in grouped(other).items():
        pairs = [
            (known[origin, row.utterance_id], row)
            for row in rows
            if row.error is None and (origin, row.utterance_id) in known
        ]
        found.append(
            Difference(
                origin=origin,
                language=language,
                # Both have the same texts, so the same units.
                error_rate=_paired(pairs, "errors", lambda row: float(row.units or 0), config),
                similarity=_paired(pairs, "similarity", lambda row: 1.0, config),
            )
        )
    return found


def _paired(
    pairs: Sequence[tuple[UtteranceRow, UtteranceRow]],
    name: str,
    weight: Callable[[UtteranceRow], float],
    config: EvaluateConfig,
) -> Figure | None:
    both = [
        (getattr(b, name) - getattr(a, name), weight(a))
        for a, b in pairs
        if getattr(a, name) is not None and getattr(b, name) is not None and weight(a) > 0
    ]
    return ratio([change for change, _ in both], [units for _, units in both], config)
