"""Small corpora that can be cloned from, written through the project's own storage."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.ledger import Item, UnitRecord
from pipeline.storage import Corpus
from schemas.arrow import RECORDINGS, TABLES, TRAITS, VERDICTS
from schemas.attributes import Traits
from schemas.descriptions import Description
from schemas.references import Duplicate, Reference
from schemas.rows import Clip, Recording, Verdict
from schemas.synthetic import Synthetic

_THINGS = (
    *("harbour", "boats", "winter", "market", "bread", "mountain", "railway"),
    *("garden", "violin", "doctor", "kitchen", "library", "river", "engine"),
    *("painter", "shepherd", "castle", "lantern", "blanket", "teacher", "orchard"),
    *("thunder", "pepper", "carpet", "wallet"),
)


@dataclass(kw_only=True)
class Voiced:
    """A clip as a test tells it."""

    name: str
    text: str | None
    recording: str = "r0"
    session: str = "s0"
    duration_s: float = 4.0
    chars_per_s: float | None = 12.0
    language: str | None = "en"
    sayable: bool = True
    accepted: bool = True
    description: str | None = "A calm voice."
    description_accepted: bool = True
    references: tuple[str, ...] = ()
    group: str | None = None
    """Of near-duplicates."""


def voiced(sessions: int = 4, clips: int = 6, **changes: object) -> list[Voiced]:
    """Clips of several sessions; each has a recording and words of its own."""
    chance = random.Random(0)
    return [
        Voiced(
            name=f"s{session}c{clip}",
            text=" ".join(chance.sample(_THINGS, 6)).capitalize() + ".",
            recording=f"r{session}",
            session=f"s{session}",
            **changes,  # type: ignore[arg-type]
        )
        for session in range(sessions)
        for clip in range(clips)
    ]


def make(
    folder: Path, said: Sequence[Voiced], consents: dict[str, str | None] | None = None
) -> Corpus:
    """Write a corpus. consents: recording → what it declares."""
    corpus = Corpus(str(folder))
    recordings = sorted({one.recording for one in said})
    _commit(corpus, "curate", {"clips": [_clip(one) for one in said]}, said)
    declare(corpus, recordings, consents or {})
    pairs = [
        Reference(
            target_id=one.name,
            reference_id=other,
            session_id=one.session,
            cosine=0.9,
            rank=rank,
            attempt=1,
        )
        for one in said
        for rank, other in enumerate(one.references)
    ]
    _commit(corpus, "mine", {"references": pairs}, sorted({one.session for one in said}))
    marks = [
        Duplicate(clip_id=one.name, group_id=one.group, similarity=0.95, text_id="t", attempt=1)
        for one in said
        if one.group
    ]
    _commit(corpus, "duplicates", {"duplicates": marks}, ["t"])
    judge(corpus, said)
    describe(corpus, said)
    return corpus


def declare(corpus: Corpus, recordings: Sequence[str], consents: dict[str, str | None]) -> None:
    """Write what the recordings declare, in the place of what they did."""
    rows = [
        Recording(
            recording_id=name,
            uri=f"/made-up/{name}.flac",
            session_id=name.replace("r", "s"),
            consent=consents.get(name),
            duration_s=100.0,
            sample_rate=16_000,
            channels=1,
            codec="FLAC",
            size_bytes=1,
            num_chunks=1,
        )
        for name in recordings
    ]
    corpus.write_current("recordings", RECORDINGS, RECORDINGS.to_arrow(rows))


def judge(corpus: Corpus, said: Sequence[Voiced]) -> None:
    """Write the verdicts, in the place of those before."""
    verdicts = [
        Verdict(
            clip_id=one.name, accepted=one.accepted, tier="wideband", reasons=(), policy_hash="p"
        )
        for one in said
    ]
    corpus.write_current("filter", VERDICTS, VERDICTS.to_arrow(verdicts))


def describe(corpus: Corpus, said: Sequence[Voiced], attempt: int = 1) -> None:
    """Write the descriptions; a later attempt overtakes an earlier one."""
    described = [one for one in said if one.description]
    names = TRAITS.schema.names
    traits = [
        Traits(**{name: {"clip_id": one.name, "chosen": True}.get(name) for name in names})
        for one in described
    ]
    corpus.write_current("traits", TRAITS, TRAITS.to_arrow(traits))
    written = [
        Description(
            clip_id=one.name,
            language="en",
            text=one.description or "",
            text_written=one.description or "",
            attributes=(),
            writer="grammar",
            model="grammar-1",
            verified=(),
            accepted=one.description_accepted,
            reasons=() if one.description_accepted else ("empty",),
            attempt=attempt,
        )
        for one in described
    ]
    _commit(corpus, "describe", {"descriptions": written}, described, attempt=attempt)


def commit_clones(corpus: Corpus, clones: Sequence[Synthetic], attempt: int = 1) -> None:
    """Commit rows of `synthetic` as the clone phase would."""
    names = [clone.clip_id for clone in clones]
    _commit(corpus, "clone", {"synthetic": clones}, names, attempt=attempt)


def _commit(
    corpus: Corpus,
    phase: str,
    rows: dict[str, Sequence[object]],
    items: Sequence[Voiced | str],
    *,
    attempt: int = 1,
) -> None:
    names = [item if isinstance(item, str) else item.name for item in items]
    record = UnitRecord(
        unit_id=f"{phase}-{attempt}",
        attempt=attempt,
        items=tuple(
            Item(item_id=name, uri=name, status="done", duration_s=1.0, facts={"source": "f"})
            for name in names
        ),
        rows={},
        seconds={},
    )
    assert set(rows) <= set(TABLES)
    corpus.commit(phase, [record], rows)


def _clip(one: Voiced) -> Clip:
    start_s = 10.0 * int(one.name[-1], 36)
    return Clip(
        clip_id=one.name,
        recording_id=one.recording,
        session_id=one.session,
        chunk_index=0,
        start_sample=round(start_s * 16_000),
        end_sample=round((start_s + one.duration_s) * 16_000),
        sample_rate=16_000,
        start_s=start_s,
        end_s=start_s + one.duration_s,
        duration_s=one.duration_s,
        language=one.language,
        text=one.text,
        text_spoken=one.text if one.sayable else None,
        chars_per_s=one.chars_per_s,
    )
