"""`voxquarry encode` and `compose` on a curated corpus: real recordings, the real commands."""

import io
import os
import shutil
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile as sf

from annotators.audio_vae import AudioVaeEncoder, Ear
from jobs.encode import PHASE
from jobs.sequence_reader import hash_of_vae
from pipeline.storage import Corpus
from schemas.arrow import CLIPS, LATENTS, REFERENCES, SAMPLES, VERDICTS
from tests.integration.conftest import voxquarry

pytestmark = [pytest.mark.ray, pytest.mark.slow]

CORE = Path(__file__).parents[1] / "data" / "core"
V2, V15 = str(CORE / "v2"), str(CORE / "v15")


def done(*arguments: str) -> str:
    """What a command that must succeed prints, in one line."""
    ended = voxquarry(*arguments)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return " ".join(ended.stdout.split())


@pytest.fixture(scope="module")
def encoded(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> tuple[Corpus, str]:
    """The curated corpus, mined and encoded."""
    root = tmp_path_factory.mktemp("encoded") / "corpus"
    shutil.copytree(corpus.path, root)
    done("mine", str(root))
    return Corpus(str(root)), done("encode", str(root), "--checkpoint", V2)


@pytest.fixture
def copy(encoded: tuple[Corpus, str], tmp_path: Path) -> Corpus:
    shutil.copytree(encoded[0].path, tmp_path / "corpus")
    return Corpus(str(tmp_path / "corpus"))


def accepted(corpus: Corpus) -> set[str]:
    return set(corpus.read(VERDICTS).filter("accepted")["clip_id"])


def latents(corpus: Corpus) -> pl.DataFrame:
    return corpus.read_standing(LATENTS, PHASE, "clip_id").sort("clip_id")


def test_every_accepted_clip_has_the_latent_that_its_audio_makes(
    encoded: tuple[Corpus, str],
) -> None:
    corpus, told = encoded
    rows = latents(corpus)
    assert set(rows["clip_id"]) == accepted(corpus)
    assert rows["clip_id"].is_unique().all()
    assert corpus.read(LATENTS, ["clip_id"]).height == rows.height
    assert set(rows["vae_hash"]) == {hash_of_vae(V2)}
    assert not rows["synthetic"].any()
    assert (rows["frames"] % 4 == 0).all()
    audio = dict(corpus.read(CLIPS, ["clip_id", "audio"]).drop_nulls().iter_rows())
    ear, encoder = Ear(CORE / "v2"), AudioVaeEncoder(CORE / "v2")
    for row in rows.iter_rows(named=True):
        assert zlib.crc32(row["latent"]) == row["crc32"]
        wave, rate = sf.read(io.BytesIO(audio[row["clip_id"]]), dtype="float32")
        (alone,) = encoder.encode([ear.hear(wave, rate)])
        found = np.frombuffer(row["latent"], "<f2").reshape(row["frames"], row["channels"])
        assert np.allclose(found, alone, atol=1e-3, rtol=1e-3)
    assert f"encoded │ {rows.height}" in told
    run = next(run for run in corpus.runs() if run["phase"] == PHASE)
    assert run["vae_hash"] == hash_of_vae(V2)
    assert run["counts"]["frames"] == rows["frames"].sum()
    assert run["stage_seconds"]["encode.latents"] > 0


def test_a_second_run_does_nothing_and_another_audio_vae_everything(copy: Corpus) -> None:
    before = latents(copy)
    assert "Nothing to do" in done("encode", copy.path, "--checkpoint", V2)
    assert latents(copy).equals(before)
    # The same weights in a folder of another name are the same AudioVAE.
    moved = Path(copy.path).parent / "checkpoint"
    shutil.copytree(V2, moved)
    (moved / "model.safetensors").unlink()
    assert "Nothing to do" in done("encode", copy.path, "--checkpoint", str(moved))
    done("encode", copy.path, "--checkpoint", V15)
    after = latents(copy)
    assert set(after["clip_id"]) == set(before["clip_id"])
    assert set(after["vae_hash"]) == {hash_of_vae(V15)}
    assert set(after["attempt"]) == {2}
    failed = voxquarry("compose", copy.path, "--checkpoint", V2)
    assert failed.returncode == 1
    assert "voxquarry encode" in failed.stderr
    assert "Traceback" not in failed.stderr
    done("compose", copy.path, "--checkpoint", V15)
    assert set(copy.read(SAMPLES)["layout"]) <= {"text", "continuation"}


def planted(corpus: Corpus, bad: dict[str, bytes | None]) -> None:
    """Put other audio in the place of some clips'."""
    for part in corpus.parts("clips"):
        file = Path(corpus.path, part)
        table = pq.read_table(file)
        audio = [
            bad.get(clip_id, old)
            for clip_id, old in zip(
                table["clip_id"].to_pylist(), table["audio"].to_pylist(), strict=True
            )
        ]
        index = table.schema.get_field_index("audio")
        field = table.schema.field("audio")
        corpus.write_table(part, CLIPS, table.set_column(index, field, pa.array(audio, field.type)))


def test_bad_clips_cost_themselves_alone(copy: Corpus) -> None:
    whole = latents(copy)
    for gone in ("latents", "_commits/encode"):
        shutil.rmtree(Path(copy.path, gone))
    ill = sorted(accepted(copy))[:4]
    nan, empty = io.BytesIO(), io.BytesIO()
    rate = dict(copy.read(CLIPS, ["clip_id", "sample_rate"]).iter_rows())
    noise = np.full(16_000, np.nan, np.float32)
    sf.write(nan, noise, rate[ill[1]], format="WAV", subtype="FLOAT")
    sf.write(empty, noise[:0], rate[ill[2]], format="WAV")
    sounds = (b"no sound file", nan.getvalue(), empty.getvalue(), None)
    healthy = dict(copy.read(CLIPS, ["clip_id", "audio"]).iter_rows())
    planted(copy, dict(zip(ill, sounds, strict=True)))
    told = done("encode", copy.path, "--checkpoint", V2)
    assert "could not be encoded (quarantine) │ 4" in told
    quarantine = copy.read_quarantine().filter(phase=PHASE)
    assert dict(quarantine.select("unit_id", "error_type").iter_rows()) == {
        ill[0]: "UndecodableAudio",
        ill[1]: "NonFiniteAudio",
        ill[2]: "EmptyAudio",
        ill[3]: "MissingSource",
    }
    assert set(latents(copy)["clip_id"]) == set(whole["clip_id"]) - set(ill)
    assert "Nothing to do" in done("encode", copy.path, "--checkpoint", V2)
    composed = done("compose", copy.path, "--checkpoint", V2)
    assert "no_latent" in composed
    assert not set(ill) & set(copy.read(SAMPLES)["target"].struct.field("clip_id"))
    # Mended, they are done when that is asked for.
    planted(copy, {name: healthy[name] for name in (ill[0], ill[3])})
    assert "Nothing to do" in done("encode", copy.path, "--checkpoint", V2)
    done("encode", copy.path, "--checkpoint", V2, "--retry-quarantined")
    assert set(latents(copy)["clip_id"]) == set(whole["clip_id"]) - {ill[1], ill[2]}


def test_killed_at_any_moment_the_next_run_encodes_each_clip_once(
    copy: Corpus, encoded: tuple[Corpus, str]
) -> None:
    root = Path(copy.path)
    for gone in ("latents", "_commits/encode"):
        shutil.rmtree(root / gone)
    arguments = ("encode", str(root), "--checkpoint", V2, "--set", "encode.unit_s=10")
    command = [sys.executable, "-m", "jobs.cli", *arguments]
    with subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL) as process:
        limit = time.monotonic() + 120
        while len(list(root.glob("_commits/encode/*.json"))) < 2 and time.monotonic() < limit:
            assert process.poll() is None, "the run ended before it could be killed"
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
    kept = len(list(copy.committed(PHASE)))
    assert kept >= 2
    done(*arguments)
    assert len(list(copy.committed(PHASE))) > kept
    rows, whole = latents(copy), latents(encoded[0])
    assert copy.read(LATENTS, ["clip_id"]).height == rows.height
    assert rows.drop("latent", "crc32").equals(whole.drop("latent", "crc32"))
    for first, second in zip(rows["latent"], whole["latent"], strict=True):
        pair = [np.frombuffer(data, "<f2") for data in (first, second)]
        assert np.allclose(*pair, atol=1e-3, rtol=1e-3)


