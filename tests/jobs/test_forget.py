"""Opting out on corpora that hold a row of everything: what goes, what stays, and being killed."""

import io
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from rich.console import Console

from jobs.curate import tables_of
from jobs.forget import run_forget
from jobs.forget_plan import Request
from jobs.judge import judge_corpus
from jobs.run_compose import run_compose
from jobs.settings import Settings
from pipeline import packing
from pipeline.audio import ChunkPlan
from pipeline.chat.responses import Response, Responses
from pipeline.latent_rows import read_latents
from pipeline.lease import LEASE
from pipeline.ledger import Item, UnitRecord
from pipeline.sources import Source
from pipeline.storage import Corpus
from pipeline.tombstones import JOURNAL, Tombstones
from schemas.arrow import (
    CLIPS,
    DUPLICATES,
    QUARANTINE,
    RECORDINGS,
    SAMPLES,
    SYNTHETIC,
    TABLES,
    VERDICTS,
)
from schemas.errors import ConfigError
from schemas.rows import Chunk, Clip, Quarantined, Recording, Span, Utterance
from schemas.samples import Place
from tests.jobs.composable_corpus import CHANNELS, V2, Cloned, Made, Said, make, write_clones
from tests.jobs.corpus_scan import Voice, traces_of, voice_of

QUIET = Console(file=io.StringIO(), width=200)
PLACED = [SAMPLES.name]
"""Tables whose rows say where other rows lie."""


class Killed(BaseException):
    """No `except` of ours catches it, as none catches `kill -9`."""


def a_corpus(folder: Path) -> Made:
    """Ann and Bob in sessions of their own, a clone of each, and one that lends from both."""
    said = [
        *(
            Said(
                name=f"{who}-clip-{n}",
                text=f"{who} says something about the number {n * 7}",
                recording=f"{who}-{n // 3}",
                session=f"session of {who}",
                start_s=6.0 * n,
                speaker=who,
                pause=(1.6, 2.4),
                references=(f"{who}-clip-{(n + 2) % 6}",),
                group=f"{who}-clip-0" if n < 3 else None,
                description=f"A voice that only {who} has, number {n}." if n % 2 else None,
            )
            for who in ("ann", "bob")
            for n in range(6)
        ),
        # The two of them said one thing alike.
        Said(name="ann-jingle", text="and now the news", recording="ann-0", session="session of ann",
             start_s=60.0, speaker="ann", group="bob-jingle"),
        Said(name="bob-jingle", text="and now the news", recording="bob-0", session="session of bob",
             start_s=60.0, speaker="bob", group="bob-jingle"),
        Said(name="cat-jingle", text="and now the news", recording="cat-0", session="session of cat",
             speaker="cat", group="bob-jingle"),
    ]  # fmt: skip
    made = make(folder, said)
    clones = [
        Cloned(name="clone-of-ann", of="ann-clip-1", says="cat-jingle", text="and now the news"),
        Cloned(name="clone-of-bob", of="bob-clip-1", says="ann-clip-2", text=said[2].text or ""),
        Cloned(name="ann-says-bobs", of="ann-clip-3", says="bob-clip-2", text=said[8].text or ""),
        Cloned(name="heard-bob", of="ann-clip-3", says="cat-jingle", text="and now the news",
               heard=("ann-clip-3", "bob-clip-4")),
    ]  # fmt: skip
    write_clones(made.corpus, clones, audio=b"the sound of a clone")
    run_compose(made.root, V2, Settings(), policy=made.policy, console=QUIET)
    answer = Response(
        key="ab12", clip_id="bob-clip-1", role="describe", model="m", host="h", provider="p",
        terms="t", prompt_hash="q", status="answered", attempts=1, lost_cost=0.5, cost=1.5,
        max_output_tokens=10, content="A voice that only bob has, number 1.",
    )  # fmt: skip
    Responses(made.corpus).write(answer)
    Path(made.root, "report.html").write_text("<p>bob says something about the number 7</p>")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "WORTH", 1)
        packing.bring_up_to_date(made.corpus)
    return made


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return a_corpus(tmp_path_factory.mktemp("original"))


@pytest.fixture
def copy(original: Made, tmp_path: Path) -> Made:
    root = tmp_path / "corpus"
    shutil.copytree(original.root, root)
    return replace(original, root=str(root), corpus=Corpus(str(root)))


def forget(made: Made, kind: str = "speaker", name: str = "bob", **how: Any) -> bool:
    request = Request(kind=kind, name=name, reason="asked to")
    how = {"dry_run": False, "agreed": lambda: True, **how}
    return run_forget(made.root, request, console=QUIET, **how)


