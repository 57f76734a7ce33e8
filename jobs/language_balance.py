"""Hours of a language behind each gate, and beside the corpus's other languages."""

import polars as pl

from jobs.mine import PHASE as MINE
from pipeline.policy import Policy
from pipeline.storage import Corpus
from schemas.arrow import CLIPS, LATENTS, RECORDINGS, REFERENCES, VERDICTS

NEW_SHARE = 0.25
"""Of what a model sees, this much is to be the new language: enough to learn it, with three quarters
of what it knew against forgetting."""
FLATTEST = 5.0
"""Beyond, a language of minutes is seen hundreds of times."""


def gates(corpus: Corpus, code: str, policy: Policy) -> list[tuple[str, float]]:
    """(gate, hours left behind it), in order.

    A rule of the policy is a gate where it takes something that no rule before it took.
    """
    recordings = corpus.read(RECORDINGS, ["recording_id", "language", "duration_s"])
    mine = recordings.filter(pl.col("language").str.split("-").list.first() == code)
    clips = (
        corpus.read(CLIPS, ["clip_id", "language", "duration_s"])
        .filter(language=code)
        .join(corpus.read(VERDICTS, ["clip_id", "reasons"]), on="clip_id")
    )
    found = [("recordings", _hours(mine)), ("in clips", _hours(clips))]
    screened = {r for r in clips["reasons"].explode().drop_nulls() if r not in policy.rules}
    for reason in (*sorted(screened), *policy.rules):
        left = clips.filter(~pl.col("reasons").list.contains(reason))
        if left.height < clips.height:
            found.append((f"not {reason}", _hours(left)))
            clips = left
    found.append(("[bold]accepted[/]", _hours(clips)))
    references = corpus.read_standing(REFERENCES, MINE, "session_id", ["target_id"])["target_id"]
    latents = corpus.read(LATENTS, ["clip_id"])["clip_id"]
    for name, known in (("with references", references), ("encoded", latents)):
        found.append((name, _hours(clips.filter(pl.col("clip_id").is_in(known.implode())))))
    return found


def balance(corpus: Corpus) -> pl.DataFrame:
    """language and hours of accepted clips, most first."""
    kept = corpus.read(VERDICTS, ["clip_id", "accepted"]).filter("accepted")
    clips = corpus.read(CLIPS, ["clip_id", "language", "duration_s"])
    return (
        clips.join(kept, on="clip_id", how="semi")
        .group_by(pl.col("language").fill_null("?"))
        .agg((pl.col("duration_s").sum() / 3600).alias("hours"))
        .sort("hours", "language", descending=[True, False])
    )


def replay_temperature(shares: pl.DataFrame, code: str) -> float:
    """The least temperature, in steps of a half, at which a language has NEW_SHARE of what is seen.

    A language is seen in proportion to hours^(1/T). 1 where it has that already, or is not there.
    """
    hours = shares["hours"].to_numpy()
    mine = shares["language"].to_numpy() == code
    if not mine.any():
        return 1.0
    wanted = min(NEW_SHARE, 1 / len(hours))
    temperature = 1.0
    while temperature < FLATTEST:
        flat = hours ** (1 / temperature)
        if flat[mine].sum() / flat.sum() >= wanted - 1e-9:
            break
        temperature += 0.5
    return temperature


def _hours(frame: pl.DataFrame) -> float:
    return float(frame["duration_s"].sum()) / 3600