def test_the_curated_corpus_makes_samples_of_real_pairs(copy: Corpus) -> None:
    told = done("compose", copy.path, "--checkpoint", V2)
    samples = copy.read(SAMPLES)
    assert "reference audio" in told
    assert {"text", "reference", "continuation"} == set(samples["layout"])
    pairs = copy.read_standing(REFERENCES, "mine", "session_id", ["target_id", "reference_id"])
    known = set(pairs.iter_rows())
    for row in samples.filter(layout="reference").iter_rows(named=True):
        for place in row["references"]:
            assert (row["target"]["clip_id"], place["clip_id"]) in known
    assert "Nothing to do" in done("compose", copy.path, "--checkpoint", V2)
    # Descriptions come in as soon as there are some.
    done("annotate", copy.path)
    assert "Nothing to do" not in done("compose", copy.path, "--checkpoint", V2)
    described = copy.read(SAMPLES).filter(pl.col("description").is_not_null())
    assert set(described["layout"]) == {"described", "described_reference"}


def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, copy: Corpus) -> None:
    cases = (
        ("holds no corpus", ("encode", str(tmp_path / "no"), "--checkpoint", V2)),
        ("no checkpoint here", ("encode", copy.path, "--checkpoint", str(tmp_path))),
        ("unit_s", ("encode", copy.path, "--checkpoint", V2, "--set", "encode.unit_s=0")),
        ("no checkpoint here", ("compose", copy.path, "--checkpoint", str(tmp_path))),
    )
    for message, arguments in cases:
        failed = voxquarry(*arguments)
        assert failed.returncode == 1, failed.stdout
        assert message in failed.stderr
        assert "Traceback" not in failed.stderr
