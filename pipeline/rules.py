"""Rules over the stored scores of a table: what they may say, and the rows that break them."""

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import polars as pl
import pyarrow as pa

from schemas.arrow import Table
from schemas.errors import ConfigError

TIERS = ("telephone", "wideband", "fullband")
REVIEW = "review"
"""Column that every judged table has beside its own: why a person who listened marked the row bad;
null where nobody did."""


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
class Usual:
    """Limits that the data itself sets, group by group: median and spread of the logarithm.

    The spread is the median distance from the median, times 1.4826: of a normal distribution that
    is its deviation, and half of the values may be wrong without an effect.
    """

    by: str
    """Column of text whose values are the groups."""
    deviations: float
    """As many spreads from the median are usual."""
    fewest: int = 50
    """Values that a group must have before it has limits."""

    def __post_init__(self) -> None:
        if not 0 < self.deviations < math.inf:
            raise ConfigError(f"usual.deviations must be above 0, got {self.deviations}")
        if self.fewest < 3:
            raise ConfigError(f"usual.fewest must be at least 3, got {self.fewest}")


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
    median_by: str | None = None
    """Column of text: a row is judged by the median of all rows that share its value there."""
    usual: Usual | None = None
    """Reject what is far from its group's median; zero and less are far."""
    tiers: Mapping[str, Bounds] = field(default_factory=dict)
    """Other limits for some tiers."""

    def __post_init__(self) -> None:
        for low, high in self._limits:
            _in_order(self.column, low, high)
        if self.when_null not in {"pass", "reject"}:
            raise ConfigError(f"when_null must be pass or reject, got {self.when_null}")
        for tier in self.tiers:
            known_tier(tier)
        if not (self._is_limited or self.not_in or self.only_null or self.usual):
            raise ConfigError(
                f"the rule on {self.column} has no min, max, not_in, only_null or usual"
            )

    @property
    def columns(self) -> list[str]:
        """Columns that judging by this rule reads."""
        others = [self.only_if.column] if self.only_if else []
        return [self.column, *others, *self._groups]

    def check(self, table: Table) -> None:
        """Raise `ConfigError` unless the rows of `table` can be judged by this rule."""
        kind = known_column(self.column, table)
        if kind is not float and (self._is_limited or self._groups):
            raise ConfigError(
                f"min, max, median_by and usual want numbers, but {self.column} holds {_NAMES[kind]}"
            )
        for group in self._groups:
            if (held := known_column(group, table)) is not str:
                raise ConfigError(
                    f"median_by and usual.by want a column of text, but {group} holds {_NAMES[held]}"
                )
        for value in self.not_in:
            if type(value) is not kind:
                raise ConfigError(
                    f"not_in of {self.column} wants {_NAMES[kind]}, got {value!r}; "
                    "YAML reads yes, no, on and off as booleans unless they are quoted"
                )
        if self.only_if:
            check_number(self.only_if.column, table)

    @property
    def _groups(self) -> list[str]:
        return [name for name in (self.median_by, self.usual.by if self.usual else None) if name]

    @property
    def _limits(self) -> list[tuple[float | None, float | None]]:
        return [(self.min, self.max), *((b.min, b.max) for b in self.tiers.values())]

    @property
    def _is_limited(self) -> bool:
        return any(limit is not None for pair in self._limits for limit in pair)


def is_broken(rule: Rule, table: Table, *, tier: pl.Expr, sought: pl.Expr) -> pl.Expr:
    """Whether a row breaks the rule; never null.

    tier: of each row. sought: whether what it lacks was looked for at all.
    """
    column = pl.col(rule.column)
    if known_column(rule.column, table) is float:
        column = column.cast(pl.Float64)
    if rule.median_by:
        # What was not measured has no part in the others' verdict.
        column = pl.when(column.is_not_null()).then(column.median().over(rule.median_by))
    broken = pl.lit(False)
    low, high = _limit("min", rule, tier), _limit("max", rule, tier)
    if low is not None:
        broken = broken | (column < low)
    if high is not None:
        broken = broken | (column > high)
    if low is not None or high is not None:
        # NaN compares as the greatest number; a score that is no number is within no limits.
        broken = broken | column.is_nan()
    if rule.usual:
        broken = broken | _unusual(column, rule.usual)
    if rule.not_in:
        broken = broken | column.is_in(list(rule.not_in))
    if rule.only_null:
        broken = broken | column.is_not_null()
    # A comparison with null is null; what that means is the rule's to say.
    broken = broken.fill_null(sought if rule.when_null == "reject" else pl.lit(False))
    if rule.only_if:
        below = pl.col(rule.only_if.column) < rule.only_if.below
        broken = broken & below.fill_null(False)
    return broken


NARROWEST = 0.05
"""Least spread of a logarithm: 5 % either way, where near all values are the same."""


def _unusual(column: pl.Expr, usual: Usual) -> pl.Expr:
    # What is zero or less has no logarithm: it takes no part, and is far from any median.
    positive = pl.when(column > 0).then(column.log()).fill_nan(None)
    middle = positive.median().over(usual.by)
    away = (positive - middle).abs()
    spread = pl.max_horizontal(1.4826 * away.median().over(usual.by), pl.lit(NARROWEST))
    enough = positive.count().over(usual.by) >= usual.fewest
    far = (away > usual.deviations * spread) | (column <= 0) | column.is_nan()
    return enough & far


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


def known_column(name: str, table: Table) -> type:
    """What a column of the table holds, of `_NAMES`. Raises `ConfigError`; the audio is no score."""
    if name == REVIEW:
        return str
    known = [column for column in table.schema.names if column != "audio"]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        advice = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"{table.name} have no column {name}{advice}")
    held = table.schema.field(name).type
    if pa.types.is_floating(held) or pa.types.is_integer(held):
        return float
    if pa.types.is_boolean(held):
        return bool
    return str if pa.types.is_string(held) else object


def check_number(name: str, table: Table) -> None:
    """Raise `ConfigError` unless the table has this column and it holds numbers."""
    if (kind := known_column(name, table)) is not float:
        raise ConfigError(f"{name} holds {_NAMES[kind]}, a number is wanted")


def known_tier(name: str) -> None:
    """Raise `ConfigError` for a tier that there is not."""
    if name not in TIERS:
        raise ConfigError(f"no tier {name}; known: {', '.join(TIERS)}")


def _in_order(column: str, low: float | None, high: float | None) -> None:
    if any(limit is not None and math.isnan(limit) for limit in (low, high)):
        raise ConfigError(f"a limit on {column} is no number")
    if low is not None and high is not None and low > high:
        raise ConfigError(f"{column}: min {low:g} is above max {high:g}, which rejects everything")
