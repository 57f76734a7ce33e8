"""A block is there as a whole or not at all."""

import resource
import signal
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.ledger import Item, UnitRecord
from pipeline.storage import Corpus
from schemas.arrow import LATENTS, QUARANTINE, RECORDINGS, VERSION_KEY
from schemas.errors import ConfigError, StorageError
from schemas.latents import Latent
from schemas.rows import Quarantined, Recording


def recording(name: str) -> Recording:
    return Recording(
        recording_id=name,
        uri=f"/in/{name}.wav",
        session_id="s",
        duration_s=2.5,
        sample_rate=16_000,
        channels=1,
        codec="PCM_16",
        size_bytes=80_044,
        num_chunks=1,
    )


def unit(name: str, status: str = "done", attempt: int = 1) -> UnitRecord:
    item = Item(item_id=name, uri=f"/in/{name}.wav", status=status, duration_s=2.5)
    return UnitRecord(
        unit_id=f"{name}-{attempt}", attempt=attempt, items=(item,), rows={}, seconds={"vad": 0.1}
    )


def quarantined(name: str, attempt: int) -> Quarantined:
    return Quarantined(
        unit_id=name,
        phase="curate",
        stage="read",
        error_type="EmptyFile",
        message="no bytes",
        traceback="…",
        uri=f"/in/{name}.wav",
        attempt=attempt,
    )


def test_what_was_committed_is_read_back(tmp_path: Path) -> None:
    corpus = Corpus(str(tmp_path))
    corpus.commit("curate", [unit("a"), unit("b")], {"recordings": [recording("a")]})
    corpus.commit("curate", [unit("c")], {"recordings": [recording("c")]})
    assert sorted(corpus.read(RECORDINGS, ["recording_id"])["recording_id"]) == ["a", "c"]
    assert sorted(u.unit_id for u in corpus.committed("curate")) == ["a-1", "b-1", "c-1"]


def test_a_part_without_its_marker_does_not_exist(tmp_path: Path) -> None:
    corpus = Corpus(str(tmp_path))
    corpus.commit("curate", [unit("a")], {"recordings": [recording("a")]})
    # What a crash leaves between the parts and the marker, and in the middle of a part.
    corpus.write_table("recordings/curate-feed.parquet", RECORDINGS, [recording("b")])
    (tmp_path / "recordings" / ".curate-beef.parquet.123").write_bytes(b"PAR1 half")
    assert corpus.read(RECORDINGS)["recording_id"].to_list() == ["a"]


def test_a_block_written_twice_is_there_once(tmp_path: Path) -> None:
    corpus = Corpus(str(tmp_path))
    for _ in range(2):
        corpus.commit("curate", [unit("a")], {"recordings": [recording("a")]})
    assert corpus.read(RECORDINGS).height == 1
    assert len(list(corpus.committed("curate"))) == 1


def test_a_lost_part_is_noticed(tmp_path: Path) -> None:
    corpus = Corpus(str(tmp_path))
    corpus.commit("curate", [unit("a")], {"recordings": [recording("a")]})
    next((tmp_path / "recordings").iterdir()).unlink()
    with pytest.raises(StorageError, match="committed parts are gone"):
        corpus.read(RECORDINGS)


def test_a_table_of_another_version_is_refused(tmp_path: Path) -> None:
    corpus = Corpus(str(tmp_path))
    corpus.commit("curate", [unit("a")], {"recordings": [recording("a")]})
    part = next((tmp_path / "recordings").iterdir())
    table = pq.read_table(part).replace_schema_metadata({VERSION_KEY: b"recordings/0"})
    pq.write_table(table, part)
    with pytest.raises(StorageError, match="recordings/0"):
        corpus.read(RECORDINGS)


def test_a_column_of_another_type_is_refused(tmp_path: Path) -> None:
    table = RECORDINGS.to_arrow([recording("a")])
    index = table.schema.get_field_index("channels")
    wrong = table.set_column(index, "channels", pa.array(["one"]))
    with pytest.raises(StorageError, match="channels is string"):
        Corpus(str(tmp_path)).write_table("recordings/x.parquet", RECORDINGS, wrong)
    assert not list(tmp_path.rglob("*.parquet"))


