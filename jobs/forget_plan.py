"""What an opt-out takes with it: recordings, clips of a voice, and all that was made of them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from jobs.clone_plan import PHASE as CLONE
from jobs.curate import PHASE as CURATE
from jobs.mine_plan import comparison_id, key_of_text
from pipeline.ledger import Item
from pipeline.storage import Corpus
from pipeline.tombstones import name_key
from schemas.arrow import CLIPS, DUPLICATES, RECORDINGS, SYNTHETIC
from schemas.errors import ConfigError
from schemas.ids import content_id

_CLIPS = ("clip_id", "recording_id", "session_id", "speaker", "chunk_index", "start_s", "end_s")
_RECORDINGS = ("recording_id", "uri", "session_id", "speaker", "source")


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """Who or what is to be forgotten."""

    kind: str
    """One of `pipeline.tombstones.KINDS`."""
    name: str
    """A recording's uri or id; a speaker or session; how a uri, or what `source` says, begins."""
    reason: str


@dataclass(kw_only=True, slots=True)
class Removal:
    """All that goes, by what the tables know it by. Kept as JSON until it is gone."""

    kind: str
    name: str
    reason: str
    time: str = ""
    keys: list[str] = field(default_factory=list)
    """As in `Tombstone`."""
    recordings: list[str] = field(default_factory=list)
    """Ids of those that go as a whole."""
    uris: list[str] = field(default_factory=list)
    """Theirs, and those of copies."""
    sessions: list[str] = field(default_factory=list)
    """Of which nothing is left."""
    clips: list[str] = field(default_factory=list)
    clones: list[str] = field(default_factory=list)
    """Generated clips that have the voice, or say what only it was known to say."""
    texts: list[str] = field(default_factory=list)
    """Ids of texts that nobody else says."""
    items: list[str] = field(default_factory=list)
    """Ids of recordings' chunks, and of sources that never became audio."""
    spans: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """As in `Tombstone`."""
    speaker: str | None = None
    """Who is no longer named by recordings that stay."""
    groups: dict[str, str] = field(default_factory=dict)
    """Group of near-duplicates → the clip that names it from now on; empty: it is none any more."""
    lengths: dict[str, float] = field(default_factory=dict)
    """Chunk of a recording that stays → seconds of it that are left."""
    failed: list[tuple[str, str]] = field(default_factory=list)
    """(phase, item) of what waits in quarantine and tells of what goes."""
    rows: dict[str, int] = field(default_factory=dict)
    """By table, how many go."""

    @property
    def ids(self) -> list[str]:
        """Every id that must stand nowhere any more."""
        return [*self.recordings, *self.clips, *self.clones, *self.texts, *self.items]


def removal_of(corpus: Corpus, request: Request) -> Removal:
    """Work out what goes. Raises `ConfigError` where nothing here is meant."""
    recordings = _known_recordings(corpus)
    clips = corpus.read(CLIPS, _CLIPS)
    if request.kind == "speaker":
        whole, some = _of_speaker(recordings, clips, request.name)
    else:
        whole = recordings.filter(_meant(request))
        some = clips.clear()
    if whole.is_empty() and some.is_empty():
        raise ConfigError(f"{corpus.root} holds no {request.kind} {request.name}")
    items = _with_copies(corpus, set(whole["uri"].drop_nulls()))
    uris = {item.uri for item in items.values()} | set(whole["uri"].drop_nulls())
    ids = {str(item.facts["recording_id"]) for item in items.values()} | set(whole["recording_id"])
    gone = pl.concat([clips.filter(pl.col("recording_id").is_in(list(ids))), some])
    gone = gone.unique("clip_id", maintain_order=True)
    left = clips.join(gone, on="clip_id", how="anti")
    kept = recordings.filter(~pl.col("recording_id").is_in(list(ids)))
    removal = Removal(
        kind=request.kind,
        name=request.name,
        reason=request.reason,
        keys=_keys(request, whole),
        recordings=sorted(ids),
        uris=sorted(uris),
        sessions=_emptied(gone, whole, left, kept),
        clips=gone["clip_id"].sort().to_list(),
        texts=_texts_of_nobody_else(corpus, gone),
        items=sorted(items),
        speaker=request.name if request.kind == "speaker" else None,
    )
    removal.spans, removal.lengths = _stretches(corpus, some)
    removal.groups = _renamed_groups(corpus, removal.clips)
    removal.clones = _clones_of(corpus, removal.clips)
    return removal


