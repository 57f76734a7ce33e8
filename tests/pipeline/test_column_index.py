"""The column index says what the parts and markers say, or is not asked."""

import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from jobs.forget_files import sweep
from pipeline import column_index, packing
from pipeline.column_index import FOLDER
from pipeline.ledger import Item, UnitRecord
from pipeline.packing import bring_up_to_date
from pipeline.storage import Corpus
from pipeline.tombstones import JOURNAL
from schemas.arrow import CLIPS, RECORDINGS, Table
from schemas.errors import StorageError
from schemas.ids import content_id
from tests.benchmarks.synthetic_corpus import make_corpus
from tests.pipeline.test_storage import quarantined, recording

LIGHT = ["recording_id", "uri", "session_id", "language", "duration_s", "sample_rate", "flags"]


@pytest.fixture(autouse=True)
def small_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "WORTH", 1)


@contextmanager
def no_index() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(column_index, "pack_names", lambda *_: [])
        yield


def all_of(corpus: Corpus, table: Table, columns: list[str]) -> list[Any]:
    """What a corpus says by every way of reading it that asks the index."""
    return [
        corpus.read_with_parts(table, columns).to_dicts(),
        corpus.read(table, columns[:2]).to_dicts(),
        corpus.read(table).to_dicts(),
        corpus.parts(table.name),
        list(corpus.markers("curate")),
    ]


def check(corpus: Corpus, table: Table = RECORDINGS, columns: list[str] = LIGHT) -> None:
    found = all_of(corpus, table, columns)
    with no_index():
        assert found == all_of(corpus, table, columns)


def commit(corpus: Corpus, name: str, num_rows: int) -> None:
    item = Item(item_id=name, uri=f"/{name}", status="done", duration_s=1.0, facts={"é": name})
    unit = UnitRecord(unit_id=name, attempt=1, items=(item,), rows={}, seconds={})
    rows = [recording(f"{name}-{number}") for number in range(num_rows)]
    corpus.commit("curate", [unit], {"recordings": rows})


def packs(corpus: Corpus) -> list[Path]:
    return sorted(Path(corpus.path, FOLDER).rglob("*.parquet"))


def damage(file: Path, place: int) -> None:
    data = bytearray(file.read_bytes())
    data[place % len(data)] ^= 0x5A
    file.write_bytes(data)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("commit"), st.integers(0, 3)),
        st.tuples(st.just("pack"), st.integers(0, 0)),
        st.tuples(st.just("shrink"), st.integers(0, 99)),
        st.tuples(st.just("take back"), st.integers(0, 99)),
        st.tuples(st.just("cut a pack"), st.integers(0, 99)),
        st.tuples(st.just("half a pack"), st.integers(0, 99)),
    ),
    max_size=14,
)


