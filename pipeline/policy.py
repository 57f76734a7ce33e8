"""The filter policy: YAML rules over stored scores, judged by polars in one pass.

Stages measure and the policy decides, so a new threshold is a query and runs no model.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import polars as pl
import yaml
from pydantic import TypeAdapter, ValidationError

from pipeline.profile import check_keys
from pipeline.rules import REVIEW, Rule, check_number, is_broken, known_tier
from schemas.arrow import CLIPS, SYNTHETIC
from schemas.errors import ConfigError
from schemas.ids import content_id

SHIPPED = Path(__file__).parent / "policies"
# Clips that the stages already gave up on: the reason says what was hopeless.
SCREENED = "screened"
TOO_SHORT = "too_short"


@dataclass(frozen=True, kw_only=True, slots=True)
class Tiers:
    """Lowest value of `column` for each tier; below the second, and unmeasured, is the first."""

    column: str = "bandwidth_hz"
    telephone: float = 0.0
    wideband: float
    fullband: float

    def __post_init__(self) -> None:
        check_number(self.column, CLIPS)
        if not self.telephone <= self.wideband <= self.fullband:
            raise ConfigError("tiers must ascend: telephone, wideband, fullband")


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """Rules by their reason, and the tiers that are accepted."""

    tiers: Tiers
    accept_tiers: tuple[str, ...]
    rules: Mapping[str, Rule]

    def __post_init__(self) -> None:
        for tier in self.accept_tiers:
            known_tier(tier)
        for rule in self.rules.values():
            rule.check(CLIPS)

    @property
    def hash(self) -> str:
        """blake2b-128 of the resolved policy: the same rules have the same hash."""
        return _hash(self)

    @property
    def columns(self) -> list[str]:
        """Columns of `clips` that judging reads; never the audio."""
        return _columns_of(self.rules, {"clip_id", SCREENED, self.tiers.column})


@dataclass(frozen=True, kw_only=True, slots=True)
class SyntheticPolicy:
    """Rules for generated clips, by their reason. They have no tiers: one model, one band."""

    rules: Mapping[str, Rule]

    def __post_init__(self) -> None:
        if not self.rules:
            raise ConfigError("a policy without rules would accept every generated clip")
        for reason, rule in self.rules.items():
            rule.check(SYNTHETIC)
            if rule.tiers:
                raise ConfigError(f"{reason}: generated clips have no tiers")

    @property
    def hash(self) -> str:
        """blake2b-128 of the resolved policy: the same rules have the same hash."""
        return _hash(self)

    @property
    def columns(self) -> list[str]:
        """Columns of `synthetic` that judging reads; never the audio."""
        return _columns_of(self.rules, {"clip_id"})


Kind = TypeVar("Kind", Policy, SyntheticPolicy)


def load_policy(name: str) -> Policy:
    """A shipped policy by name, or a YAML file. Raises `ConfigError` for anything unknown in it."""
    return _load(name, Policy, "tiers, accept_tiers and rules by their reasons")


def load_synthetic_policy(name: str) -> SyntheticPolicy:
    """As `load_policy`, for generated clips."""
    return _load(name, SyntheticPolicy, "rules by their reasons")


def _load(name: str, kind: type[Kind], expected: str) -> Kind:
    path = Path(name)
    if not path.suffix:
        path = SHIPPED / f"{name}.yaml"
    if not path.is_file():
        shipped = ", ".join(sorted(file.stem for file in SHIPPED.glob("*.yaml")))
        raise ConfigError(f"no policy {name}: neither a file nor one of {shipped}")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"policy {name} is not YAML: {error}") from error
    if not isinstance(values, dict) or not isinstance(values.get("rules"), dict):
        raise ConfigError(f"policy {name}: expected {expected}")
    for rule in values["rules"].values():
        if isinstance(rule, dict) and "if" in rule:
            rule["only_if"] = rule.pop("if")
    check_keys(kind, values, where=f"policy {name}")
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"policy {name}: {place}: {first['msg']}") from error


def judge(clips: pl.DataFrame, policy: Policy, reviews: pl.DataFrame | None = None) -> pl.DataFrame:
    """One verdict per clip: the columns of `verdicts`.

    clips: at least `policy.columns`. A screened clip has what stopped it as its first reason.
    reviews: `clip_id` and `review` of what people marked bad; None where nobody listened.
    """
    clips = _reviewed(clips, reviews)
    tier, sought = _tier_of(policy), pl.col(SCREENED).is_null()
    broken = [
        (_reason_of_screening(), ~sought),
        *(
            (pl.lit(reason), is_broken(rule, CLIPS, tier=tier, sought=sought))
            for reason, rule in policy.rules.items()
        ),
        (pl.concat_str("tier", pl.lit("_band")), ~tier.is_in(policy.accept_tiers)),
    ]
    told = clips.select("clip_id", SCREENED, tier.alias("tier"))
    return _verdicts(told, clips, broken, policy.hash).select(
        "clip_id", "accepted", "tier", "reasons", "policy_hash"
    )


def breaks(
    clips: pl.DataFrame, policy: Policy, reason: str, reviews: pl.DataFrame | None = None
) -> pl.Series:
    """Which clips break one rule of a policy: booleans. Arguments as `judge` takes them."""
    found = is_broken(
        policy.rules[reason], CLIPS, tier=_tier_of(policy), sought=pl.col(SCREENED).is_null()
    )
    return _reviewed(clips, reviews).select(found.alias(reason)).to_series()


def judge_synthetic(
    clones: pl.DataFrame, policy: SyntheticPolicy, reviews: pl.DataFrame | None = None
) -> pl.DataFrame:
    """One verdict per generated clip: the columns of `synthetic_verdicts`.

    clones: at least `policy.columns`. reviews: as `judge` takes them.
    """
    clones = _reviewed(clones, reviews)
    nothing, sought = pl.lit(None, pl.String), pl.lit(True)
    broken = [
        (pl.lit(reason), is_broken(rule, SYNTHETIC, tier=nothing, sought=sought))
        for reason, rule in policy.rules.items()
    ]
    return _verdicts(clones.select("clip_id"), clones, broken, policy.hash)


def _columns_of(rules: Mapping[str, Rule], used: set[str]) -> list[str]:
    return sorted(used.union(*(rule.columns for rule in rules.values())) - {REVIEW})


def _reviewed(rows: pl.DataFrame, reviews: pl.DataFrame | None) -> pl.DataFrame:
    if reviews is None:
        return rows.with_columns(pl.lit(None, pl.String).alias(REVIEW))
    marks = reviews.select("clip_id", REVIEW)
    return rows.join(marks, on="clip_id", how="left", maintain_order="left")


def _verdicts(
    told: pl.DataFrame,
    rows: pl.DataFrame,
    broken: Sequence[tuple[pl.Expr, pl.Expr]],
    policy_hash: str,
) -> pl.DataFrame:
    """Rows that are told of, as their verdicts.

    broken: reasons, of what is told, and whether a row has them: of `rows`, in the same order.
    """
    flags = rows.select(flag.alias(f"reason {n}") for n, (_, flag) in enumerate(broken))
    is_rejected = flags.select(pl.any_horizontal(pl.all())).to_series()
    # Most rows break no rule, and lists of text are dear.
    rejected = pl.concat([told, flags], how="horizontal").filter(is_rejected)
    reasons = rejected.select(
        pl.concat_list(pl.when(f"reason {n}").then(reason) for n, (reason, _) in enumerate(broken))
        .list.drop_nulls()
        .list.unique(maintain_order=True)
        .alias("reasons")
    )
    nothing = pl.DataFrame({"reasons": [[]]}, schema={"reasons": pl.List(pl.String)})
    # Of each row: 0 where it breaks no rule, or else the place of its reasons.
    place = pl.select(pl.when(is_rejected).then(is_rejected.cum_sum()).otherwise(0)).to_series()
    return told.select(
        pl.exclude(SCREENED),
        (~is_rejected).alias("accepted"),
        pl.concat([nothing, reasons])["reasons"].gather(place),
        pl.lit(policy_hash).alias("policy_hash"),
    )


def _hash(policy: Policy | SyntheticPolicy) -> str:
    plain = TypeAdapter(type(policy)).dump_python(policy, mode="json")
    return content_id(json.dumps(plain, sort_keys=True))


def _reason_of_screening() -> pl.Expr:
    # too_short is a rule of the policy as well. Under the same name it is one reason, and a policy
    # with a lower minimum cannot accept what was never transcribed.
    short = pl.col(SCREENED) == TOO_SHORT
    named = pl.concat_str(pl.lit("screened_"), pl.col(SCREENED))
    return pl.when(short).then(pl.lit(TOO_SHORT)).otherwise(named)


def _tier_of(policy: Policy) -> pl.Expr:
    column = pl.col(policy.tiers.column).cast(pl.Float64).fill_nan(None).fill_null(0.0)
    return (
        pl.when(column > policy.tiers.fullband)
        .then(pl.lit("fullband"))
        .when(column > policy.tiers.wideband)
        .then(pl.lit("wideband"))
        .otherwise(pl.lit("telephone"))
    )
