"""Recipes: the settings of a training, as profiles are those of the phases before it.

The shipped ones lie in `jobs/recipes`; a file of one's own may name one of them under `extends`.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from pipeline.profile import load_profile, shipped_profiles

Recipe = TypeVar("Recipe")
SHIPPED = Path(__file__).parent / "recipes"


def shipped_recipes() -> list[str]:
    """Names that `--recipe` knows without a file, whichever command they are for."""
    return shipped_profiles(SHIPPED)


def load_recipe(name: str, overrides: Iterable[str], config: type[Recipe]) -> Recipe:
    """Resolve a shipped name or a YAML file, and overrides, into `config`. Raises ConfigError."""
    return load_profile(name, overrides, config, folder=SHIPPED, what="recipe")
