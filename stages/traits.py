"""The words for a clip: its levels, its timbre, its arousal beside the speaker's other clips."""

from collections.abc import Sequence

import polars as pl

from schemas.attributes import Level, Traits
from stages.levels import MEASURES, cut_of, leveled, measured, word_for

_CLEAN_DB = 20.0
# A speaker with fewer clips is compared with the corpus.
_FEWEST_OF_A_SPEAKER = 5
# With nobody but strangers to compare with, pitch and level say as much of the voice as of its mood.
_TRUST_IN_STRANGERS = 0.6
# A model that gives arousal as a number says nothing of its error. This is no measurement: enough to
# count, and less than an expert that is sure.
_TRUST_IN_A_REGRESSION = 0.7
# From here on an arousal is an emotion's and not a manner of reading.
_AROUSED = 0.5
# Cues of arousal and the change of each that a plain sentence does not bring about: Bone, Lee and
# Narayanan, "Robust unsupervised arousal rating", IEEE Trans. Affective Computing 5, 2014, take
# pitch, intensity and the high part of the spectrum, each beside the speaker's own usual.
_CUES = {"pitch": 3.0, "energy": 6.0, "brightness": 5.0}


def traits_of(frame: pl.DataFrame, levels: Sequence[Level], share: float) -> pl.DataFrame:
    """The columns of `traits` for every clip.

    frame: the columns of `attributes`, with language, chars_per_s, snr_db, speaker and
    session_id of `clips`. share: how much of the corpus is expressive enough to be described, by the levels.
    """
    values = measured(frame)
    places = leveled(values, levels)
    known = frame.join(values.drop("language", "gender"), on="clip_id", maintain_order="left")
    known = known.join(places, on="clip_id", maintain_order="left")
    known = known.with_columns(_arousal(known))
    known = known.with_columns(_emotion())
    known = known.with_columns(expressiveness=_expressiveness())
    cut = cut_of(levels, share)
    chosen = pl.col("expressiveness") >= cut if cut is not None else pl.lit(value=True)
    silent = pl.col("num_pauses") == 0
    columns = {
        name: word_for(name, pl.col(f"{name}_level"))
        for name in ("pitch", "pitch_range", "rate", "energy", "emphasis")
    }
    # Where most clips have no pause, the corpus' usual is none at all.
    pauses = pl.when(silent).then(pl.lit("hardly any"))
    columns["pauses"] = pauses.otherwise(word_for("pauses", pl.col("pauses_level")))
    columns["texture"] = _texture()
    columns["chosen"] = chosen.fill_null(value=False)
    known = known.with_columns(**columns)
    return known.select(field for field in Traits.__dataclass_fields__)


def scored(frame: pl.DataFrame, levels: Sequence[Level]) -> pl.Series:
    """Expressiveness of every clip, for the corpus' own percentiles."""
    return traits_of(frame, levels, share=1.0)["expressiveness"]


def _texture() -> pl.Expr:
    """What is far from usual in a voice's timbre; null where nothing is."""

    def at(name: str, level: int) -> pl.Expr:
        return pl.col(f"{name}_level") == level

    unsteady = at("jitter", 4) | at("shimmer", 4)
    words = [
        pl.when(at("harmonicity", 0) & unsteady).then(pl.lit("hoarse")),
        pl.when(at("harmonicity", 0) & ~unsteady).then(pl.lit("breathy")),
        pl.when(at("jitter", 4) & at("shimmer", 4) & ~at("harmonicity", 0)).then(pl.lit("rough")),
        pl.when(at("harmonicity", 4)).then(pl.lit("clear")),
        pl.when(at("brightness", 4)).then(pl.lit("bright")),
        pl.when(at("brightness", 0)).then(pl.lit("dark")),
    ]
    said = pl.concat_str(words, separator=", ", ignore_nulls=True)
    # Noise and music are heard as hoarseness.
    return pl.when((said != "") & (pl.col("snr_db") >= _CLEAN_DB)).then(said)


def _arousal(known: pl.DataFrame) -> list[pl.Expr]:
    """Pitch, level and brightness against the speaker's usual: from -1 to 1, and how sure.

    An expert's own arousal stays. Sure are cues that agree.
    """
    speaker = [pl.coalesce("speaker", "session_id"), pl.col("gender")]
    enough = pl.len().over(speaker) >= _FEWEST_OF_A_SPEAKER
    cues = []
    for name, scale in _CUES.items():
        edge = 2 * MEASURES[name].step
        usual = pl.col(name).median().over(speaker)
        beside_own = (pl.col(name) - usual) / scale
        # `beyond` is in units of the corpus' highest level, at least two steps.
        beside_others = pl.col(f"{name}_beyond") * edge / scale
        cues.append(pl.when(enough).then(beside_own).otherwise(beside_others).tanh())
    mean = pl.mean_horizontal(cues)
    spread = pl.concat_list(cues).list.std(ddof=0)
    trust = pl.when(enough).then(1.0).otherwise(_TRUST_IN_STRANGERS)
    heard = pl.col("arousal").is_not_null()
    return [
        pl.coalesce("arousal", mean).alias("arousal"),
        pl.when(heard)
        .then(pl.col("emotion_confidence").fill_null(_TRUST_IN_A_REGRESSION))
        .otherwise((1 - spread).clip(0, 1) * trust)
        .alias("arousal_confidence"),
    ]


def _emotion() -> list[pl.Expr]:
    """The expert's emotion; else what arousal alone can tell."""
    arousal = pl.col("arousal")
    told = (
        pl.when(arousal >= _AROUSED)
        .then(pl.lit("excited"))
        .when(arousal <= -_AROUSED)
        .then(pl.lit("calm"))
        .when(arousal.is_not_null())
        .then(pl.lit("neutral"))
    )
    heard = pl.col("emotion").is_not_null()
    return [
        pl.coalesce("emotion", told).alias("emotion"),
        pl.when(heard)
        .then(pl.col("emotion_confidence"))
        .otherwise(pl.col("arousal_confidence"))
        .alias("emotion_confidence"),
    ]


def _expressiveness() -> pl.Expr:
    """Mean over lively pitch, emphasis and arousal, each at most half as much again as very high.

    An emotion that an expert is sure of counts in full.
    """
    parts = [
        pl.col("pitch_range_beyond").clip(0, 1.5),
        pl.col("emphasis_beyond").clip(0, 1.5),
        (pl.col("arousal").abs() / _AROUSED).clip(0, 1.5),
    ]
    felt = pl.when(pl.col("emotion") != "neutral").then(pl.col("emotion_confidence")).otherwise(0.0)
    return pl.max_horizontal(pl.mean_horizontal(parts), felt)
