"""`voxquarry detect` names the marked files and clips, and goes on past what it cannot read."""

import io
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from annotators.watermark import Watermark
from jobs.cli import main
from jobs.detect import hear
from pipeline.ledger import Item, UnitRecord
from pipeline.storage import Corpus
from schemas.arrow import CLIPS, SYNTHETIC, Table
from tests.attacks import resampled

RATE = 16_000
Wave = np.ndarray


class Terminal:
    """The command line in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capfd = monkeypatch, capfd

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        self._monkeypatch.setattr(sys, "argv", ["voxquarry", "detect", *arguments])
        self._capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code is None or isinstance(end.value.code, int)
        return (end.value.code or 0, *self._capfd.readouterr())


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(monkeypatch, capfd)


@pytest.fixture(scope="module")
def speech(devset: Path) -> Wave:
    """The first four seconds of a recording."""
    wave, rate = soundfile.read(devset / "audio" / "en_allison_s1.flac", dtype="float32")
    assert rate == RATE
    return wave[: 4 * RATE]


@pytest.fixture(scope="module")
def marked(speech: Wave) -> Wave:
    return Watermark().mark(speech, RATE)


@pytest.fixture
def folder(tmp_path: Path, speech: Wave, marked: Wave) -> Path:
    """Files of several kinds, some of them marked."""
    folder = tmp_path / "files"
    (folder / "deeper").mkdir(parents=True)
    soundfile.write(folder / "real.flac", speech, RATE)
    soundfile.write(folder / "made.flac", marked, RATE)
    wide, _ = resampled(marked, RATE, 44_100)
    both = np.stack((wide, 0.5 * wide), axis=1)
    soundfile.write(folder / "deeper" / "made stereo [x].wav", both, 44_100)
    left = np.stack((np.zeros_like(wide), wide), axis=1)
    soundfile.write(folder / "deeper" / "made left.ogg", left, 44_100)
    high, _ = resampled(marked, RATE, 96_000)
    soundfile.write(folder / "deeper" / "made high.wav", high, 96_000)
    soundfile.write(folder / "silent.wav", np.zeros(RATE), RATE)
    return folder


def verdicts(out: str) -> dict[str, str]:
    """File name → verdict, of the printed table."""
    rows = [line.split("│") for line in out.splitlines() if line.startswith("│")]
    return {row[1].strip().rpartition("/")[2]: row[4].strip() for row in rows}


def test_files_are_told_apart_at_any_rate_and_number_of_channels(
    terminal: Terminal, folder: Path
) -> None:
    code, out, err = terminal(str(folder))
    assert (code, err) == (0, "")
    found = verdicts(out)
    assert set(found) == {path.name for path in folder.rglob("*.*")}
    for name, verdict in found.items():
        assert verdict == ("marked" if name.startswith("made") else "no mark"), name
    assert "4 of 6 files are marked." in out


def test_what_cannot_be_read_is_named_and_the_rest_is_heard(
    terminal: Terminal, folder: Path, devset: Path
) -> None:
    (folder / "text.wav").write_text("This is no sound.")
    (folder / "empty.wav").write_bytes(b"")
    bad = devset / "bad" / "nan_float.wav"
    code, out, err = terminal(str(bad), str(folder / "nowhere.wav"), str(folder))
    assert (code, err) == (1, "")
    found = verdicts(out)
    assert found["made.flac"] == "marked"
    assert found["real.flac"] == "no mark"
    assert found["text.wav"].startswith("UndecodableAudio")
    assert found["empty.wav"].startswith("EmptyFile")
    assert found["nan_float.wav"].startswith("NonFiniteAudio")
    assert found["nowhere.wav"].startswith("ConfigError")
    assert "4 of 10 files are marked, 4 unreadable." in out


def test_a_marked_clip_in_a_long_recording_is_found_as_from_memory(
    devset: Path, tmp_path: Path, marked: Wave
) -> None:
    real, _ = soundfile.read(devset / "audio" / "fr_june_s1.flac", dtype="float32")
    watermark = Watermark()
    for name, wave in {
        "real": real,
        "mixed": np.concatenate([real[: 33 * RATE], marked, marked, real[33 * RATE :]]),
    }.items():
        soundfile.write(tmp_path / f"{name}.wav", wave, RATE, subtype="FLOAT")
        heard = hear(str(tmp_path / f"{name}.wav"), watermark)
        assert heard.marked == (name == "mixed")
        assert heard.score == pytest.approx(watermark.score(wave, RATE), abs=1e-6)
        assert heard.duration_s == wave.size / RATE


def flac(wave: Wave) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, RATE, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def _blank(field: pa.Field) -> object:
    """What stands where nothing is known."""
    if field.nullable:
        return None
    if pa.types.is_list(field.type):
        return []
    if pa.types.is_boolean(field.type):
        return False
    return "" if pa.types.is_string(field.type) else 0


def commit(
    corpus: Corpus, phase: str, table: Table, audio: dict[str, bytes], attempt: int = 1
) -> None:
    """Write clips of which nothing but their sound is known."""
    blank = {field.name: _blank(field) for field in table.schema}
    rows = [
        {**blank, "clip_id": name, "audio": data}
        | ({"attempt": attempt} if "attempt" in blank else {})
        for name, data in audio.items()
    ]
    items = tuple(Item(item_id=name, uri=name, status="done", duration_s=4.0) for name in audio)
    unit = UnitRecord(
        unit_id=f"{phase}{attempt}",
        attempt=attempt,
        items=items,
        rows={table.name: len(rows)},
        seconds={},
    )
    corpus.commit(phase, [unit], {table.name: pa.Table.from_pylist(rows, table.schema)})


def counts(out: str) -> dict[str, Sequence[str]]:
    """Kind → number, marked, share, unreadable."""
    rows = [[cell.strip() for cell in line.split("│")] for line in out.splitlines()]
    return {row[1]: row[2:6] for row in rows if len(row) == 7}


def test_a_corpus_is_counted_and_the_odd_clips_are_named(
    terminal: Terminal, tmp_path: Path, speech: Wave, marked: Wave
) -> None:
    corpus = Corpus(str(tmp_path / "corpus"))
    commit(corpus, "curate", CLIPS, {"r1": flac(speech), "r2": flac(speech[RATE:])})
    # An attempt that a later one has overtaken does not count.
    commit(corpus, "clone", SYNTHETIC, {"s1": flac(speech), "s2": flac(marked)})
    commit(corpus, "clone", SYNTHETIC, {"s1": flac(marked)}, attempt=2)
    code, out, err = terminal(corpus.root)
    assert (code, err) == (0, "")
    assert counts(out)["synthetic"] == ["2", "2", "100.0 %", "0"]
    assert counts(out)["recorded"] == ["2", "0", "0.0 %", "0"]
    assert "stand out" not in out

    commit(corpus, "curate", CLIPS, {"r3": flac(marked), "r4": b"no sound"}, attempt=2)
    commit(corpus, "clone", SYNTHETIC, {"s3": flac(speech)}, attempt=3)
    code, out, err = terminal(corpus.root)
    assert (code, err) == (1, "")
    assert counts(out)["synthetic"] == ["3", "2", "66.7 %", "0"]
    assert counts(out)["recorded"] == ["4", "1", "25.0 %", "1"]
    odd = verdicts(out)
    assert odd["s3"] == "no mark"
    assert odd["r3"] == "marked"
    assert odd["r4"].startswith("UndecodableAudio")
    assert not {"r1", "r2", "s1", "s2"} & set(odd)


def test_a_corpus_without_clones_and_files_beside_it(
    terminal: Terminal, tmp_path: Path, folder: Path, speech: Wave
) -> None:
    corpus = Corpus(str(tmp_path / "corpus"))
    commit(corpus, "curate", CLIPS, {"r1": flac(speech)})
    code, out, _ = terminal(corpus.root, str(folder / "made.flac"))
    assert code == 0
    assert counts(out)["synthetic"] == ["0", "0", "–", "0"]
    assert verdicts(out)["made.flac"] == "marked"


def test_no_path_is_a_wrong_argument(terminal: Terminal) -> None:
    code, _, err = terminal()
    assert code == 2
    assert "PATH" in err
