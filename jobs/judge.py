"""`voxquarry filter` and `voxquarry report`: verdicts, books and the HTML file of a corpus."""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
from rich.console import Console

from jobs.descriptions import descriptions_in
from jobs.judge_synthetic import standing_synthetic
from jobs.phases import ANNOTATE, CURATE, ENCODE, MINE, NEAR_DUPLICATES
from pipeline.clip_rows import ClipRows
from pipeline.column_index import PART, Stamp
from pipeline.ledger import Item
from pipeline.packing import bring_up_to_date
from pipeline.policy import judge, load_policy, load_synthetic_policy
from pipeline.profile import as_plain
from pipeline.report import SHOWN_OF_CLIPS, ReportData, render_report, write_report
from pipeline.report_clones import Clones
from pipeline.report_training import SHOWN_OF_SAMPLES, Training
from pipeline.report_voices import MEASURES, WORDS, Voices
from pipeline.reviews import read_reviews
from pipeline.storage import Corpus
from pipeline.summary import Accounts, account, render
from pipeline.tombstones import refuse_unfinished
from schemas.arrow import (
    ATTRIBUTES,
    CLIPS,
    DUPLICATES,
    LATENTS,
    RECORDINGS,
    REFERENCES,
    SAMPLES,
    SYNTHETIC_VERDICTS,
    TRAITS,
    VERDICTS,
    Table,
)
from schemas.errors import ConfigError

JUDGE_PHASE = "filter"


def judge_corpus(root: str, policy_name: str, console: Console, *, quiet: bool = False) -> Accounts:
    """Write the verdicts of a policy and close the books. Raises `StorageError` if they do not."""
    started = time.perf_counter()
    policy = load_policy(policy_name)
    corpus = _opened(root)
    bring_up_to_date(corpus)
    stamps = corpus.part_stamps(CLIPS.name, RECORDINGS.name)
    facts = {"policy_hash": policy.hash, "policy": as_plain(policy)}
    # The ledger is Python's work and takes a core, polars takes the others.
    with ThreadPoolExecutor(2) as beside:
        taken_in = beside.submit(_taken_in, corpus, stamps)
        clips = _read(corpus, CLIPS, sorted({*policy.columns, "duration_s"}), stamps)
        verdicts = judge(clips, policy, read_reviews(corpus))
        clips = clips.select("clip_id", "duration_s")
        written = beside.submit(
            corpus.write_current, JUDGE_PHASE, VERDICTS, verdicts.to_arrow(), **facts
        )
        items, recordings, quarantine = taken_in.result()
        accounts = account(items, clips, verdicts, quarantine, recordings)
        written.result()
    if not quiet:
        render(accounts, {}, console)
        seconds = time.perf_counter() - started
        console.print(f"Policy {policy_name} ({policy.hash[:12]}) applied in {seconds:.2f} s.")
    return accounts


def _taken_in(
    corpus: Corpus, stamps: Mapping[str, Stamp]
) -> tuple[list[Item], pl.DataFrame, pl.DataFrame]:
    """Items, recordings and quarantined rows of curation: later phases lose no audio."""
    items = [item for _, item in corpus.latest_items(CURATE).values()]
    recordings = _read(corpus, RECORDINGS, ["recording_id", "flags"], stamps)
    return items, recordings, corpus.read_quarantine().filter(phase=CURATE)


def _read(
    corpus: Corpus, table: Table, columns: Sequence[str], stamps: Mapping[str, Stamp]
) -> pl.DataFrame:
    """Columns of a table. stamps: of the parts of several tables, which are listed once for all."""
    mine = {name: stamp for name, stamp in stamps.items() if name.startswith(f"{table.name}/")}
    return corpus.read_parts(table, columns, mine).drop(PART)


