"""The curate run from end to end, on real recordings with the embedded models."""

import io
import json
import subprocess
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import soundfile
from rich.console import Console

from jobs.judge import judge_corpus
from pipeline.storage import Corpus
from schemas.arrow import CLIPS, RECORDINGS, VERDICTS
from tests.integration import figures
from tests.integration.conftest import voxquarry

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def measured(corpus: Corpus, devset: Path) -> dict[str, tuple[str, str, figures.Figures]]:
    return figures.measure(corpus, devset)


def test_it_hears_cuts_and_judges_as_the_truth_says(
    measured: dict[str, tuple[str, str, figures.Figures]], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = figures.by_condition(measured)
    with capsys.disabled():
        figures.show(rows, Console(width=110))
    clean = rows["clean wideband"]
    assert clean.f1 >= 0.99
    # tiny.en has 1.5-2.2 % on the true segments of these speakers.
    assert clean.wer <= 0.025
    assert clean.accepted_share >= 0.9
    assert clean.edges_in_words == 0
    for condition in ("clip", "bandlimit8k", "noise5"):
        assert rows[condition].accepted_share <= 0.1
        assert rows[condition].edges_in_words == 0
    # Music 5 dB below: what separation saves is whole and understood.
    assert rows["music5"].accepted_share <= 0.6
    assert rows["music5"].wer <= 0.025
    assert rows["music5"].edges_in_words == 0


def test_every_second_is_on_the_books(
    corpus: Corpus, finished: tuple[Corpus, subprocess.CompletedProcess[str]]
) -> None:
    assert "The books balance." in finished[1].stdout
    accounts = judge_corpus(corpus.root, "default", Console(file=io.StringIO()))
    assert accounts.items == 19
    parts = (
        accounts.hours_kept
        + accounts.hours_rejected
        + accounts.hours_quarantined
        + accounts.hours_without_speech
    )
    assert parts == pytest.approx(accounts.hours_in, rel=1e-6)
    assert accounts.clips == corpus.read(CLIPS, ["clip_id"]).height
    assert corpus.read(VERDICTS)["accepted"].sum() == accounts.clips_kept > 20


def test_every_bad_input_ends_with_a_reason_that_names_it(corpus: Corpus, devset: Path) -> None:
    quarantine = {
        Path(row["uri"]).name: row["error_type"] for row in corpus.read_quarantine().to_dicts()
    }
    recordings = corpus.read(RECORDINGS, ["recording_id", "uri", "flags"]).with_columns(
        name=pl.col("uri").str.split("/").list.last()
    )
    flags = dict(recordings.select("name", "flags").rows())
    assert quarantine == {
        "zero_byte.flac": "EmptyFile",
        "text_renamed.wav": "UndecodableAudio",
        "nan_float.wav": "NonFiniteAudio",
        "short_0.1s.wav": "TooShortAudio",
    }
    assert "truncated" in flags["truncated.flac"]
    assert flags["silence_only.flac"] == ["no_speech"]
    assert "silent_channel" in flags["three_channel.wav"]
    assert "resampled_to_48k" in flags["hires_192k_stereo.flac"]
    listed = (devset / "bad" / "expected.jsonl").read_text().splitlines()
    names = {Path(json.loads(line)["path"]).name for line in listed}
    assert names <= set(quarantine) | set(flags)
    clips = corpus.read(CLIPS, ["recording_id", "upsampled", "text"]).join(
        recordings, on="recording_id"
    )
    assert clips.filter(pl.col("name") == "hires_192k_stereo.flac")["upsampled"].all()
    spoken = clips.filter(pl.col("name") == "grabación_ñandú é.wav")
    assert spoken.height > 0


def test_clips_hold_the_audio_that_their_times_name(corpus: Corpus) -> None:
    recordings = dict(corpus.read(RECORDINGS, ["recording_id", "uri"]).rows())
    sound = [key for key, uri in recordings.items() if Path(uri).parent.name == "audio"]
    clips = corpus.read(CLIPS).filter(pl.col("recording_id").is_in(sound))
    untouched = clips.filter(pl.col("separated_by").is_null())
    for clip in untouched.sample(12, seed=1).to_dicts():
        whole, rate = soundfile.read(recordings[clip["recording_id"]], dtype="float32")
        stored, stored_rate = soundfile.read(io.BytesIO(clip["audio"]), dtype="float32")
        assert (stored_rate, stored.ndim) == (rate, 1)
        np.testing.assert_allclose(
            stored, whole[clip["start_sample"] : clip["end_sample"]], atol=2 / 2**15
        )
        assert len(stored) / rate == pytest.approx(clip["duration_s"], abs=1e-6)


def test_music_is_heard_where_it_plays_and_taken_from_there_alone(corpus: Corpus) -> None:
    names = corpus.read(RECORDINGS, ["recording_id", "uri"]).with_columns(
        name=pl.col("uri").str.split("/").list.last()
    )
    columns = ["recording_id", "music", "stnr_db", "separated_by", "music_left", "speech_kept"]
    clips = corpus.read(CLIPS, columns).join(names, on="recording_id")
    assert clips["music"].null_count() == clips["stnr_db"].null_count() == 0
    under_music = clips.filter(pl.col("name") == "en_allison_s1__music5.flac")
    assert under_music["music"].mean() > 0.5
    assert under_music["separated_by"].str.starts_with("small-speech@").all()
    assert under_music["music_left"].mean() < 0.2
    assert under_music["speech_kept"].mean() > 0.9
    for name in ("en_allison_s1.flac", "es_allison_s1.flac", "fr_june_s1.flac"):
        clean = clips.filter(pl.col("name") == name)
        assert clean["music"].mean() < 0.05
        assert clean["stnr_db"].min() > 20
        assert clean["separated_by"].null_count() == clean.height


def test_given_transcripts_win_where_they_agree(corpus: Corpus) -> None:
    names = corpus.read(RECORDINGS, ["recording_id", "uri"]).with_columns(
        name=pl.col("uri").str.split("/").list.last()
    )
    clips = corpus.read(CLIPS).join(names, on="recording_id")
    english = clips.filter(pl.col("name") == "en_allison_s2.flac")
    assert (english["text_source"] == "given").mean() >= 0.8
    assert english["cer_vs_transcript"].max() < 0.5
    assert english["text_asr"].null_count() == 0
    for name in ("es_allison_s1.flac", "fr_june_s1.flac"):
        foreign = clips.filter(pl.col("name") == name)
        assert foreign["text_asr"].null_count() == foreign.height
        assert (foreign["text_source"] == "given").mean() >= 0.8


def test_no_clip_is_there_twice_and_neighbours_do_not_overlap(corpus: Corpus) -> None:
    clips = corpus.read(
        CLIPS, ["clip_id", "recording_id", "start_sample", "end_sample", "index_in_recording"]
    ).sort("recording_id", "start_sample")
    assert clips["clip_id"].n_unique() == clips.height
    pairs = clips.with_columns(next=pl.col("start_sample").shift(-1).over("recording_id"))
    assert pairs.filter(pl.col("next") < pl.col("end_sample")).height == 0
    steps = clips.select(pl.col("index_in_recording").diff().over("recording_id")).drop_nulls()
    assert steps["index_in_recording"].min() > 0


def test_a_second_run_does_nothing_and_says_so(corpus: Corpus, devset: Path) -> None:
    before = sorted(Path(corpus.path).rglob("*.parquet"))
    started = time.perf_counter()
    done = voxquarry("curate", str(devset / "manifest.csv"), "--out", corpus.root)
    assert done.returncode == 0, done.stderr
    assert "Nothing to do: all 19 sources" in done.stdout
    # No Ray, no models: the work of a second, whatever the machine does besides.
    assert time.perf_counter() - started < 60
    assert sorted(Path(corpus.path).rglob("*.parquet")) == before


def test_another_policy_is_a_query(corpus: Corpus, tmp_path: Path) -> None:
    default = Path("pipeline/policies/default.yaml").read_text()
    strict = tmp_path / "strict.yaml"
    strict.write_text(default.replace("dnsmos_ovrl, min: 2.75", "dnsmos_ovrl, min: 3.3"))
    root = str(tmp_path / "copy")
    subprocess.run(["cp", "-r", corpus.root, root], check=True)
    done = voxquarry("filter", root, "--policy", str(strict))
    assert done.returncode == 0, done.stderr
    kept = Corpus(root).read(VERDICTS)["accepted"].sum()
    assert 0 < kept < corpus.read(VERDICTS)["accepted"].sum()
    assert "low_dnsmos_ovrl" in done.stdout


def test_a_dry_run_says_what_would_happen_and_does_nothing(devset: Path, tmp_path: Path) -> None:
    root = tmp_path / "corpus"
    done = voxquarry("run", str(devset / "audio"), "--out", str(root), "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "0.17" in done.stdout
    assert "tiny.en" in done.stdout
    assert not root.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "transcription.model=/no/such/model"], "/no/such/model"),
        (["--set", "transcription.beam=3"], "did you mean beam_size"),
        (["--profile", "embeded"], "no profile embeded"),
        (["--policy", "nowhere.yaml"], "no policy nowhere.yaml"),
    ],
)
def test_a_wrong_setting_stops_the_run_in_one_line_and_marks_nothing(
    devset: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    root = tmp_path / "corpus"
    done = voxquarry("curate", str(devset / "audio"), "--out", str(root), *arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (root / "_commits").exists()


def test_a_broken_model_file_stops_the_run_and_marks_nothing(devset: Path, tmp_path: Path) -> None:
    """The weights are found and hashed, but no worker can open them."""
    from annotators.registry import resolve

    model = tmp_path / "model"
    model.mkdir()
    for file in resolve("tiny.en").path.iterdir():
        (model / file.name).write_bytes(file.read_bytes() if file.name != "model.bin" else b"ctr")
    root = tmp_path / "corpus"
    done = voxquarry(
        *("curate", str(devset / "bad"), "--out", str(root)),
        *("--set", f"transcription.model={model}"),
    )
    assert done.returncode == 1
    assert "stage transcription cannot start" in done.stderr
    assert not list(Corpus(str(root)).committed("curate"))
    [record] = Corpus(str(root)).runs()
    assert record["status"] == "failed"


def test_quarantined_sources_are_tried_again_on_request(devset: Path, tmp_path: Path) -> None:
    sounds = tmp_path / "in"
    (sounds / "a").mkdir(parents=True)
    (sounds / "b").mkdir()
    good = (devset / "bad" / "grabación_ñandú é.wav").read_bytes()
    # The same stem in two folders, one of them broken; the manifest names a file to come.
    (sounds / "a" / "take.wav").write_bytes(good)
    (sounds / "b" / "take.wav").write_bytes(b"not yet a sound")
    manifest = sounds / "m.jsonl"
    manifest.write_text('{"uri": "a/take.wav"}\n{"uri": "b/take.wav"}\n{"uri": "b/late.wav"}\n')
    root = str(tmp_path / "corpus")
    assert voxquarry("curate", str(manifest), "--out", root).returncode == 0
    corpus = Corpus(root)
    assert sorted(corpus.read_quarantine()["error_type"]) == ["MissingSource", "UndecodableAudio"]
    wave, rate = soundfile.read(io.BytesIO(good))
    soundfile.write(sounds / "b" / "take.wav", wave * 0.5, rate)
    soundfile.write(sounds / "b" / "late.wav", wave * 0.25, rate)
    done = voxquarry("curate", str(manifest), "--out", root, "--retry-quarantined")
    assert done.returncode == 0, done.stderr
    assert corpus.read_quarantine().height == 0
    assert corpus.read(RECORDINGS)["session_id"].sort().to_list() == ["a", "b", "b"]
    clips = corpus.read(CLIPS, ["clip_id", "recording_id"])
    assert clips["recording_id"].n_unique() == 3


def test_the_doctor_finds_every_model_of_the_embedded_profile() -> None:
    done = voxquarry("doctor")
    assert done.returncode == 0, done.stdout
    for name in ("silero", "tiny.en", "dnsmos", "ge2e"):
        assert name in done.stdout
    assert voxquarry("doctor", "--set", "speaker.model=/nowhere/x.pt").returncode == 1
