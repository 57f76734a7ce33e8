"""Samples said one after the other: more to learn from than a small corpus of short clips holds.

A model that hears only whole prompts learns them by heart. Joined at random they are texts that it
has never seen, in which it has to find its place.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from model_core.training.augment import AugmentConfig
from model_core.training.order import generator


def followers(
    rows: Sequence[Mapping[str, Any]], config: AugmentConfig, *key: int | str
) -> list[list[int]]:
    """For each sample of a block, by their place in it, which other ones it says after itself.

    Only clips of the same session and language follow, each once, and only after a sample that
    neither was cut nor continues another clip. key: what the draw depends on.
    """
    if not config.joined_samples:
        return [[] for _ in rows]
    plain: dict[tuple[str, str | None], list[int]] = {}
    seen = set()
    for place, row in enumerate(rows):
        target = row["target"]["clip_id"]
        if _whole(row) and not row["synthetic"] and target not in seen:
            seen.add(target)
            plain.setdefault((row["session_id"], row["language"]), []).append(place)
    found: list[list[int]] = []
    for row in rows:
        random = generator(*key, row["sample_id"])
        others = plain.get((row["session_id"], row["language"]), [])
        if not _whole(row) or len(others) < 2 or random.random() >= config.joined_samples:
            found.append([])
            continue
        number = int(random.integers(1, config.joined_most + 1))
        drawn = random.choice(others, min(number, len(others)), replace=False)
        own = row["target"]["clip_id"]
        found.append([int(i) for i in drawn if rows[i]["target"]["clip_id"] != own])
    return found


def _whole(row: Mapping[str, Any]) -> bool:
    return row["prompt"] is None and not row["target_start"]
