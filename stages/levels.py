"""Where a clip stands in its corpus: levels of each measure, and the words that follow.

A level is a bin of the corpus' own distribution, per language and gender: the lowest and the
highest tenth are `very`, the next fifths the plain low and high. A difference that nobody hears is
no level, so each bin also begins at least a noticeable step away from the median.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from schemas.attributes import Level
from schemas.descriptions import CLOSED

QUANTILES = (0.1, 0.3, 0.7, 0.9)
# A group of fewer clips takes the levels of a larger group.
FEWEST = 20
# Percentiles of expressiveness that are kept, so that another share needs no other levels.
PERCENTILES = tuple(i / 100 for i in range(1, 100))


@dataclass(frozen=True, kw_only=True, slots=True)
class Measure:
    """A measure that has levels."""

    value: pl.Expr
    step: float
    """The least distance from the median that is a level, in the measure's unit; half of what
    `very` takes."""
    by_gender: bool = True
    """Means something only beside voices of the same gender."""


def _log(column: str, scale: float = 1.0) -> pl.Expr:
    """Ratios as distances; what is not positive was not measured."""
    value = pl.col(column)
    return pl.when(value > 0).then(value.log() * scale)


# Just-noticeable differences are smaller in the laboratory; these are differences worth a word.
# Pitch: 't Hart 1981, 1.5 to 3 semitones. Tempo: Quené, "On the just noticeable difference for
# tempo in speech", J. Phonetics 35, 2007: 5 %. Timbre: steps of about half a standard deviation
# between the clean speakers of the development set.
MEASURES = {
    "pitch": Measure(value=_log("f0_median_hz", 17.31), step=1.5),  # 12 / ln 2: semitones
    "pitch_range": Measure(value=pl.col("f0_range_st"), step=1.5),
    "rate": Measure(value=_log("chars_per_s"), step=0.12, by_gender=False),
    "energy": Measure(value=pl.col("loudness_lufs"), step=2.0, by_gender=False),
    "pauses": Measure(value=pl.col("pause_ratio"), step=0.05, by_gender=False),
    "emphasis": Measure(value=pl.col("emphasis"), step=0.3, by_gender=False),
    "harmonicity": Measure(value=pl.col("hnr_db"), step=1.5),
    "brightness": Measure(value=pl.col("alpha_ratio_db"), step=2.0),
    "jitter": Measure(value=_log("jitter"), step=0.2),
    "shimmer": Measure(value=_log("shimmer"), step=0.15),
}
EXPRESSIVENESS = "expressiveness"

Group = tuple[str | None, str | None]
"""Language and gender; None: all of them."""


def measured(frame: pl.DataFrame) -> pl.DataFrame:
    """clip_id, language, gender, and the value of each measure.

    frame: the columns of `attributes`, with language and chars_per_s of `clips`.
    """
    values = {
        name: pl.when(measure.value.is_finite()).then(measure.value)
        for name, measure in MEASURES.items()
    }
    return frame.select("clip_id", "language", "gender", **values)


def levels_of(values: pl.DataFrame) -> list[Level]:
    """Levels of every group that is large enough, and of all clips together.

    values: as `measured` gives them.
    """
    groups: list[tuple[Group, pl.DataFrame]] = [((None, None), values)]
    for (gender,), part in values.group_by(["gender"], maintain_order=True):
        if gender is not None and part.height >= FEWEST:
            groups.append(((None, str(gender)), part))
    for (language, gender), part in values.group_by(["language", "gender"], maintain_order=True):
        if language is not None and gender is not None and part.height >= FEWEST:
            groups.append(((str(language), str(gender)), part))
    levels = []
    for (language, gender), part in groups:
        for name, measure in MEASURES.items():
            known = part[name].drop_nulls()
            if len(known) < (FEWEST if gender else 1):
                continue
            levels.append(
                Level(
                    measure=name,
                    language=language,
                    gender=gender,
                    num_clips=len(known),
                    edges=edges_of(known, measure.step),
                    median=_number(known.median()),
                )
            )
    return sorted(levels, key=lambda it: (it.measure, it.language or "", it.gender or ""))


def edges_of(values: pl.Series, step: float) -> tuple[float, float, float, float]:
    """Where `low`, `moderate`, `high` and `very high` begin; below the first is `very low`."""
    median = _number(values.median())
    lowest, low, high, highest = (
        _number(values.quantile(q, interpolation="linear")) for q in QUANTILES
    )
    return (
        min(lowest, median - 2 * step),
        min(low, median - step),
        max(high, median + step),
        max(highest, median + 2 * step),
    )


def level_for(levels: Sequence[Level], name: str, group: Group) -> Level | None:
    """The levels that hold for a group: its own, its gender's, then those of all clips.

    A measure that needs voices of the same gender has none where too few are known.
    """
    language, gender = group
    known = {(it.language, it.gender): it for it in levels if it.measure == name}
    chain: list[Group] = [(language, gender), (None, gender)]
    if not MEASURES[name].by_gender or gender is None:
        chain.append((None, None))
    return next((known[place] for place in chain if place in known), None)


def leveled(values: pl.DataFrame, levels: Sequence[Level]) -> pl.DataFrame:
    """clip_id, and for each measure its level from 0 to 4 and its distance from the median.

    Columns `NAME_level` and `NAME_beyond`: the distance over that of the highest level's edge.
    """
    groups: list[Group] = list(values.select("language", "gender").unique().iter_rows())
    rows: list[dict[str, object]] = []
    for group in groups:
        row: dict[str, object] = {"language": group[0], "gender": group[1]}
        for name in MEASURES:
            level = level_for(levels, name, group)
            for index in range(4):
                row[f"{name}_{index}"] = level.edges[index] if level else None
            row[f"{name}_median"] = level.median if level else None
        rows.append(row)
    schema = {"language": pl.String, "gender": pl.String} | {
        f"{name}_{part}": pl.Float64 for name in MEASURES for part in (0, 1, 2, 3, "median")
    }
    edges = pl.DataFrame(rows, schema=schema)
    joined = values.join(
        edges, on=["language", "gender"], how="left", nulls_equal=True, maintain_order="left"
    )
    columns = {}
    for name in MEASURES:
        # A value on an edge stays in the middle: where a tenth of all clips are alike, none is very.
        low = [pl.col(name) >= pl.col(f"{name}_{i}") for i in (0, 1)]
        high = [pl.col(name) > pl.col(f"{name}_{i}") for i in (2, 3)]
        steps = [passed.cast(pl.Int8) for passed in (*low, *high)]
        columns[f"{name}_level"] = pl.sum_horizontal(steps, ignore_nulls=False)
        columns[f"{name}_beyond"] = (pl.col(name) - pl.col(f"{name}_median")) / (
            pl.col(f"{name}_3") - pl.col(f"{name}_median")
        )
    return joined.select("clip_id", **columns)


def word_for(name: str, level: pl.Expr) -> pl.Expr:
    """A closed attribute's word for a level from 0 to 4."""
    words = dict(enumerate(CLOSED[name]))
    return level.replace_strict(words, default=None, return_dtype=pl.String)


def cut_of(levels: Iterable[Level], share: float) -> float | None:
    """The expressiveness that a `share` of the clips reached when the levels were made.

    None, for no limit, where all are wanted or nothing is known.
    """
    if share >= 1:
        return None
    for level in levels:
        if level.measure == EXPRESSIVENESS:
            place = min(len(PERCENTILES) - 1, max(0, round((1 - share) * 100) - 1))
            return level.edges[place]
    return None


def expressiveness_level(scores: pl.Series) -> Level:
    """The percentiles of expressiveness over the corpus."""
    known = scores.drop_nulls()
    return Level(
        measure=EXPRESSIVENESS,
        num_clips=len(known),
        edges=tuple(_number(known.quantile(p, interpolation="linear")) for p in PERCENTILES),
        median=_number(known.median()),
    )


def as_levels(rows: Iterable[Mapping[str, object]]) -> list[Level]:
    """Levels as they were stored."""
    return [Level(**{**row, "edges": tuple(row["edges"])}) for row in rows]  # type: ignore[arg-type]


def _number(value: object) -> float:
    assert isinstance(value, (int, float)), "a quantile of no values"
    return float(value)