def bobs(made: Made) -> Voice:
    clips = made.corpus.read(CLIPS, ["clip_id", "speaker", "recording_id"]).filter(speaker="bob")
    return voice_of(made.corpus, clips["clip_id"].to_list(), clips["recording_id"].to_list())


def rows_of_others(made: Made) -> dict[str, list[dict[str, Any]]]:
    """Every row that has nothing to do with Bob, by table; of samples, without places."""
    found = {}
    for table in TABLES.values():
        frame = made.corpus.read(table)
        if table.name == SAMPLES.name:
            frame = frame.drop("target", "prompt", "references")
        told = [row for row in frame.to_dicts() if "bob" not in str(row)]
        if table.name == SYNTHETIC.name:
            told = [row for row in told if row["clip_id"] != "ann-says-bobs"]
        if table.name == DUPLICATES.name:
            # The group is known by another of its clips from now on.
            told = [row for row in told if row["group_id"] != "ann-jingle"]
        found[table.name] = sorted(told, key=str)
    return found


def test_nothing_of_a_voice_is_left_in_any_file_and_all_of_the_others_is(copy: Made) -> None:
    voice, others = bobs(copy), rows_of_others(copy)
    made_of_bob = ("clone-of-bob", "ann-says-bobs", "heard-bob")
    others = {
        name: [row for row in rows if not any(one in str(row) for one in made_of_bob)]
        for name, rows in others.items()
    }
    before = len(traces_of(copy.corpus, voice))
    assert before > 100
    assert any(trace.startswith("_index/clips/") for trace in traces_of(copy.corpus, voice))
    assert voice.ids >= set(made_of_bob)
    assert forget(copy)
    assert traces_of(copy.corpus, voice) == []
    assert rows_of_others(copy) == others
    assert copy.corpus.read(SYNTHETIC)["clip_id"].to_list() == ["clone-of-ann"]
    marks = copy.corpus.read(DUPLICATES).filter(pl.col("clip_id").str.ends_with("jingle"))
    assert set(marks["group_id"]) == {"ann-jingle"}
    judge_corpus(copy.root, copy.policy, QUIET, quiet=True)  # the books balance


def test_samples_that_stay_find_the_latents_that_they_had(copy: Made) -> None:
    def latents_by_sample() -> dict[str, bytes]:
        found = {}
        for row in copy.corpus.read(SAMPLES, ["sample_id", "target"]).to_dicts():
            place = Place(**row["target"])
            latents, faults = read_latents(copy.corpus, [place], CHANNELS)
            assert faults == {}
            found[row["sample_id"]] = latents[place.clip_id].tobytes()
        return found

    before = latents_by_sample()
    fingerprint = copy.corpus.read_json("_commits/compose/current.json")["fingerprint"]
    forget(copy)
    after = latents_by_sample()
    assert after
    assert after == {name: before[name] for name in after}
    # A training that began with the samples before must not go on as if they were the same.
    assert copy.corpus.read_json("_commits/compose/current.json")["fingerprint"] != fingerprint
    run_compose(copy.root, V2, Settings(), policy=copy.policy, console=QUIET)
    composed = latents_by_sample()
    # What was said by Bob first may be learnt from Ann now.
    assert set(composed) == {*after, "ann-jingle.text"}


def test_what_a_model_said_is_gone_and_what_it_cost_is_not(copy: Made) -> None:
    spent = Responses(copy.corpus).total_cost()
    forget(copy)
    assert Responses(copy.corpus).total_cost() == spent == 2.0
    left = Responses(copy.corpus).read("ab12")
    assert left is not None
    assert not left.serves(10)


