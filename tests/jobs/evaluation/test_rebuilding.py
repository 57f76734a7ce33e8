"""What an AudioVAE leaves of a recording, at rates at which all can be compared."""

from pathlib import Path

import numpy as np
import pytest
import soxr
import torch

from annotators.registry import checkpoint_folder
from jobs.evaluation.rebuilding import HIGH, LOW, Rebuilding, rebuilt, recordings_of
from jobs.evaluation.rows import RebuiltRow
from jobs.evaluation.utterances import Sound
from model_core.audio_vae import AudioVAE
from model_core.checkpoint import load_vae
from model_core.vae_training.evaluation import Judge
from model_core.vae_training.settings import MelConfig
from schemas.errors import SilentAudio
from tests.jobs.evaluation.listed import Held, recorded, spoken_by

CORE = Path(__file__).parents[2] / "data" / "core"


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge(MelConfig(), LOW, HIGH, torch.device("cpu"))


@pytest.fixture(scope="module")
def speech() -> Held:
    (one,) = spoken_by("allison", "en", 1)
    return Held(wave=one.wave)


def through(folder: Path, sound: Sound, judge: Judge) -> RebuiltRow:
    vae: AudioVAE = load_vae(folder).fold_weight_norm()
    return rebuilt(Rebuilding(sound=sound, row_id="r"), vae, judge)


def test_a_trained_audio_vae_leaves_more_than_a_random_one(judge: Judge, speech: Held) -> None:
    trained = through(checkpoint_folder("nano"), speech, judge)
    random = through(CORE / "v2", speech, judge)
    for row in (trained, random):
        assert row.mel_48k is None, "a recording of 16 kHz does not tell"
        assert row.pesq is not None
        assert 1 <= row.pesq <= 4.65
    assert trained.mel_16k < random.mel_16k / 2  # type: ignore[operator]
    assert trained.stoi > 0.7 > random.stoi  # type: ignore[operator]


def test_any_rates_of_recording_and_audio_vae_are_compared(judge: Judge, speech: Held) -> None:
    """V1 speaks at 16 kHz and V1.5 at another rate; the recording has 48."""
    high = np.asarray(soxr.resample(speech.wave, 16_000, 48_000), np.float32)
    for name in ("v1", "v15"):
        row = through(CORE / name, Held(wave=high, rate=48_000), judge)
        assert row.mel_16k is not None
        assert row.mel_48k is not None
        assert row.mel_48k > 0


def test_a_recording_that_is_silent_is_refused(judge: Judge) -> None:
    silent = Held(wave=np.zeros(16_000, np.float32))
    with pytest.raises(SilentAudio):
        through(CORE / "v2", silent, judge)


def test_each_recording_counts_once_and_truths_come_before_voices() -> None:
    said = spoken_by("allison", "en", 3)
    utterances = recorded(said, said)
    found = recordings_of([*utterances, *utterances], 10)
    assert [one.sound_id for one in found] == [u.truth.sound_id for u in utterances]  # type: ignore[union-attr]
    assert len(recordings_of(utterances, 2)) == 2
    assert recordings_of(utterances, 0) == []