def _known_recordings(corpus: Corpus) -> pl.DataFrame:
    """Rows of `recordings`, and what only the ledger or the clips know of others."""
    rows = corpus.read(RECORDINGS, _RECORDINGS)
    items = [
        (str(item.facts["recording_id"]), item.uri)
        for _, item in corpus.latest_items(CURATE).values()
        if "recording_id" in item.facts
    ]
    schema = {"recording_id": pl.String, "uri": pl.String}
    ledger = pl.DataFrame(items, schema=schema, orient="row").unique()
    # A long recording whose last chunk is missing has clips and no row.
    declared = corpus.read(CLIPS, ["recording_id", "session_id", "speaker"]).unique("recording_id")
    others = ledger.join(rows, on="recording_id", how="anti").join(
        declared, on="recording_id", how="left"
    )
    return pl.concat([rows, others], how="diagonal").unique(maintain_order=True)


def _meant(request: Request) -> pl.Expr:
    name = request.name
    if request.kind == "recording":
        known = [name] if "://" in name else [name, str(Path(name).absolute())]
        return pl.col("uri").is_in(known) | (pl.col("recording_id") == name)
    if request.kind == "session":
        return pl.col("session_id") == name
    begins = pl.col("source").str.starts_with(name) | pl.col("uri").str.starts_with(name)
    return begins.fill_null(False) if name else pl.lit(False)