def test_killed_at_any_write_the_corpus_says_so_and_the_next_completes(
    original: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    voice = bobs(original)
    undisturbed = replace(original, root=str(tmp_path / "undisturbed"))
    shutil.copytree(original.root, undisturbed.root)
    undisturbed = replace(undisturbed, corpus=Corpus(undisturbed.root))
    writes = writes_of(monkeypatch, lambda: forget(undisturbed))
    assert writes > 15
    for fatal in range(1, writes, writes // 8):
        root = tmp_path / f"killed-{fatal}"
        shutil.copytree(original.root, root)
        killed = replace(original, root=str(root), corpus=Corpus(str(root)))
        with pytest.raises(Killed):
            writes_of(monkeypatch, lambda one=killed: forget(one), fatal=fatal)
        with pytest.raises(ConfigError, match="voxquarry forget"):
            judge_corpus(killed.root, killed.policy, QUIET)
        with pytest.raises(ConfigError, match="voxquarry forget"):
            run_compose(killed.root, V2, Settings(), policy=killed.policy, console=QUIET)
        assert run_forget(killed.root, None, dry_run=False, agreed=lambda: False, console=QUIET)
        assert traces_of(killed.corpus, voice) == [], fatal
        for table in TABLES.values():
            one, other = (made.corpus.read(table).to_dicts() for made in (killed, undisturbed))
            assert one == other, (fatal, table.name)
        shutil.rmtree(root)


def writes_of(
    monkeypatch: pytest.MonkeyPatch, work: Callable[[], object], fatal: int | None = None
) -> int:
    """How many files the work writes. At the fatal one it dies: the old file stands, and beside it
    half of another."""
    count = 0
    whole = Corpus._write_atomically

    def counted(self: Corpus, name: str, write: Any) -> None:
        nonlocal count
        if name == LEASE:
            return whole(self, name, write)
        count += 1
        # The journal must be there for the corpus to say so.
        if count - 1 == fatal:
            target = Path(self.path, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            half = target.read_bytes() if target.exists() else b"{"
            target.with_name(f".{target.name}.{'0' * 32}").write_bytes(half[: len(half) // 2 + 1])
            raise Killed
        whole(self, name, write)

    with monkeypatch.context() as patch:
        patch.setattr(Corpus, "_write_atomically", counted)
        work()
    return count


def test_nobody_is_removed_unasked(copy: Made) -> None:
    before = sorted(copy.corpus.files())
    assert not forget(copy, dry_run=True)
    assert not forget(copy, agreed=lambda: False)
    assert sorted(copy.corpus.files()) == before
    for kind, name in (
        *(("speaker", "nobody"), ("session", "ann"), ("recording", "/made-up/ann-0")),
        *(("source", "telephone"), ("source", "")),
    ):
        with pytest.raises(ConfigError, match=f"holds no {kind} {name}"):
            forget(copy, kind, name)
    with pytest.raises(ConfigError, match="name who"):
        run_forget(copy.root, None, dry_run=False, agreed=lambda: True, console=QUIET)
    with pytest.raises(ConfigError, match="holds no corpus"):
        run_forget(f"{copy.root}-2", None, dry_run=False, agreed=lambda: True, console=QUIET)


def test_a_recording_a_session_and_a_source_go_as_they_are_named(copy: Made) -> None:
    assert forget(copy, "recording", "/made-up/ann-1.flac")
    left = copy.corpus.read(RECORDINGS)["recording_id"].to_list()
    assert sorted(left) == ["ann-0", "bob-0", "bob-1", "cat-0"]
    assert forget(copy, "session", "session of bob")
    assert sorted(copy.corpus.read(RECORDINGS)["recording_id"]) == ["ann-0", "cat-0"]
    assert forget(copy, "source", "rad")
    assert all(copy.corpus.read(table).is_empty() for table in (RECORDINGS, CLIPS, VERDICTS))


def source(uri: str, **declared: Any) -> Source:
    return Source(uri=uri, size_bytes=1, **{"session_id": "x", **declared})


def test_a_tombstone_knows_the_forgotten_and_names_nobody(copy: Made) -> None:
    forget(copy)
    forget(copy, "recording", "ann-0")
    stones = Tombstones.of(copy.corpus)
    gone = [
        source("/made-up/bob-0.flac"),
        source("/elsewhere/new.flac", speaker="bob"),
        source("/made-up/ann-0.flac"),
    ]
    kept = [source("/made-up/ann-1.flac", speaker="ann"), source("/made-up/bob-9.flac")]
    assert all(map(stones.hold, gone))
    assert not any(map(stones.hold, kept))
    assert set(stones.recordings) == {"bob-0", "bob-1", "ann-0"}
    told = "".join(path.read_text() for path in Path(copy.root, "_forgotten").iterdir())
    assert "bob.flac" not in told
    assert '"bob"' not in told
    assert "made-up" not in told
    assert copy.corpus.find_json(JOURNAL) is None


MEETING = "0" * 32


def meeting(root: Path) -> Corpus:
    """One recording of two voices, as a source with speakers per clip would be curated."""
    corpus = Corpus(str(root))
    recording = Recording(
        recording_id=MEETING, uri="/m.flac", session_id="m", speaker="ann",
        utterances=(
            Utterance(start_s=0.0, end_s=3.0, text="ann talks first"),
            Utterance(start_s=5.0, end_s=8.0, text="and then bob answers"),
        ),
        transcript="ann talks first and then bob answers",
        duration_s=20.0, sample_rate=16_000, channels=1, codec="FLAC", size_bytes=1, num_chunks=1,
    )  # fmt: skip
    unit = UnitRecord(
        unit_id="u", attempt=1, rows={}, seconds={},
        items=(
            Item(item_id=f"{MEETING}-00000", uri="/m.flac", status="done", duration_s=20.0,
                 facts={"source": "f", "recording_id": MEETING, "index": 0, "num_chunks": 1}),
            Item(item_id="copy", uri="/copy-of-m.flac", status="quarantined", duration_s=20.0,
                 facts={"source": "g", "recording_id": "g", "index": 0, "num_chunks": 1}),
        ),
    )  # fmt: skip
    ill = Quarantined(
        unit_id="copy", phase="curate", stage="read", error_type="DuplicateRecording",
        message="holds the same bytes as /m.flac, which is in the corpus", traceback="", attempt=1,
        uri="/copy-of-m.flac", duration_s=20.0,
    )  # fmt: skip
    clips = [spoken("ann", 0.0), spoken("bob", 5.0), spoken("ann", 10.0)]
    tables = {"recordings": [recording], "clips": clips, "quarantine": [ill]}
    corpus.commit("curate", [unit], tables)
    return corpus


def spoken(who: str, start_s: float) -> Clip:
    return Clip(
        clip_id=f"{who} at {start_s}", recording_id=MEETING, session_id="m", chunk_index=0,
        speaker=who, start_sample=round(start_s * 16_000), end_sample=round(start_s * 16_000) + 48_000,
        sample_rate=16_000, start_s=start_s, end_s=start_s + 3.0, duration_s=3.0,
        text=f"what {who} says at {start_s}",
    )  # fmt: skip


def test_of_a_meeting_only_that_speaker_goes_and_does_not_come_back(tmp_path: Path) -> None:
    corpus = meeting(tmp_path / "corpus")
    accounts = judge_corpus(corpus.root, "default", QUIET, quiet=True)
    voice = voice_of(corpus, ["bob at 5.0"], [])
    request = Request(kind="speaker", name="bob", reason="asked to")
    assert run_forget(corpus.root, request, dry_run=False, agreed=lambda: True, console=QUIET)
    assert traces_of(corpus, voice) == []
    assert sorted(corpus.read(CLIPS)["clip_id"]) == ["ann at 0.0", "ann at 10.0"]
    (kept,) = corpus.read(RECORDINGS).to_dicts()
    assert [said["text"] for said in kept["utterances"]] == ["ann talks first"]
    assert kept["transcript"] is None
    assert kept["speaker"] == "ann"
    assert corpus.read(QUARANTINE).height == 1  # the copy is a copy of a recording that stays
    after = judge_corpus(corpus.root, "default", QUIET, quiet=True)
    assert after.hours_in == pytest.approx(accounts.hours_in - 3 / 3600)
    assert after.hours_without_speech == pytest.approx(accounts.hours_without_speech)

    stones = Tombstones.of(corpus)
    assert stones.spans == {MEETING: (Span(start_s=5.0, end_s=8.0),)}
    assert not stones.hold(source("/m.flac", speaker="ann"))
    row = Recording(**{**kept, "utterances": (Utterance(start_s=5.0, end_s=8.0, text="bob"),)})
    plan = ChunkPlan(
        source=source("/m.flac"), recording_id=MEETING, index=0, num_chunks=1, sample_rate=16_000,
        start_sample=0, end_sample=None, duration_s=20.0,
    )  # fmt: skip
    clips = tuple(spoken(who, start) for who, start in (("ann", 0.0), ("who", 5.5), ("ann", 10.0)))
    again = Chunk(
        recording=row, index=0, start_sample=0, sample_rate=16_000, clips=clips,
        wave=None, wave_16k=None,  # type: ignore[arg-type]
    )  # fmt: skip
    tables = tables_of(plan, again, forgotten=stones.spans)
    assert [clip.start_s for clip in tables["clips"]] == [0.0, 10.0]
    assert tables["recordings"][0].utterances == ()


def test_a_copy_goes_with_its_recording(tmp_path: Path) -> None:
    corpus = meeting(tmp_path / "corpus")
    request = Request(kind="recording", name="/m.flac", reason="asked to")
    run_forget(corpus.root, request, dry_run=False, agreed=lambda: True, console=QUIET)
    assert corpus.read(QUARANTINE).is_empty()
    assert not list(corpus.committed("curate"))
    assert Tombstones.of(corpus).hold(source("/copy-of-m.flac"))
