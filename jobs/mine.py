"""The mine phase, in two steps: mark near-duplicates, then pair the clips of each session.

    clips of one text → same length, same voice → same sound?     → duplicates
    clips of a session → cosines, rules, voices → a diverse choice → references, sessions

Both work on what the corpus holds. A text and a session are items of their own, done again when
their clips, verdicts, marks or settings change.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from annotators.sound_print import F16
from jobs.phases import MINE, NEAR_DUPLICATES
from pipeline.storage import Corpus
from pipeline.work import Phase
from schemas.arrow import REFERENCES
from schemas.references import Duplicate, MinedSession, Unreferenced
from schemas.rows import Span
from stages.mining import COLUMNS, Mining, MiningConfig, Session, embeddings_of
from stages.near_duplicates import (
    DuplicatesConfig,
    NearDuplicates,
    TextGroup,
    pairs_to_compare,
    print_of,
)

PHASE = MINE
DUPLICATES_PHASE = NEAR_DUPLICATES

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True)
class Places:
    """Where the rows of some clips lie in the corpus."""

    corpus: str
    parts: tuple[str, ...]
    part: Ints = field(repr=False)
    """(N,) of each clip, in `parts`."""
    row: Ints = field(repr=False)
    """(N,) of each clip, from the start of its part."""

    def read(self, columns: Sequence[str], clips: Ints | None = None) -> pa.Table:
        """The rows of all clips, or of some, in their order."""
        chosen = np.arange(self.part.size) if clips is None else clips
        part, row = self.part[chosen], self.row[chosen]
        corpus = Corpus(self.corpus)
        order = np.argsort(part, kind="stable")
        numbers, starts = np.unique(part[order], return_index=True)
        pieces = [
            corpus.read_rows(self.parts[number], row[mine], columns)
            for number, mine in zip(numbers, np.split(order, starts[1:]), strict=True)
        ]
        back = np.empty_like(order)
        back[order] = np.arange(order.size)
        return pa.concat_tables(pieces).take(back)


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionPlan:
    """A session before its clips are read; they are in the session's order."""

    session_id: str
    places: Places
    accepted: Bools = field(repr=False)
    repeats: Bools = field(repr=False)
    attempt: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class TextPlan:
    """Clips of one text before they are read."""

    text_id: str
    places: Places
    config: DuplicatesConfig
    attempt: int = 0


def mine_phase(config: MiningConfig, placement: Mapping[str, str]) -> Phase:
    """Sessions to references. The config's cosines are set."""
    return Phase(
        name=PHASE,
        read=read_session,
        stages=(Mining(config),),
        placement=placement,
        write=references_of,
        measure=lambda session: float(session.clips["duration_s"].sum()),
    )


def read_session(plan: SessionPlan) -> Session:
    """What mining needs of the session's clips."""
    clips = pl.from_arrow(plan.places.read(COLUMNS))
    assert isinstance(clips, pl.DataFrame)
    return Session(
        session_id=plan.session_id, clips=clips, accepted=plan.accepted, repeats=plan.repeats
    )


def references_of(
    plan: SessionPlan, session: Session | None
) -> Mapping[str, Sequence[Any] | pa.Table]:
    """The session's pairs and its books."""
    if session is None:
        return {}
    mined = session.mined
    assert mined is not None, "the stage fills it"
    ids = session.clips["clip_id"].to_arrow().cast(pa.string())
    size = mined.targets.size
    columns: dict[str, Any] = {
        "target_id": ids.take(mined.targets),
        "reference_id": ids.take(mined.references),
        "session_id": pa.repeat(plan.session_id, size),
        "cosine": pa.array(mined.cosines.astype(np.float64)),
        "rank": pa.array(mined.ranks),
        "attempt": pa.repeat(plan.attempt, size),
    }
    schema = REFERENCES.schema
    pairs = pa.Table.from_arrays(
        [columns[field.name].cast(field.type) for field in schema], schema=schema
    )
    books = MinedSession(
        session_id=plan.session_id,
        clips=session.clips.height,
        accepted=int(session.accepted.sum()),
        duplicates=int((session.accepted & session.repeats).sum()),
        clean=mined.num_clean,
        targets=int(np.unique(mined.targets).size),
        pairs=size,
        cosine_mean=float(mined.cosines.mean(dtype=np.float64)) if size else None,
        unreferenced=tuple(
            Unreferenced(reason=reason, clips=count)
            for reason, count in sorted(mined.unreferenced.items())
        ),
        attempt=plan.attempt,
    )
    return {"references": pairs, "sessions": [books]}


def duplicates_phase(config: DuplicatesConfig, placement: Mapping[str, str]) -> Phase:
    """Clips of one text to marks on those that are one sound."""
    return Phase(
        name=DUPLICATES_PHASE,
        read=read_text_group,
        stages=(NearDuplicates(config),),
        placement=placement,
        write=duplicates_of,
        measure=lambda group: float(group.duration_s),
    )


def read_text_group(plan: TextPlan) -> TextGroup:
    """The clips of one text; sound is read of those only that may be copies."""
    if not plan.places.part.size:
        pairs, nothing = np.zeros((0, 2), np.int64), ()
        return TextGroup(
            text_id=plan.text_id, clip_ids=nothing, duration_s=0.0, pairs=pairs, prints=nothing
        )
    clips = pl.from_arrow(plan.places.read(["clip_id", "duration_s", "speaker_embedding"]))
    assert isinstance(clips, pl.DataFrame)
    embeddings, _ = embeddings_of(clips)
    pairs = pairs_to_compare(embeddings, clips["duration_s"].to_numpy(), plan.config)
    prints: list[F16 | None] = [None] * clips.height
    has_print = np.zeros(clips.height, np.bool_)
    # Some hundreds of clips at a time: their audio is a hundred times as large as their prints.
    compared = np.unique(pairs)
    for start in range(0, compared.size, 256):
        some = compared[start : start + 256]
        sounds = plan.places.read(["audio", "speech"], some).to_pylist()
        for number, sound in zip(some.tolist(), sounds, strict=True):
            if sound["audio"] is not None:
                prints[number] = print_of(sound["audio"], [Span(**s) for s in sound["speech"]])
                has_print[number] = True
    return TextGroup(
        text_id=plan.text_id,
        clip_ids=tuple(clips["clip_id"]),
        duration_s=float(clips["duration_s"].sum()),
        pairs=pairs[has_print[pairs].all(axis=1)],
        prints=tuple(prints),
    )


def duplicates_of(plan: TextPlan, group: TextGroup | None) -> Mapping[str, Sequence[Any]]:
    """The group's marks."""
    if group is None:
        return {}
    return {
        "duplicates": [
            Duplicate(
                clip_id=mark.clip_id,
                group_id=mark.group_id,
                similarity=mark.similarity,
                text_id=plan.text_id,
                attempt=plan.attempt,
            )
            for mark in group.marked
        ]
    }
