"""Generated clips on their way to latents: the same phase, their own table."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from rich.console import Console

from annotators.audio_vae import AudioVaeEncoder, Ear
from jobs.encode import PHASE, clips_to_encode, encode_phase, latents_of, read_clip, with_synthetic
from jobs.judge_synthetic import accepted_synthetic
from jobs.run_annotate import accepted_clips
from jobs.run_encode import books, show
from jobs.sequence_reader import hash_of_vae
from pipeline.derived import Derived, due
from pipeline.storage import Corpus
from schemas.arrow import LATENTS, VERDICTS
from schemas.errors import MissingSource
from schemas.rows import Verdict
from stages.latents import LatentsConfig
from tests.jobs.composable_corpus import V2, Cloned, Made, Said, make, write_clones

VAE = "v"


@pytest.fixture(scope="module")
def sound(devset: Path) -> bytes:
    """Two seconds of real speech as FLAC."""
    wave, rate = sf.read(devset / "audio" / "en_allison_s1.flac", frames=32_000, dtype="float32")
    buffer = io.BytesIO()
    sf.write(buffer, wave, rate, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """Two sessions of two clips, of which one is described."""
    said = [
        Said(name=f"{session}{number}", session=session, recording=session, start_s=5.0 * number)
        for session in "ab"
        for number in range(2)
    ]
    said[0] = replace(said[0], description="A calm voice.")
    made = make(tmp_path, said)
    verdicts = [
        Verdict(clip_id=one.name, accepted=True, tier="wideband", reasons=(), policy_hash="p")
        for one in said
    ]
    made.corpus.write_current("filter", VERDICTS, VERDICTS.to_arrow(verdicts))
    return made


def planned(corpus: Corpus, vae: str = VAE) -> list[Derived]:
    clips = with_synthetic(accepted_clips(corpus), accepted_synthetic(corpus))
    return list(clips_to_encode(corpus, clips, vae, LatentsConfig()))


CLONES = [
    Cloned(name="clone0", of="a0", says="b0", text="other words", duration_s=2.0),
    Cloned(name="clone1", of="a0", says="b1", text="other words", accepted=False),
]


def test_accepted_clones_are_planned_after_their_session_and_nothing_else_changes(
    made: Made,
) -> None:
    before = planned(made.corpus)
    assert [item.item_id for item in before] == ["a0", "a1", "b0", "b1"]
    write_clones(made.corpus, CLONES)
    after = planned(made.corpus)
    assert [item for item in after if item.item_id != "clone0"] == before
    (clone,) = (item for item in after if item.item_id == "clone0")
    assert clone.plan.part.startswith("synthetic/")
    assert clone.uri == "synthetic clip of a0"
    assert clone.duration_s == 2.0


def test_a_clone_that_is_made_anew_is_encoded_anew(made: Made) -> None:
    write_clones(made.corpus, CLONES)
    (first,) = (item for item in planned(made.corpus) if item.item_id == "clone0")
    write_clones(made.corpus, CLONES, attempt=2)
    again = planned(made.corpus)
    (second,) = (item for item in again if item.item_id == "clone0")
    assert second.fingerprint != first.fingerprint
    assert second.plan.part != first.plan.part
    assert [item.item_id for item in again].count("clone0") == 1
    (other,) = (item for item in planned(made.corpus, "w") if item.item_id == "clone0")
    assert other.fingerprint != second.fingerprint
    # Which the ledger turns into what there is to do.
    ledger = {name: (1, made.corpus.latest_items(PHASE)["a0"][1]) for name in ("clone0",)}
    ledger["clone0"][1].facts["source"] = first.fingerprint
    assert list(due([first], ledger, retry=False)) == []
    assert list(due([second], ledger, retry=False)) == [(second, 2)]


def test_its_stored_audio_becomes_its_latent(made: Made, sound: bytes) -> None:
    write_clones(made.corpus, CLONES, audio=sound)
    vae = hash_of_vae(V2)
    (clone,) = (item for item in planned(made.corpus, vae) if item.item_id == "clone0")
    phase = encode_phase(LatentsConfig(), V2, vae, {})
    plan = replace(clone.plan, attempt=1)
    batch = [read_clip(plan)]
    assert batch[0].audio == sound
    for stage in phase.stages:
        stage.setup()
        batch = list(stage.process(batch))
    (row,) = latents_of(plan, batch[0])[LATENTS.name]
    wave, rate = sf.read(io.BytesIO(sound), dtype="float32")
    folder = Path(V2)
    (alone,) = AudioVaeEncoder(folder).encode([Ear(folder).hear(wave, rate)])
    assert row.clip_id == "clone0"
    assert row.synthetic
    found = np.frombuffer(row.latent, "<f2").reshape(row.frames, row.channels)
    assert np.allclose(found, alone, atol=1e-3, rtol=1e-3)
    with pytest.raises(MissingSource, match="synthetic/"):
        read_clip(replace(plan, clip_id="no such clip"))


def test_the_table_says_how_many_are_synthetic(made: Made) -> None:
    vae = hash_of_vae(V2)
    clips = with_synthetic(accepted_clips(made.corpus), accepted_synthetic(made.corpus))
    console = Console(record=True, width=120, file=io.StringIO())
    counts = books(made.corpus, clips, vae)
    assert (counts["accepted"], counts["accepted_synthetic"]) == (4, 0)
    show({"counts": counts}, console)
    assert "synthetic" not in console.export_text()
    # One of three accepted ones could not be encoded.
    extra = [replace(CLONES[0], name=f"more{n}", latent=n == 0) for n in range(2)]
    write_clones(made.corpus, [*CLONES, *extra])
    clips = with_synthetic(accepted_clips(made.corpus), accepted_synthetic(made.corpus))
    counts = books(made.corpus, clips, vae)
    assert (counts["accepted"], counts["accepted_synthetic"]) == (7, 3)
    assert (counts["encoded"], counts["encoded_synthetic"]) == (6, 2)
    show({"counts": counts}, console)
    told = [line for line in console.export_text().splitlines() if "of which synthetic" in line]
    assert [line.split("│")[2].strip() for line in told] == ["3", "2"]