def _of_speaker(
    recordings: pl.DataFrame, clips: pl.DataFrame, name: str
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Recordings that are the speaker's alone, and the speaker's clips in those of several."""
    others = clips.filter(pl.col("speaker") != name)["recording_id"].unique()
    alone = (pl.col("speaker") == name) & ~pl.col("recording_id").is_in(others.implode())
    whole = recordings.filter(alone.fill_null(False))
    rest = clips.filter(pl.col("speaker") == name)
    return whole, rest.join(whole, on="recording_id", how="anti")


def _keys(request: Request, whole: pl.DataFrame) -> list[str]:
    """What keeps other recordings of the same name out."""
    if request.kind == "recording":
        return []
    if request.kind == "source":
        begins = (one for one in whole["source"].unique() if one and one.startswith(request.name))
        return sorted(name_key("source", one) for one in begins)
    return [name_key(request.kind, request.name)]


def _with_copies(corpus: Corpus, uris: set[str]) -> dict[str, Item]:
    """The curate phase's items of some uris, and of those that hold the same bytes."""
    quarantine = corpus.read_quarantine().filter(phase=CURATE)
    if uris and quarantine.height:
        copies = quarantine.filter(
            (pl.col("error_type") == "DuplicateRecording")
            & pl.col("message").str.contains_any(sorted(uris))
        )
        uris = uris | set(copies["uri"])
    ledger = corpus.latest_items(CURATE)
    # Whatever an earlier attempt was called.
    every = (item for unit in corpus.committed(CURATE) for item in unit.items)
    found = {item.item_id: item for item in every if item.uri in uris}
    return found | {name: item for name, (_, item) in ledger.items() if item.uri in uris}


def _emptied(
    gone: pl.DataFrame, whole: pl.DataFrame, left: pl.DataFrame, kept: pl.DataFrame
) -> list[str]:
    """Sessions of what goes that hold nothing else."""
    touched = set(gone["session_id"]) | set(whole["session_id"].drop_nulls())
    return sorted(touched - set(left["session_id"]) - set(kept["session_id"].drop_nulls()))


def _texts_of_nobody_else(corpus: Corpus, gone: pl.DataFrame) -> list[str]:
    """Ids under which sentence vectors and comparisons keep texts that only these clips say."""
    if gone.is_empty():
        return []
    texts = corpus.read(CLIPS, ["clip_id", "text", "text_spoken"]).with_columns(
        said=pl.coalesce("text_spoken", "text").str.strip_chars(), key=key_of_text()
    )
    mine = texts.join(gone, on="clip_id", how="semi")
    others = texts.join(gone, on="clip_id", how="anti")
    said = set(mine["said"].drop_nulls()) - set(others["said"].drop_nulls())
    keys = set(mine["key"].drop_nulls()) - set(others["key"].drop_nulls())
    return sorted({*map(content_id, said), *map(comparison_id, keys)})


def _stretches(
    corpus: Corpus, some: pl.DataFrame
) -> tuple[dict[str, list[tuple[float, float]]], dict[str, float]]:
    """Where the clips were in recordings that stay, and what is left of those chunks' lengths."""
    spans: dict[str, list[tuple[float, float]]] = {}
    lost: dict[str, float] = {}
    columns = ("recording_id", "chunk_index", "start_s", "end_s")
    for recording, chunk, start, end in some.select(columns).sort(columns).iter_rows():
        spans.setdefault(recording, []).append((start, end))
        item = f"{recording}-{chunk:05d}"
        lost[item] = lost.get(item, 0.0) + end - start
    ledger = corpus.latest_items(CURATE)
    lengths = {
        name: max(0.0, ledger[name][1].duration_s - seconds)
        for name, seconds in lost.items()
        if name in ledger
    }
    return spans, lengths


def _renamed_groups(corpus: Corpus, clips: Iterable[str]) -> dict[str, str]:
    """New names of the groups of near-duplicates that lose a clip."""
    marks = corpus.read(DUPLICATES, ["clip_id", "group_id"])
    going = pl.col("clip_id").is_in(list(clips))
    touched = marks.filter(going | pl.col("group_id").is_in(list(clips))).select("group_id")
    left = (
        marks.filter(~going)
        .join(touched, on="group_id", how="semi")
        .group_by("group_id")
        .agg(pl.col("clip_id").unique().sort())
    )
    found = dict.fromkeys(touched["group_id"], "")
    for group, members in left.iter_rows():
        if len(members) > 1:
            found[group] = group if group in members else members[0]
    return found


def _clones_of(corpus: Corpus, clips: Iterable[str]) -> list[str]:
    """Ids of generated clips with the voice or the words of some clips, the unborn ones too."""
    gone = pl.Series(list(clips), dtype=pl.String).implode()
    lineage = corpus.read(
        SYNTHETIC, ["clip_id", "described_id", "transcript_id", "reference_ids"]
    ).with_columns(
        origins=pl.concat_list("described_id", "transcript_id", "reference_ids"),
    )
    made = lineage.filter(pl.col("origins").list.set_intersection(gone).list.len() > 0)
    ledger = corpus.latest_items(CLONE)
    slots = _most_slots(item.uri for _, item in ledger.values())
    planned = {content_id("clone", clip, slot) for clip in clips for slot in range(slots)}
    return sorted(set(made["clip_id"]) | (planned & set(ledger)))


def _most_slots(uris: Iterable[str]) -> int:
    """Clones of one clip, as the ledger numbers them."""
    numbers = (uri.rpartition(" clone ")[2] for uri in uris)
    return max((int(number) for number in numbers if number.isdecimal()), default=0)


def hours_of(corpus: Corpus, removal: Removal) -> float:
    """Hours of speech in the clips that go."""
    lengths: Mapping[str, float] = dict(corpus.read(CLIPS, ["clip_id", "duration_s"]).iter_rows())
    return sum(lengths[clip] for clip in removal.clips if clip in lengths) / 3600
