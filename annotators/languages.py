"""What is known of a language before a recording of it is heard: the rows of `languages.yaml`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType

import regex
import yaml

_ROWS = Path(__file__).parent / "languages.yaml"


@dataclass(frozen=True, kw_only=True, slots=True)
class Language:
    """One row."""

    code: str
    """ISO 639-1, or 639-3 where that has none."""
    name: str
    iso3: str
    """ISO 639-3."""
    mms: str
    """The name of its adapter in MMS (Pratap et al. 2023, arXiv 2305.13516)."""
    scripts: tuple[str, ...]
    """Unicode scripts that it is written in; the first is the usual one."""
    error: str
    """`wer`, or `cer` where no spaces part words."""
    whisper: str | None
    """Its code in the Whisper family; None where no Whisper knows it."""
    dialects: Mapping[str, str] = field(default_factory=dict)
    """Tag → name."""


@cache
def languages() -> Mapping[str, Language]:
    """Every row by its code."""
    rows = yaml.safe_load(_ROWS.read_text(encoding="utf-8"))
    defaults = rows.pop("defaults")
    found = {}
    for code, row in rows.items():
        known = defaults | row
        known["scripts"] = tuple(known["scripts"])
        known["mms"] = known["mms"] or known["iso3"]
        found[code] = Language(code=code, **known)
    return MappingProxyType(found)


def base_code(declared: str | None) -> str | None:
    """The language of a tag: `pt-BR` and `PT_br` are both `pt`; None for an empty one."""
    return declared.replace("_", "-").split("-")[0].strip().lower() or None if declared else None


def dialect_of(declared: str | None) -> str | None:
    """What a tag says beyond its language: `zh-sichuan` is `sichuan`, `pt-BR` is `br`."""
    if not declared:
        return None
    return "-".join(declared.replace("_", "-").split("-")[1:]).strip().lower() or None


def script_share(text: str, code: str | None) -> float | None:
    """Share of a text's letters that are of its language's scripts, in [0, 1].

    Marks and signs that scripts share count for none. None without letters, or for a language that
    has no row.
    """
    row = languages().get(code or "")
    if row is None:
        return None
    letters = len(_letters().findall(text))
    return len(_written_in(row.scripts).findall(text)) / letters if letters else None


@cache
def _letters() -> "regex.Pattern[str]":
    return regex.compile(r"[\p{L}--[\p{Script=Common}\p{Script=Inherited}]]", regex.V1)


@cache
def _written_in(scripts: tuple[str, ...]) -> "regex.Pattern[str]":
    named = "".join(rf"\p{{Script={script}}}" for script in scripts)
    return regex.compile(rf"[\p{{L}}&&[{named}]]", regex.V1)