def test_a_later_attempt_overtakes_a_quarantined_one(tmp_path: Path) -> None:
    corpus = Corpus(str(tmp_path))
    for name in ("healed", "still-ill"):
        rows = {"quarantine": [quarantined(name, 1)]}
        corpus.commit("curate", [unit(name, "quarantined")], rows)
    corpus.commit("curate", [unit("healed", "done", 2)], {"recordings": [recording("healed")]})
    rows = {"quarantine": [quarantined("still-ill", 2)]}
    corpus.commit("curate", [unit("still-ill", "quarantined", 2)], rows)
    standing = corpus.read_quarantine()
    assert standing.select("unit_id", "attempt").rows() == [("still-ill", 2)]
    assert corpus.read(QUARANTINE).height == 3


def latent(number: int) -> Latent:
    data = np.random.default_rng(number).standard_normal(200 * 64).astype("<f2").tobytes()
    return Latent(
        clip_id=f"c{number}",
        latent=data,
        frames=200,
        channels=64,
        crc32=zlib.crc32(data),
        vae_hash="v",
        attempt=1,
    )


def test_a_damaged_byte_of_a_latent_costs_one_clip_and_its_checksum_tells_which(
    tmp_path: Path,
) -> None:
    corpus = Corpus(str(tmp_path))
    rows = [latent(number) for number in range(300)]
    corpus.write_table("latents/x.parquet", LATENTS, rows)
    file = tmp_path / "latents" / "x.parquet"
    assert [pq.ParquetFile(file).metadata.row_group(group).num_rows for group in range(3)] == [
        128,
        128,
        44,
    ]
    how = {
        column.path_in_schema: column.compression
        for column in map(pq.ParquetFile(file).metadata.row_group(0).column, range(7))
    }
    assert how.pop("latent") == "UNCOMPRESSED"
    assert set(how.values()) == {"LZ4"}
    data = bytearray(file.read_bytes())
    place = data.find(rows[150].latent)
    assert place > 0, "the latent lies in the file as it is"
    data[place + 12_345] ^= 0x40
    file.write_bytes(data)
    read = pq.read_table(file).to_pylist()
    assert [row["clip_id"] for row in read] == [row.clip_id for row in rows]
    damaged = [row["clip_id"] for row in read if zlib.crc32(row["latent"]) != row["crc32"]]
    assert damaged == ["c150"]
    assert [row["latent"] for row in read if row["clip_id"] != "c150"] == [
        row.latent for row in rows if row.clip_id != "c150"
    ]


def test_a_version_written_in_pieces_stands_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    corpus = Corpus(str(tmp_path))

    def pieces(names: str, fails: bool = False) -> Iterator[pa.Table]:
        for name in names:
            yield RECORDINGS.to_arrow([recording(name)] * 300)
        if fails:
            raise RuntimeError("half way")

    assert corpus.write_version("made", RECORDINGS, "one", pieces("ab"), why="first") == 600
    with pytest.raises(RuntimeError, match="half way"):
        corpus.write_version("made", RECORDINGS, "two", pieces("cd", fails=True))
    assert set(corpus.read(RECORDINGS)["recording_id"]) == {"a", "b"}
    # What a crash leaves between the part and its marker.
    corpus.write_table("recordings/three.parquet", RECORDINGS, [recording("e")])
    assert set(corpus.read(RECORDINGS)["recording_id"]) == {"a", "b"}
    assert corpus.find_json("_commits/made/current.json")["why"] == "first"
    assert corpus.write_version("made", RECORDINGS, "two", pieces("c")) == 300
    assert set(corpus.read(RECORDINGS)["recording_id"]) == {"c"}
    assert [path.name for path in (tmp_path / "recordings").glob("*.parquet")] == ["two.parquet"]
    with pytest.raises(StorageError, match="no tag"):
        corpus.write_version("made", RECORDINGS, "four", iter([pa.table({"x": [1]})]))
    assert set(corpus.read(RECORDINGS)["recording_id"]) == {"c"}


def test_a_uri_that_no_file_system_opens_is_named() -> None:
    with pytest.raises(ConfigError, match="ftp://"):
        Corpus("ftp://example.org/corpus")


def test_what_a_full_disk_has_no_room_for_leaves_nothing(tmp_path: Path) -> None:
    room = 200_000
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    noise = np.random.default_rng(0).bytes(4 * room).hex()
    corpus = Corpus(str(tmp_path))
    # Without a handler the signal of a file that is too large would end the process.
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            corpus.write_json("_runs/large.json", {"text": noise})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert corpus.files() == []