@settings(max_examples=30)
@given(steps=STEPS, most=st.sampled_from([2, 5, 100]))
def test_whatever_happens_to_a_corpus_the_index_says_what_its_files_say(
    steps: list[tuple[str, int]], most: int
) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "MOST", most)
        corpus = Corpus(f"{folder}/corpus")
        for count, (step, number) in enumerate(steps):
            parts, markers = corpus.parts("recordings"), corpus.names("_commits")
            if step == "commit":
                commit(corpus, f"block {count}", number)
            elif step == "pack":
                bring_up_to_date(corpus)
            elif step == "shrink" and parts:
                corpus.rewrite_part(parts[number % len(parts)], RECORDINGS, lambda rows: rows[:-1])
            elif step == "take back" and markers:
                corpus.delete(markers[number % len(markers)])
            elif packs(corpus):
                file = packs(corpus)[number % len(packs(corpus))]
                data = file.read_bytes()
                file.write_bytes(data[: len(data) * number // 100])
                if step == "half a pack":
                    file.rename(file.with_name(f".{file.name}.{'0' * 32}"))
            check(corpus)


def counting_reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the parts and markers that are opened from now on."""
    opened: list[str] = []
    whole: Callable[..., Any] = Corpus._read_local
    one: Callable[..., Any] = Corpus.read_json

    def read_local(self: Corpus, table: Table, columns: Any, parts: Any) -> Any:
        opened.extend(parts)
        return whole(self, table, columns, parts)

    def read_json(self: Corpus, name: str) -> Any:
        opened.append(name)
        return one(self, name)

    monkeypatch.setattr(Corpus, "_read_local", read_local)
    monkeypatch.setattr(Corpus, "read_json", read_json)
    return opened


def test_what_is_packed_is_not_opened_and_what_is_new_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = Corpus(str(tmp_path / "corpus"))
    for number in range(9):
        commit(corpus, f"block {number}", 2)
    bring_up_to_date(corpus)
    opened = counting_reads(monkeypatch)
    before = corpus.read(RECORDINGS, LIGHT)
    assert before.height == 18
    assert len(list(corpus.markers("curate"))) == 9
    assert opened == []
    commit(corpus, "a new block", 1)
    [new] = set(corpus.names("recordings")) - set(before_names(corpus))
    assert corpus.read(RECORDINGS, LIGHT).height == 19
    assert set(opened) == {new, new.replace("recordings/curate-", "_commits/curate/")[:-7] + "json"}
    changed = corpus.parts("recordings")[3]
    corpus.rewrite_part(changed, RECORDINGS, lambda rows: rows[1:])
    opened.clear()
    assert corpus.read(RECORDINGS, LIGHT).height == 18
    assert {name for name in opened if name.endswith("parquet")} == {new, changed}
    check(corpus)


def before_names(corpus: Corpus) -> list[str]:
    return [name for name in corpus.names("recordings") if content_id("a new block") not in name]


def test_few_packs_hold_many_files(tmp_path: Path) -> None:
    corpus = Corpus(str(tmp_path / "corpus"))
    for number in range(24):
        commit(corpus, f"block {number}", 1)
        bring_up_to_date(corpus)
    held = [path for path in packs(corpus) if path.parent.name == "recordings"]
    assert 1 <= len(held) <= 6
    check(corpus)
    untouched = {path: path.stat().st_mtime_ns for path in packs(corpus)}
    bring_up_to_date(corpus)
    assert {path: path.stat().st_mtime_ns for path in packs(corpus)} == untouched


@pytest.fixture(scope="module")
def curated(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """A corpus of clips with every column, in several packs and some parts beside them."""
    folder = tmp_path_factory.mktemp("curated")
    corpus = make_corpus(str(folder / "corpus"), [700, 900], seed=3)
    assert len(corpus.parts("clips")) == 8
    return corpus


def test_every_light_column_comes_back_as_it_was_and_no_sound_is_packed(
    curated: Corpus, tmp_path: Path
) -> None:
    root = tmp_path / "corpus"
    shutil.copytree(curated.path, root)
    corpus = Corpus(str(root))
    layout = column_index.layout_of(CLIPS)
    assert {"audio", "words", "speech", "speaker_embedding"} == (
        set(CLIPS.schema.names) - set(layout.names)
    )
    before = corpus.read_with_parts(CLIPS, layout.names)
    bring_up_to_date(corpus)
    assert_frame_equal(corpus.read_with_parts(CLIPS, layout.names), before)
    heavy = corpus.read_with_parts(CLIPS, ["clip_id", "speaker_embedding"])
    assert_frame_equal(heavy.select("clip_id", "part"), before.select("clip_id", "part"))


@pytest.mark.parametrize("share", [n / 20 for n in range(20)])
def test_a_damaged_byte_does_no_harm_that_is_not_seen(
    curated: Corpus, tmp_path: Path, share: float, caplog: pytest.LogCaptureFixture
) -> None:
    """What is damaged beyond reading is left aside, and said."""
    root = tmp_path / "corpus"
    shutil.copytree(curated.path, root)
    corpus = Corpus(str(root))
    columns = column_index.layout_of(CLIPS).names
    expected = corpus.read(CLIPS, columns)
    bring_up_to_date(corpus)
    for file in packs(corpus):
        damage(file, int(file.stat().st_size * share))
    with caplog.at_level(logging.WARNING):
        found = corpus.read(CLIPS, columns)
        list(corpus.markers("curate"))
    assert found.equals(expected)


def test_an_opt_out_that_happens_meanwhile_leaves_no_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = Corpus(str(tmp_path / "corpus"))
    commit(corpus, "a", 2)
    commit(corpus, "b", 2)
    whole: Callable[..., Any] = Corpus.write_bytes

    def forgotten_meanwhile(self: Corpus, name: str, data: Any) -> None:
        whole(self, name, data)
        if name.startswith(FOLDER):
            whole(self, "_forgotten/ab.json", b"{}")

    with monkeypatch.context() as patch:
        patch.setattr(Corpus, "write_bytes", forgotten_meanwhile)
        bring_up_to_date(corpus)
    assert packs(corpus) == []
    corpus.write_json(JOURNAL, {})
    bring_up_to_date(corpus)
    assert packs(corpus) == []
    corpus.delete(JOURNAL)
    bring_up_to_date(corpus)
    assert len(packs(corpus)) == 2
    sweep(corpus)
    assert packs(corpus) == []


def test_a_corpus_that_takes_no_index_is_read_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    corpus = Corpus(str(tmp_path / "corpus"))
    commit(corpus, "a", 2)
    Path(corpus.path, FOLDER).write_text("no folder can be made here")
    bring_up_to_date(corpus)
    assert "is left as it was" in caplog.text
    assert corpus.read(RECORDINGS, LIGHT).height == 2


def test_a_table_that_cannot_be_read_does_not_keep_others_from_being_packed(
    tmp_path: Path,
) -> None:
    corpus = Corpus(str(tmp_path / "corpus"))
    commit(corpus, "a", 2)
    unit = UnitRecord(unit_id="b", attempt=1, items=(), rows={}, seconds={})
    corpus.commit("curate", [unit], {"quarantine": [quarantined("b", 1)]})
    [part] = corpus.parts("quarantine")
    Path(corpus.path, part).write_bytes(b"PAR1 is not all of a Parquet file PAR1")
    bring_up_to_date(corpus)
    assert [path.parent.name for path in packs(corpus)] == ["curate", "recordings"]
    Path(corpus.path, part).unlink()
    bring_up_to_date(corpus)
    with pytest.raises(StorageError, match="are gone"):
        corpus.parts("quarantine")


def test_the_books_of_two_commands_at_once_are_right(tmp_path: Path) -> None:
    """Both pack the same parts; each part is taken from one of the packs."""
    corpus = Corpus(str(tmp_path / "corpus"))
    for number in range(5):
        commit(corpus, f"block {number}", 2)
    bring_up_to_date(corpus)
    for file in packs(corpus):
        shutil.copy2(file, file.with_name(f"0{file.name}"))
    assert corpus.read(RECORDINGS, LIGHT).height == 10
    check(corpus)
