"""Which generated clips may be trained on: verdicts by a policy, and by whose voice they have."""

import time
from typing import TYPE_CHECKING

import polars as pl
from rich.console import Console

from jobs.phases import CLONE
from pipeline.policy import judge_synthetic as judged
from pipeline.policy import load_synthetic_policy
from pipeline.profile import as_plain
from pipeline.reviews import read_reviews
from pipeline.storage import Corpus
from schemas.arrow import SYNTHETIC, SYNTHETIC_VERDICTS

if TYPE_CHECKING:
    from jobs.clone_plan import CloneConfig

JUDGE_PHASE = "filter-synthetic"
WITHDRAWN = "withdrawn"
"""The reason where the voice may not, or the description does not, stand for the clip any more."""

_LINEAGE = ("clip_id", "described_id", "reference_ids", "description")
_HEAVY = ("audio", "speaker_embedding")


def judge_synthetic(
    corpus: Corpus, policy_name: str, config: "CloneConfig | None" = None
) -> pl.DataFrame:
    """Write and return the verdicts of a policy over the clones that stand: seconds, and no model.

    config: whose consent is asked for; None asks as the last run did. Raises `ConfigError`.
    """
    from jobs.clone_plan import still_allowed  # a second of imports, where there are clones

    policy = load_synthetic_policy(policy_name)
    clones = corpus.read_standing(SYNTHETIC, CLONE, "clip_id", {*policy.columns, *_LINEAGE})
    allowed = still_allowed(corpus, clones.select(_LINEAGE), config).select("clip_id")
    withdrawn = ~pl.col("clip_id").is_in(allowed["clip_id"].implode())
    verdicts = judged(clones, policy, read_reviews(corpus)).with_columns(
        accepted=pl.col("accepted") & ~withdrawn,
        reasons=pl.when(withdrawn)
        .then(pl.concat_list(pl.lit(WITHDRAWN), "reasons"))
        .otherwise("reasons"),
    )
    facts = {"policy_hash": policy.hash, "policy": as_plain(policy)}
    corpus.write_current(JUDGE_PHASE, SYNTHETIC_VERDICTS, verdicts.to_arrow(), **facts)
    return verdicts


def standing_synthetic(corpus: Corpus) -> pl.DataFrame:
    """Light columns of the clones that stand, with the `part` where each row lies."""
    columns = [name for name in SYNTHETIC.schema.names if name not in _HEAVY]
    clones = corpus.read_with_parts(SYNTHETIC, columns)
    latest = [
        (item_id, attempt)
        for item_id, (attempt, item) in corpus.latest_items(CLONE).items()
        if item.done
    ]
    schema = {"clip_id": pl.String, "attempt": pl.Int64}
    standing = pl.DataFrame(latest, schema=schema, orient="row")
    return clones.join(standing, on=list(schema), how="semi", maintain_order="left")


def accepted_synthetic(corpus: Corpus) -> pl.DataFrame:
    """As `standing_synthetic`, of those that the last verdicts accept."""
    verdicts = corpus.read(SYNTHETIC_VERDICTS, ["clip_id", "accepted"]).filter("accepted")
    clones = standing_synthetic(corpus)
    return clones.join(verdicts, on="clip_id", how="semi", maintain_order="left")


def refilter(root: str, policy_name: str, console: Console) -> None:
    """Judge a corpus' clones anew, where it has any, and say how many are accepted."""
    started = time.perf_counter()
    corpus = Corpus(root)
    load_synthetic_policy(policy_name)
    if not corpus.parts(SYNTHETIC.name):
        return
    verdicts = judge_synthetic(corpus, policy_name)
    console.print(
        f"Clones: {verdicts['accepted'].sum():,} of {verdicts.height:,} accepted; policy "
        f"{policy_name} applied in {time.perf_counter() - started:.2f} s."
    )
