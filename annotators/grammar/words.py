"""The tables of words beside this file."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml


@lru_cache(maxsize=8)
def table(language: str) -> dict[str, Any]:
    """The words of a language, by its ISO 639-1 code."""
    text = (Path(__file__).parent / f"{language}.yaml").read_text(encoding="utf-8")
    told: dict[str, Any] = yaml.safe_load(text)
    return told
