"""What the address of a page asks for: a search, conditions on columns, an order, a page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlencode

from starlette.datastructures import QueryParams

from schemas.errors import ConfigError

OPERATORS = ("contains", "is", "is not", "at least", "at most", "is empty", "is not empty")
WITHOUT_VALUE = ("is empty", "is not empty")
VERDICTS: Mapping[str, tuple[str, str, str]] = {
    "kept": ("accepted", "is", "true"),
    "rejected": ("accepted", "is", "false"),
    "marked bad": ("review", "is not empty", ""),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Condition:
    """What a column must hold."""

    column: str
    operator: str
    value: str = ""

    def __post_init__(self) -> None:
        if self.operator not in OPERATORS:
            raise ConfigError(f"no operator {self.operator!r}; known: {', '.join(OPERATORS)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Query:
    """One view of a table."""

    search: str = ""
    """In the text, whatever the case."""
    verdict: str = ""
    """A key of `VERDICTS`; empty for all."""
    reason: str = ""
    language: str = ""
    where: tuple[Condition, ...] = ()
    sort: str = ""
    """A column; empty keeps the order of the corpus."""
    descending: bool = False
    page: int = 1

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """All that rows must meet, beside the search."""
        found = list(self.where)
        if self.verdict:
            column, operator, value = VERDICTS[self.verdict]
            found.append(Condition(column=column, operator=operator, value=value))
        if self.reason:
            found.append(Condition(column="reasons", operator="contains", value=self.reason))
        if self.language:
            found.append(Condition(column="language", operator="is", value=self.language))
        return tuple(found)

    def address(self, **changes: object) -> str:
        """The query part of this view's address, with something else in it."""
        other = replace(self, **changes)  # type: ignore[arg-type]
        named = (
            ("search", other.search),
            ("verdict", other.verdict),
            ("reason", other.reason),
            ("language", other.language),
            *(
                pair
                for one in other.where
                for pair in (
                    ("column", one.column),
                    ("operator", one.operator),
                    ("value", one.value),
                )
            ),
            ("sort", other.sort),
            ("order", "descending" if other.descending else ""),
            ("page", str(other.page) if other.page > 1 else ""),
        )
        kept = [(name, value) for name, value in named if value or name == "value"]
        return f"?{urlencode(kept)}"


def parse(parameters: QueryParams) -> Query:
    """The view that an address asks for. Raises `ConfigError` for what no form of ours sends."""
    verdict = parameters.get("verdict", "")
    if verdict and verdict not in VERDICTS:
        raise ConfigError(f"no verdict {verdict!r}; known: {', '.join(VERDICTS)}")
    page = parameters.get("page", "") or "1"
    # A longer number is no page of any corpus.
    if not page.isascii() or not page.isdecimal() or len(page) > 9 or int(page) < 1:
        raise ConfigError(f"page must be a number from 1 on, got {page!r}")
    return Query(
        search=parameters.get("search", "").strip(),
        verdict=verdict,
        reason=parameters.get("reason", ""),
        language=parameters.get("language", ""),
        where=_conditions(*(parameters.getlist(name) for name in ("column", "operator", "value"))),
        sort=parameters.get("sort", ""),
        descending=parameters.get("order", "") == "descending",
        page=int(page),
    )


def _conditions(
    columns: Sequence[str], operators: Sequence[str], values: Sequence[str]
) -> tuple[Condition, ...]:
    if not len(columns) == len(operators) == len(values):
        raise ConfigError("each condition wants a column, an operator and a value")
    return tuple(
        Condition(column=column, operator=operator, value=value.strip())
        for column, operator, value in zip(columns, operators, values, strict=True)
        # The form's spare row.
        if column
    )
