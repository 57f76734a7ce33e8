"""The filter policy: YAML rules over stored scores, judged by polars in one pass.

Stages measure and the policy decides, so a new threshold is a query and runs no model.
"""

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
import yaml
from pydantic import TypeAdapter, ValidationError

from pipeline.profile import check_keys
from schemas.arrow import CLIPS
from schemas.errors import ConfigError
from schemas.ids import content_id

SHIPPED = Path(__file__).parent / "policies"
TIERS = ("telephone", "wideband", "fullband")
# Clips that the stages already gave up on: the reason says what was hopeless.
SCREENED = "screened"


@dataclass(frozen=True, kw_only=True, slots=True)
class Bounds:
    """A rule's limits for one tier; what is not named stays the rule's own."""

    min: float | None = None
    max: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Condition:
    """A rule counts only where this column is below a value."""

    column: str
    below: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """Reject when a column is outside its limits. `min` and `max` themselves pass."""

    column: str
    min: float | None = None
    max: float | None = None
    not_in: tuple[str | bool | float, ...] = ()
    """Values that are rejected."""
    only_null: bool = False
    """Reject whenever the column has a value."""
    when_null: str = "pass"
    """`pass` or `reject` what was not measured."""
    only_if: Condition | None = None
    tiers: Mapping[str, Bounds] = field(default_factory=dict)
    """Other limits for some tiers."""

    def __post_init__(self) -> None:
        _known_column(self.column)
        if self.only_if:
            _known_column(self.only_if.column)
        if self.when_null not in {"pass", "reject"}:
            raise ConfigError(f"when_null must be pass or reject, got {self.when_null}")
        for tier in self.tiers:
            _known_tier(tier)
        if self.min is None and self.max is None and not self.not_in and not self.only_null:
            raise ConfigError(f"the rule on {self.column} has no min, max, not_in or only_null")


@dataclass(frozen=True, kw_only=True, slots=True)
class Tiers:
    """Lowest value of `column` for each tier; below the second, and unmeasured, is the first."""

    column: str = "bandwidth_hz"
    telephone: float = 0.0
    wideband: float
    fullband: float

    def __post_init__(self) -> None:
        _known_column(self.column)
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
            _known_tier(tier)

    @property
    def hash(self) -> str:
        """blake2b-128 of the resolved policy: the same rules have the same hash."""
        plain = TypeAdapter(Policy).dump_python(self, mode="json")
        return content_id(json.dumps(plain, sort_keys=True))

    @property
    def columns(self) -> list[str]:
        """Columns of `clips` that judging reads; never the audio."""
        used = {"clip_id", SCREENED, self.tiers.column}
        for rule in self.rules.values():
            used.add(rule.column)
            if rule.only_if:
                used.add(rule.only_if.column)
        return sorted(used)


def load_policy(name: str) -> Policy:
    """A shipped policy by name, or a YAML file. Raises `ConfigError` for anything unknown in it."""
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
    for rule in (values.get("rules") or {}).values():
        if isinstance(rule, dict) and "if" in rule:
            rule["only_if"] = rule.pop("if")
    check_keys(Policy, values, where=f"policy {name}")
    try:
        return TypeAdapter(Policy).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"policy {name}: {place}: {first['msg']}") from error


def judge(clips: pl.DataFrame, policy: Policy) -> pl.DataFrame:
    """One verdict per clip: the columns of `verdicts`.

    clips: at least `policy.columns`. A screened clip has what stopped it as its first reason.
    """
    tier = _tier_of(policy)
    reasons = [_reason_of_screening()]
    reasons += [
        pl.when(_broken(rule, tier)).then(pl.lit(reason)) for reason, rule in policy.rules.items()
    ]
    reasons.append(
        pl.when(~tier.is_in(policy.accept_tiers)).then(pl.concat_str(tier, pl.lit("_band")))
    )
    return clips.select(
        "clip_id",
        pl.concat_list(reasons).list.drop_nulls().alias("reasons"),
        tier.alias("tier"),
        pl.lit(policy.hash).alias("policy_hash"),
    ).select(
        "clip_id",
        (pl.col("reasons").list.len() == 0).alias("accepted"),
        "tier",
        "reasons",
        "policy_hash",
    )


def _reason_of_screening() -> pl.Expr:
    # too_short is a rule of the policy as well, and one reason is enough.
    found = pl.col(SCREENED).is_not_null() & (pl.col(SCREENED) != "too_short")
    return pl.when(found).then(pl.concat_str(pl.lit("screened_"), pl.col(SCREENED)))


def _tier_of(policy: Policy) -> pl.Expr:
    column = pl.col(policy.tiers.column).fill_null(0.0)
    return (
        pl.when(column > policy.tiers.fullband)
        .then(pl.lit("fullband"))
        .when(column > policy.tiers.wideband)
        .then(pl.lit("wideband"))
        .otherwise(pl.lit("telephone"))
    )


def _broken(rule: Rule, tier: pl.Expr) -> pl.Expr:
    column = pl.col(rule.column)
    broken = pl.lit(False)
    low, high = _limit("min", rule, tier), _limit("max", rule, tier)
    if low is not None:
        broken = broken | (column < low)
    if high is not None:
        broken = broken | (column > high)
    if rule.not_in:
        broken = broken | column.is_in(list(rule.not_in))
    if rule.only_null:
        broken = broken | column.is_not_null()
    # A comparison with null is null; what that means is the rule's to say.
    broken = broken.fill_null(rule.when_null == "reject")
    if rule.only_if:
        below = pl.col(rule.only_if.column) < rule.only_if.below
        broken = broken & below.fill_null(False)
    return broken


def _limit(side: str, rule: Rule, tier: pl.Expr) -> pl.Expr | None:
    own = getattr(rule, side)
    special = {
        name: getattr(bounds, side)
        for name, bounds in rule.tiers.items()
        if getattr(bounds, side) is not None
    }
    if own is None and not special:
        return None
    limit = pl.lit(own, dtype=pl.Float64)
    for name, value in special.items():
        limit = pl.when(tier == name).then(pl.lit(value, dtype=pl.Float64)).otherwise(limit)
    return limit


def _known_column(name: str) -> None:
    known = [column for column in CLIPS.schema.names if column != "audio"]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        advice = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"clips have no column {name}{advice}")


def _known_tier(name: str) -> None:
    if name not in TIERS:
        raise ConfigError(f"no tier {name}; known: {', '.join(TIERS)}")
