"""The README of an export: what is in it, and what the public summary of training content asks for.

The summary follows the sections of the template of the European Commission's AI Office (Article
53(1)(d) of Regulation (EU) 2024/1689), as far as a corpus knows the answers. What only the provider
of a model can say is named, not guessed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl
import yaml

from annotators.languages import base_code
from jobs.exporting.card_tables import (
    by,
    clips_and_hours,
    domains_of,
    hours_of,
    kinds_of,
    language_name,
    markdown_table,
)
from jobs.exporting.choice import REASONS, licence_key
from jobs.exporting.options import ExportConfig
from jobs.exporting.splits import SPLITS, TRAIN

PROVIDER = "*For the provider to state.*"
# The template's bands of size.
HOURS = ((10_000.0, "less than 10,000 hours"), (1_000_000.0, "10,000 to 1 million hours"))
MOST_HOURS = "more than 1 million hours"
# Letters are more than tokens in every script.
FEW_LETTERS = 1_000_000_000
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (10**6, "100K<n<1M"))
# As the hub of Hugging Face spells them.
KNOWN_LICENCES = frozenset(
    {
        *("cc0-1.0", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0"),
        *("cc-by-sa-4.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0"),
        *("cc-by-nd-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "apache-2.0", "mit", "odbl"),
    }
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Export:
    """What the README tells of."""

    name: str
    """Of the corpus."""
    format_name: str
    format_doc: str
    """What the files are and how they are read."""
    head: Mapping[str, Any]
    """More for the head, by the format."""
    config: ExportConfig
    clips: pl.DataFrame = field(repr=False)
    """Rows of `Choice.clips` that went out."""
    left_out: Mapping[str, int]
    lost: int
    """Clips whose audio could not be read."""
    policy_hash: str | None
    acquired: tuple[str, str] | None
    """First and last day on which recordings were taken in."""


def readme_of(export: Export) -> str:
    """Markdown with a head in YAML."""
    head = yaml.safe_dump(_head(export), sort_keys=False, allow_unicode=True)
    blocks = [
        f"---\n{head}---",
        f"# {export.name}",
        (
            f"Speech with transcripts, exported by voxquarry as `{export.format_name}`. "
            f"{export.format_doc}"
        ),
        *_contents(export),
        "# Public summary of training content",
        (
            "What this data contributes to the summary that Article 53(1)(d) of the EU AI Act asks of "
            "providers of general-purpose AI models."
        ),
        *_general(export),
        *_sources(export),
        *_processing(export),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _head(export: Export) -> dict[str, Any]:
    codes = sorted({code for code in map(base_code, export.clips["language"]) if code})
    keys = {licence_key(one) if one else "unknown" for one in export.clips["licence"].unique()}
    num = export.clips.height
    return {
        "pretty_name": export.name,
        **({"language": codes} if codes else {}),
        "license": sorted(
            {one if one in {*KNOWN_LICENCES, "unknown"} else "other" for one in keys}
        ),
        "task_categories": ["text-to-speech", "automatic-speech-recognition"],
        "size_categories": [next((name for most, name in SIZES if num < most), "n>1M")],
        **export.head,
    }


def _contents(export: Export) -> list[str]:
    clips, config = export.clips, export.config
    rows = []
    for split in SPLITS:
        side = clips.filter(split=split)
        if side.height:
            rows.append(
                (
                    split,
                    *clips_and_hours(side),
                    f"{int(side['synthetic'].sum()):,}",
                    f"{side['voice'].n_unique():,}",
                    f"{side['session_id'].n_unique():,}",
                )
            )
    names = ("split", "clips", "hours", "synthetic clips", "speakers", "sessions")
    left = [
        (reason, REASONS[reason], f"{number:,}")
        for reason, number in sorted(export.left_out.items(), key=lambda one: (-one[1], one[0]))
    ]
    if export.lost:
        left.append(("unreadable", "its audio cannot be read", f"{export.lost:,}"))
    return [
        "## Splits",
        markdown_table(names, rows),
        "No speaker, session or recording is on two sides"
        + (f"; clones are in {TRAIN} alone" if clips["synthetic"].any() else "")
        + f" (seed {config.seed}). Where a recording declares no speaker, its session counts as one.",
        "## Left out" if left else "",
        markdown_table(("accepted clips left out as", "because", "clips"), left) if left else "",
    ]


def _general(export: Export) -> list[str]:
    clips = export.clips
    hours = hours_of(clips)
    letters = int(clips["text"].str.len_chars().sum())
    band = next((name for most, name in HOURS if hours < most), MOST_HOURS)
    tokens = "less than 1 billion tokens" if letters < FEW_LETTERS else PROVIDER
    described = int(clips["description"].is_not_null().sum())
    acquired = export.acquired
    rows = [
        ("provider, model, dates", PROVIDER),
        ("audio", f"{band} ({hours:,.2f} hours in {clips.height:,} clips): recorded speech"),
        ("text", f"{tokens} ({letters:,} characters): transcripts of the clips"),
        ("descriptions of voice and manner", f"{described:,} clips" if described else "none"),
        ("images, video", "none"),
        ("recordings taken in", f"{acquired[0]} to {acquired[1]}" if acquired else "not recorded"),
        ("when they were made", "not known to the corpus"),
    ]
    languages = [
        (language_name(code), *numbers) for code, *numbers in by(clips, "language", "not stated")
    ]
    names = ("clips", "hours", "share of hours")
    return [
        "## 1. General information",
        markdown_table(("what", "this data"), rows),
        "### Languages",
        markdown_table(("language", *names), languages),
        "### Speakers",
        (
            f"{clips['speaker'].n_unique() - clips['speaker'].has_nulls():,} declared speakers in "
            f"{clips['session_id'].n_unique():,} sessions. Gender and age as models heard them in each "
            "clip; nobody was asked."
        ),
        markdown_table(("gender", *names), by(clips, "gender", "not measured")),
        markdown_table(("age", *names), by(clips, "age", "not measured")),
    ]


def _sources(export: Export) -> list[str]:
    clips = export.clips
    made = clips.filter("synthetic")
    recorded = clips.filter(~pl.col("synthetic"))
    domains = domains_of(recorded)
    models = ", ".join(sorted({one for one in made["made_by"] if one})) or "none"
    share = hours_of(made) / max(hours_of(clips), 1e-12)
    names = ("clips", "hours", "share of hours")
    return [
        "## 2. Data sources",
        (
            "Whether a source is a public dataset, was licensed, was crawled or came from users, its "
            f"collector knows: {PROVIDER}"
        ),
        markdown_table(("source", *names), by(recorded, "source", "not stated")),
        "### Where the recordings were read from",
        markdown_table(("kind of place", *names), kinds_of(recorded)),
        "### Top internet domains",
        markdown_table(("domain", *names), domains)
        if domains
        else "No recording names an internet domain.",
        "### Synthetic data",
        f"{made.height:,} of {clips.height:,} clips, {share:.1%} of the hours, are generated speech: "
        f"voices of recordings in {TRAIN} saying what other recordings in {TRAIN} say. Each carries "
        f"an inaudible watermark. Models: {models}."
        if made.height
        else "None: 0 % of the hours.",
    ]


def _processing(export: Export) -> list[str]:
    config = export.config
    recorded = export.clips.filter(~pl.col("synthetic"))
    names = ("clips", "hours", "share of hours")
    asked = ", ".join(f"`{one}`" for one in config.licences) or "any"
    policy = f"filter policy `{export.policy_hash[:12]}`" if export.policy_hash else "filter policy"
    return [
        "## 3. Data processing",
        "### Rights",
        (
            f"Licences asked for: {asked}. Consent to training: `{config.consent}`. Reservations from "
            f"text and data mining: {PROVIDER}"
        ),
        markdown_table(("licence", *names), by(recorded, "licence", "not declared")),
        markdown_table(("consent", *names), by(recorded, "consent", "not declared")),
        "### Selection",
        (
            f"Clips are cut from recordings, transcribed, measured, and accepted by a {policy} of sound, "
            "text and voice. Nothing was done to find illegal content in what is said: "
            f"{PROVIDER}"
        ),
    ]
