"""What a corpus has forgotten, and must not take in again.

    ROOT/_forgotten/<id>.json   one per opt-out: hashes of names, ids that are hashes of bytes, times
    ROOT/_forgetting.json       an opt-out under way: what goes; there only until all of it is gone

A tombstone tells nobody who was forgotten. It tells a plan that a source is one of them: by its
uri, by its bytes, or by the speaker, session or origin that the source declares.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from pipeline.sources import Source
from pipeline.storage import Corpus
from schemas.errors import ConfigError
from schemas.ids import content_id
from schemas.rows import Recording, Span

FOLDER = "_forgotten"
JOURNAL = "_forgetting.json"

KINDS = ("recording", "speaker", "session", "source")
"""What a person may ask to have forgotten."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tombstone:
    """One opt-out, without a name, a text or a voice."""

    id: str
    kind: str
    """One of `KINDS`."""
    keys: tuple[str, ...]
    """`name_key` of the speaker, session or sources that are not to come back under any uri."""
    recordings: tuple[str, ...]
    """Ids of recordings that are gone as a whole."""
    uris: tuple[str, ...]
    """`name_key` of theirs."""
    spans: Mapping[str, Sequence[tuple[float, float]]]
    """Recording id → the seconds that are gone of a recording that stays."""
    reason: str
    time: str
    """UTC, ISO 8601."""
    rows: Mapping[str, int]
    """How many rows went, by table."""


def name_key(kind: str, name: str) -> str:
    """What stands for a uri, speaker, session or source in a tombstone."""
    return content_id("forgotten", kind, name)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tombstones:
    """All that a corpus has forgotten."""

    keys: frozenset[str] = frozenset()
    recordings: Mapping[str, str]
    """Recording id → when it was forgotten."""
    spans: Mapping[str, tuple[Span, ...]]

    @classmethod
    def of(cls, corpus: Corpus) -> "Tombstones":
        """Read them all."""
        stones = [Tombstone(**values) for values in corpus.jsons(FOLDER)]
        spans: dict[str, list[Span]] = {}
        for stone in stones:
            for recording, times in stone.spans.items():
                spans.setdefault(recording, []).extend(
                    Span(start_s=start, end_s=end) for start, end in times
                )
        return cls(
            keys=frozenset(key for stone in stones for key in (*stone.keys, *stone.uris)),
            recordings={name: stone.time for stone in stones for name in stone.recordings},
            spans={recording: tuple(found) for recording, found in spans.items()},
        )

    def hold(self, source: Source) -> bool:
        """Whether a source is forgotten, as far as its name and what it declares tell."""
        names = {
            "uri": source.uri,
            "session": source.session_id,
            "speaker": source.speaker,
            "source": source.source,
        }
        return any(name and name_key(kind, name) in self.keys for kind, name in names.items())


def write(corpus: Corpus, stone: Tombstone) -> None:
    """Keep a tombstone."""
    corpus.write_json(f"{FOLDER}/{stone.id}.json", asdict(stone))


def overlap(start_s: float, end_s: float, spans: Iterable[Span]) -> bool:
    """Whether a stretch of time shares any with one of the spans."""
    return any(start_s < span.end_s and span.start_s < end_s for span in spans)


def without_spans(recording: Recording, spans: Sequence[Span]) -> Recording:
    """A recording without what was said in some spans of it: utterances there, and a transcript of
    all of it, which cannot be told apart."""
    if not spans:
        return recording
    kept = (u for u in recording.utterances if not overlap(u.start_s, u.end_s, spans))
    return replace(recording, transcript=None, utterances=tuple(kept))


def refuse_unfinished(corpus: Corpus) -> None:
    """Raise `ConfigError` where an opt-out has begun and not ended: its tables are half done."""
    if corpus.find_json(JOURNAL) is not None:
        raise ConfigError(
            f"{corpus.root}: an opt-out was interrupted; `voxquarry forget {corpus.root}` "
            "completes it"
        )


def journal(corpus: Corpus) -> dict[str, Any] | None:
    """The opt-out under way, as it was written; None where there is none."""
    found: dict[str, Any] | None = corpus.find_json(JOURNAL)
    return found
