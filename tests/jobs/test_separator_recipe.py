"""The recipe of separator and detector, on a minute of real speech and music of its own."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch
from demucs.hdemucs import HDemucs
from safetensors.torch import load_file

from annotators.demucs import Separator
from jobs.shipped.separator import detector, mean, sources, train
from jobs.shipped.separator.mixing import CLEAN, RATE, SNR_DB, WORDLESS, Mixer, Sources, at_snr, rms

AUDIO = Path(__file__).parents[1] / "data" / "devset" / "audio"
# Threads are the process's: what a test asks for here, the tests after it compute with.
ONE_THREAD = ("--threads", "1")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `sources` makes of two packages: a speaker and two tracks, one of them held out."""
    root = tmp_path_factory.mktemp("packages")
    clean, _ = sf.read(AUDIO / "en_allison_s1.flac", dtype="float32", frames=20 * RATE)
    mixed, _ = sf.read(AUDIO / "en_allison_s1__music5.flac", dtype="float32", frames=20 * RATE)
    voice = root / sources._SOUNDS / "it_IT_f_Menardi" / "digits"
    tracks = root / "pip" / "immich_memories_music" / "tracks" / "calm"
    for folder in (voice, tracks):
        folder.mkdir(parents=True)
    for at in range(5):
        piece = clean[at * 4 * RATE : (at + 1) * 4 * RATE]
        sf.write(voice / f"{at}.wav", piece[::2], RATE // 2)
    sf.write(voice / "silence.wav", np.zeros(RATE, np.float32), RATE)
    (voice / "broken.wav").write_bytes(b"RIFF")
    (voice / "empty.wav").write_bytes(b"")
    for name in ("calm_acoustic_1", "calm_acoustic_2"):
        sf.write(tracks / f"{name}.opus", mixed - clean, 16_000, format="OGG", subtype="OPUS")
    out = tmp_path_factory.mktemp("sources")
    sources.main(root, root / "pip", out)
    return out


def test_sources_are_listed_with_their_licence_and_what_is_held_out(written: Path) -> None:
    text = (written / "sources.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    assert [row["split"] for row in rows if row["kind"] == "music"] == ["held_out", "train"]
    assert sum(row["kind"] == "speech" for row in rows) == 5
    assert all(row["licence"] and row["attribution"] for row in rows)
    for row in rows:
        info = sf.info(written / row["uri"])
        assert (info.samplerate, info.channels) == (RATE, 1)
    assert Sources.read(written, "train").music.keys() == {"calm_acoustic_2"}
    assert not Sources.read(written, "held_out").speech


def test_packages_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="holds both speech and music"):
        sources.main(tmp_path, tmp_path, tmp_path / "out")


def test_mixtures_are_as_loud_as_they_say(written: Path) -> None:
    mixer = Mixer(Sources.read(written, "train"), 2.0, np.random.default_rng(0))
    ratios, clean, wordless = [], 0, 0
    for _ in range(150):
        speech, background, snr = mixer.draw()
        assert speech.shape == background.shape == (2 * RATE,)
        assert speech.dtype == background.dtype == np.float32
        assert np.abs(speech + background).max() <= 1
        clean += not background.any()
        wordless += not speech.any()
        if snr is not None:
            assert 20 * np.log10(rms(speech) / rms(background)) == pytest.approx(snr, abs=0.01)
            ratios.append(snr)
    assert SNR_DB[0] <= min(ratios) < SNR_DB[0] + 3
    assert SNR_DB[1] - 3 < max(ratios) <= SNR_DB[1]
    assert clean / 150 == pytest.approx(CLEAN, abs=0.08)
    assert wordless / 150 == pytest.approx(WORDLESS, abs=0.06)


def test_a_loss_is_least_where_both_are_right() -> None:
    rng = torch.Generator().manual_seed(0)
    wanted = torch.randn(2, 2, 1, 8000, generator=rng)
    wanted[1, 0] = 0  # no speech: a loss all the same
    right = train.loss_of(wanted, wanted)
    assert right == pytest.approx(-30, abs=0.1)
    swapped = train.loss_of(wanted.flip(1), wanted)
    near = train.loss_of(wanted + 0.1 * torch.randn(wanted.shape, generator=rng), wanted)
    assert right < near < swapped
    assert torch.isfinite(swapped)


def test_two_processes_train_one_model_on_what_both_have_drawn(
    written: Path, tmp_path: Path
) -> None:
    asked = ["--steps", "1", "--seconds", "1", "--batch", "1", *ONE_THREAD]
    weights = []
    for processes in ("1", "2"):
        out = tmp_path / processes
        subprocess.run(
            [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node",
             processes, "-m", "jobs.shipped.separator.train", str(written), str(out), *asked],
            check=True,
        )  # fmt: skip
        state = torch.load(out / "training.pt", weights_only=True)
        assert state["step"] == 1
        assert Separator(out).sample_rate == RATE
        weights.append(torch.cat([value.flatten() for value in state["model"].values()]))
    assert not torch.equal(*weights), "the second one's mixtures count as well"


def test_a_training_goes_on_where_it_stopped_and_is_opened_as_any_model(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(train.MODEL, "channels", 4)
    out = tmp_path / "separator"
    for steps in (2, 3):
        asked = ["train", str(written), str(out), "--steps", str(steps), "--seconds", "1"]
        monkeypatch.setattr(sys, "argv", [*asked, "--batch", "1", *ONE_THREAD])
        train.main()
        assert torch.load(out / "training.pt", weights_only=True)["step"] == steps
    separator = Separator(out)
    assert (separator.sample_rate, separator.channels) == (RATE, 1)
    heard = at_snr(np.ones(8000, np.float32), np.random.default_rng(0).normal(size=8000), 0)[
        :, None
    ]
    assert np.isfinite(separator.speech(heard)).all()


def test_what_a_recogniser_hears_counts_where_that_is_asked(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(train.MODEL, "channels", 4)
    weights = []
    for words in ("0", "60"):
        asked = ["train", str(written), str(tmp_path / words), "--steps", "2", "--seconds", "1"]
        monkeypatch.setattr(sys, "argv", [*asked, "--batch", "2", "--words", words, *ONE_THREAD])
        train.main()
        state = torch.load(tmp_path / words / "training.pt", weights_only=True)["model"]
        weights.append(torch.cat([value.flatten() for value in state.values()]))
    assert not torch.equal(*weights)


def test_the_mean_of_two_separators_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(train.MODEL, "channels", 4)
    folders = [tmp_path / name for name in ("first", "second", "mean")]
    for folder in folders[:2]:
        folder.mkdir()
        train.write(HDemucs(**train.MODEL), folder)
    mean.main(*folders)
    first, second, between = (load_file(folder / "small_speech.safetensors") for folder in folders)
    for name, weight in between.items():
        assert torch.allclose(weight, (first[name] + second[name]) / 2, atol=1e-6)
    assert Separator(folders[2]).sample_rate == RATE


def test_the_detector_is_told_where_music_plays(written: Path) -> None:
    mixer = Mixer(Sources.read(written, "train"), detector.SECONDS, np.random.default_rng(0))
    heard, where = detector.batch_of(mixer, 24)
    assert heard.shape == (24, 256, detector.BANDS)
    assert where.shape == (24, 32)
    assert torch.isfinite(heard).all()
    all_of_it, nothing = (where == 1).all(1).float().mean(), (where == 0).all(1).float().mean()
    assert 0.1 < all_of_it < 0.6
    assert 0.2 < nothing < 0.8
    assert ((where > 0) & (where < 1)).any(), "music also begins and ends"
    assert detector.Network()(heard).shape == where.shape