def report_corpus(root: str, policy_name: str, output: Path | None, console: Console) -> None:
    """Write the report by the verdicts of a policy, which are made if they are not there."""
    policy = load_policy(policy_name)
    corpus = _opened(root)
    accounts = judge_corpus(root, policy_name, console, quiet=True)
    columns = dict.fromkeys([*SHOWN_OF_CLIPS, policy.tiers.column])
    clips = corpus.read_with_parts(CLIPS, list(columns))
    places = clips.select("clip_id", PART)
    data = ReportData(
        name=Path(corpus.path).name,
        accounts=accounts,
        clips=clips.drop(PART).join(corpus.read(VERDICTS), on="clip_id"),
        recordings=corpus.read(RECORDINGS, SHOWN_OF_RECORDINGS),
        quarantine=corpus.read_quarantine(),
        policy=policy,
        runs=corpus.runs(),
        voices=_voices(corpus),
        clones=_clones(corpus),
        training=_training(corpus),
        load_audio=lambda ids: _audio(corpus, places, ids),
    )
    if output is None and not corpus.is_local:
        corpus.write_text("report.html", render_report(data))
        console.print(f"Report: {root.partition('?')[0]}/report.html")
        return
    path = output or Path(corpus.path) / "report.html"
    write_report(path, data)
    console.print(f"Report: {path}")


SYNTHETIC_POLICY = "synthetic"
TRAITS_SHOWN = (*WORDS, "arousal")
SHOWN_OF_RECORDINGS = [
    *("recording_id", "uri", "session_id", "speaker", "language", "licence"),
    *("duration_s", "sample_rate", "channels", "codec", "flags"),
]


def _voices(corpus: Corpus) -> Voices:
    """What mine and annotate left, of accepted clips."""
    kept = corpus.read(VERDICTS, ["clip_id", "accepted"]).filter("accepted")
    traits = corpus.read(TRAITS, ["clip_id", *TRAITS_SHOWN])
    measures = ["clip_id", *(name for name, _, _ in MEASURES if name not in TRAITS_SHOWN)]
    attributes = corpus.read_standing(ATTRIBUTES, ANNOTATE, "clip_id", measures)
    return Voices(
        references=corpus.read_standing(
            REFERENCES, MINE, "session_id", ["target_id", "reference_id", "cosine", "rank"]
        ).join(kept, left_on="target_id", right_on="clip_id", how="semi"),
        duplicates=corpus.read_standing(DUPLICATES, NEAR_DUPLICATES, "text_id", ["clip_id"]).height,
        attributes=attributes.join(traits, on="clip_id").join(kept, on="clip_id", how="semi"),
        descriptions=descriptions_in(corpus).join(kept, on="clip_id", how="semi"),
    )


def _clones(corpus: Corpus) -> Clones:
    """What clone left, with the limits of the shipped policy if the verdicts are by that one."""
    made = standing_synthetic(corpus)
    verdicts = corpus.read(SYNTHETIC_VERDICTS)
    limits: dict[str, list[tuple[str, float]]] = {}
    if made.height:
        policy = load_synthetic_policy(SYNTHETIC_POLICY)
        for rule in policy.rules.values() if {policy.hash} == set(verdicts["policy_hash"]) else ():
            found = [("min", rule.min), ("max", rule.max)]
            limits.setdefault(rule.column, []).extend(
                (side, value) for side, value in found if value is not None
            )
    return Clones(
        synthetic=made.join(verdicts, on="clip_id", how="left"),
        load_audio=lambda ids: _audio(corpus, made, ids),
        limits=limits,
    )


def _training(corpus: Corpus) -> Training:
    """What encode and compose left, and the marks of listeners."""
    latents = ["frames", "vae_hash", "synthetic"]
    return Training(
        latents=corpus.read_standing(LATENTS, ENCODE, "clip_id", latents),
        samples=corpus.read(SAMPLES, SHOWN_OF_SAMPLES),
        reviews=read_reviews(corpus),
    )


def _audio(corpus: Corpus, places: pl.DataFrame, clip_ids: Sequence[str]) -> dict[str, bytes]:
    """FLAC of those clips that have any. places: `clip_id` and `part`, of the rows that stand."""
    rows = ClipRows(corpus, ["audio"])
    asked = places.filter(pl.col("clip_id").is_in(list(clip_ids))).select("clip_id", PART)
    # Neighbours share a row group, which is read as a whole.
    found = {
        clip_id: rows.row(part, clip_id)["audio"]
        for clip_id, part in asked.sort(PART, "clip_id").iter_rows()
    }
    return {clip_id: audio for clip_id, audio in found.items() if audio is not None}


def _opened(root: str) -> Corpus:
    corpus = Corpus(root)
    if not corpus.exists():
        raise ConfigError(
            f"{root} holds no corpus; `voxquarry curate SOURCE --out {root}` makes one"
        )
    refuse_unfinished(corpus)
    return corpus
