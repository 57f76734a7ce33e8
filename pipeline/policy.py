"""The filter policy: YAML rules over stored scores, judged by polars in one pass.

Stages measure and the policy decides, so a new threshold is a query and runs no model.
"""

import difflib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
import pyarrow as pa
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
TOO_SHORT = "too_short"


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
    """`pass` or `reject` what was not measured. Of a screened clip nothing was sought, so a rule
    that rejects the unmeasured is silent there; the screening has its own reason."""
    only_if: Condition | None = None
    tiers: Mapping[str, Bounds] = field(default_factory=dict)
    """Other limits for some tiers."""

    def __post_init__(self) -> None:
        kind = _known_column(self.column)
        limits = [(self.min, self.max), *((b.min, b.max) for b in self.tiers.values())]
        for low, high in limits:
            _in_order(self.column, low, high)
        if kind is not float and any(limit is not None for pair in limits for limit in pair):
            raise ConfigError(f"min and max want numbers, but {self.column} holds {_NAMES[kind]}")
        for value in self.not_in:
            if type(value) is not kind:
                raise ConfigError(
                    f"not_in of {self.column} wants {_NAMES[kind]}, got {value!r}; "
                    "YAML reads yes, no, on and off as booleans unless they are quoted"
                )
        if self.only_if:
            _number(self.only_if.column)
        if self.when_null not in {"pass", "reject"}:
            raise ConfigError(f"when_null must be pass or reject, got {self.when_null}")
        for tier in self.tiers:
            _known_tier(tier)
        limited = any(limit is not None for pair in limits for limit in pair)
        if not limited and not self.not_in and not self.only_null:
            raise ConfigError(f"the rule on {self.column} has no min, max, not_in or only_null")


@dataclass(frozen=True, kw_only=True, slots=True)
class Tiers:
    """Lowest value of `column` for each tier; below the second, and unmeasured, is the first."""

    column: str = "bandwidth_hz"
    telephone: float = 0.0
    wideband: float
    fullband: float

    def __post_init__(self) -> None:
        _number(self.column)
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
    if not isinstance(values, dict) or not isinstance(values.get("rules"), dict):
        raise ConfigError(f"policy {name}: expected tiers, accept_tiers and rules by their reasons")
    for rule in values["rules"].values():
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
        pl.concat_list(reasons).list.drop_nulls().list.unique(maintain_order=True).alias("reasons"),
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


def _broken(rule: Rule, tier: pl.Expr) -> pl.Expr:
    column = pl.col(rule.column)
    if _known_column(rule.column) is float:
        column = column.cast(pl.Float64)
    broken = pl.lit(False)
    low, high = _limit("min", rule, tier), _limit("max", rule, tier)
    if low is not None:
        broken = broken | (column < low)
    if high is not None:
        broken = broken | (column > high)
    if low is not None or high is not None:
        # NaN compares as the greatest number; a score that is no number is within no limits.
        broken = broken | column.is_nan()
    if rule.not_in:
        broken = broken | column.is_in(list(rule.not_in))
    if rule.only_null:
        broken = broken | column.is_not_null()
    # A comparison with null is null; what that means is the rule's to say.
    sought = pl.col(SCREENED).is_null()
    broken = broken.fill_null(sought if rule.when_null == "reject" else pl.lit(False))
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


_NAMES = {float: "numbers", bool: "true or false", str: "text", object: "lists"}


def _known_column(name: str) -> type:
    """What the column holds, of `_NAMES`."""
    known = [column for column in CLIPS.schema.names if column != "audio"]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        advice = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"clips have no column {name}{advice}")
    held = CLIPS.schema.field(name).type
    if pa.types.is_floating(held) or pa.types.is_integer(held):
        return float
    if pa.types.is_boolean(held):
        return bool
    return str if pa.types.is_string(held) else object


def _number(name: str) -> None:
    if (kind := _known_column(name)) is not float:
        raise ConfigError(f"{name} holds {_NAMES[kind]}, a number is wanted")


def _in_order(column: str, low: float | None, high: float | None) -> None:
    if any(limit is not None and math.isnan(limit) for limit in (low, high)):
        raise ConfigError(f"a limit on {column} is no number")
    if low is not None and high is not None and low > high:
        raise ConfigError(f"{column}: min {low:g} is above max {high:g}, which rejects everything")


def _known_tier(name: str) -> None:
    if name not in TIERS:
        raise ConfigError(f"no tier {name}; known: {', '.join(TIERS)}")
