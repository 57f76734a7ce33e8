"""From the clips of a corpus to a checkpoint with a trained AudioVAE, killed and resumed."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch

from jobs.cli import main
from jobs.recipes import load_recipe
from jobs.run_train_vae import different, ending_on_signals
from jobs.train_vae import VAERecipe
from jobs.vae_segments import ClipSegments, SegmentsConfig, accepted_places, held_out_ids
from jobs.vae_variation import VariationConfig
from model_core.audio_vae import AudioVAEConfig
from model_core.checkpoint import load_checkpoint, load_vae
from model_core.vae_training.batches import START, Batch, Cursor
from model_core.vae_training.run_folder import RunFolder
from model_core.vae_training.trainer import Told, VAETrainer
from model_core.weights import read_weights
from pipeline.ledger import Item, UnitRecord
from pipeline.storage import Corpus
from schemas.arrow import VERDICTS
from schemas.errors import ConfigError
from schemas.ids import content_id
from schemas.rows import Clip, Verdict
from stages.flac import flac_bytes

ROOT = Path(__file__).parents[2]
CORE = ROOT / "tests" / "data" / "core"
RATE = 16_000
CLIP_S = 2.5
NUM_CLIPS = 12
V1 = AudioVAEConfig.from_dict({"encoder_dim": 8, "latent_dim": 16, "decoder_dim": 64}, "v1")
V2 = AudioVAEConfig.from_dict({"encoder_dim": 8, "latent_dim": 16, "decoder_dim": 64}, "v2")
POLICY = """
tiers: {wideband: 5000, fullband: 10000}
accept_tiers: [telephone, wideband, fullband]
rules: {too_short: {column: duration_s, min: 1.0}}
"""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums in one order, as in the process that is killed."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def clip_of(index: int, wave: np.ndarray, rate: int = RATE, **values: object) -> Clip:
    size = len(wave)
    fields = {
        "clip_id": content_id("vae", index),
        "recording_id": "r",
        "session_id": "s",
        "chunk_index": 0,
        "index_in_recording": index,
        "start_sample": index * size,
        "end_sample": (index + 1) * size,
        "sample_rate": rate,
        "start_s": index * size / rate,
        "end_s": (index + 1) * size / rate,
        "duration_s": size / rate,
        "audio": flac_bytes(wave, rate),
        **values,
    }
    return Clip(**fields)  # type: ignore[arg-type]


def corpus_of(root: Path, clips: list[Clip], refused: tuple[int, ...] = ()) -> Corpus:
    """Clips in two parts, all accepted but some."""
    corpus = Corpus(str(root))
    half = len(clips) // 2
    for name, part in (("a", clips[:half]), ("b", clips[half:])):
        seconds = sum(clip.duration_s for clip in part)
        item = Item(item_id=name, uri=name, status="done", duration_s=seconds)
        rows = {"clips": len(part)}
        unit = UnitRecord(unit_id=name, attempt=1, items=(item,), rows=rows, seconds={})
        corpus.commit("curate", [unit], {"clips": part})
    verdicts = [
        Verdict(
            clip_id=clip.clip_id,
            accepted=index not in refused,
            tier="wideband",
            reasons=(),
            policy_hash="p",
        )
        for index, clip in enumerate(clips)
    ]
    corpus.write_current("filter", VERDICTS, VERDICTS.to_arrow(verdicts))
    return corpus


@pytest.fixture(scope="session")
def clips(devset: Path) -> list[Clip]:
    wave, rate = sf.read(devset / "audio" / "en_allison_s1.flac", dtype="float32")
    assert rate == RATE
    size = int(CLIP_S * rate)
    return [clip_of(i, wave[i * size : (i + 1) * size]) for i in range(NUM_CLIPS)]


@pytest.fixture
def corpus(clips: list[Clip], tmp_path: Path) -> Corpus:
    return corpus_of(tmp_path / "corpus", clips)


def segments(corpus: Corpus, vae: AudioVAEConfig = V1, **config: object) -> ClipSegments:
    settings = SegmentsConfig(**{"seconds": 0.2, "per_clip": 2, **config})  # type: ignore[arg-type]
    return ClipSegments(corpus, vae, settings, batch_size=4, seed=1)


def some(stream: ClipSegments, number: int, start: Cursor = START) -> list[Batch]:
    batches = stream.batches(start)
    return [next(batches) for _ in range(number)]


# ── the segments ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("chunk_clips", [4, 100])
def test_a_stream_goes_on_at_any_cursor(corpus: Corpus, chunk_clips: int) -> None:
    stream = segments(corpus, chunk_clips=chunk_clips)
    batches = some(stream, 15)
    cursors = [START, *(batch.after for batch in batches)]
    assert batches[-1].after.epoch > 0
    assert len({batch.after for batch in batches}) == 15
    for number in (1, 4, 9, 13):
        again = some(segments(corpus, chunk_clips=chunk_clips), 2, cursors[number])
        for one, other in zip(again, batches[number : number + 2], strict=True):
            assert torch.equal(one.heard, other.heard)
            assert torch.equal(one.target, other.target)
            assert one.after == other.after


def test_varied_segments_come_again_and_both_sides_alike(corpus: Corpus) -> None:
    variation = VariationConfig(level_db=6.0, tilt_db=6.0, noise_dbfs=-50.0)
    stream = segments(corpus, variation=variation)
    first, second = some(stream, 2)
    again = next(stream.batches(first.after))
    assert torch.equal(again.heard, second.heard)
    assert torch.equal(first.heard, first.target), "V1: one rate"
    plain = next(segments(corpus).batches(START))
    assert not torch.allclose(plain.heard, first.heard, atol=1e-3)
    for one, other in zip(stream.held_out(), segments(corpus).held_out(), strict=True):
        assert torch.equal(one.heard, other.heard), "what is measured is not varied"


def test_segments_are_the_clips_own_samples_and_never_held_out_ones(
    corpus: Corpus, clips: list[Clip]
) -> None:
    stream = segments(corpus)
    held_out = held_out_ids([clip.clip_id for clip in clips], 0.02)
    assert len(held_out) == 4
    assert {clip.clip_id for clip in stream.held_out()} == held_out
    waves = {clip.clip_id: sf.read(io.BytesIO(clip.audio), dtype="float32")[0] for clip in clips}
    found = set()
    for batch in some(stream, 8):
        assert batch.heard.shape == batch.target.shape == (4, 1, 5 * 640)
        assert batch.sample_rates.tolist() == [RATE] * 4
        for row in batch.heard[:, 0].numpy():
            owners = [
                name
                for name, wave in waves.items()
                if any(
                    np.array_equal(wave[at : at + len(row)], row)
                    for at in np.flatnonzero(wave[: -len(row) + 1] == row[0])
                )
            ]
            assert len(owners) == 1
            found.add(owners[0])
    assert not found & held_out
    assert len(found) >= 6


def test_both_sides_of_a_segment_are_the_same_moment_at_their_rates(
    corpus: Corpus, tmp_path: Path
) -> None:
    """A tone in a recording of 44.1 kHz, heard at 16 kHz and spoken at 48 kHz."""
    time = np.arange(2 * 44_100) / 44_100
    tone = (0.5 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)
    other = corpus_of(tmp_path / "tones", [clip_of(i, tone, 44_100) for i in range(4)])
    batch = some(segments(other, V2), 1)[0]
    assert batch.heard.shape == (4, 1, 5 * 640)
    assert batch.target.shape == (4, 1, 5 * 1920)
    assert batch.sample_rates.tolist() == [44_100] * 4
    low, high = batch.heard[:, 0], batch.target[:, 0, ::3]
    assert (low - high).abs().max() < 5e-3
    for clip in segments(other, V2).held_out():
        assert len(clip.target) == 3 * len(clip.heard)
        assert (clip.heard - clip.target[::3])[100:-100].abs().max() < 5e-3


def test_the_decoder_is_told_what_a_recording_could_hold(clips: list[Clip], tmp_path: Path) -> None:
    wave = np.random.default_rng(0).normal(0, 0.1, 48_000).astype(np.float32)
    made = [
        clip_of(0, wave, 48_000),
        clip_of(1, wave, 48_000, upsampled=True, bandwidth_hz=8000.0),
        clip_of(2, wave, 16_000, upsampled=False, bandwidth_hz=5000.0),
        clip_of(3, wave, 48_000, upsampled=True),
    ]
    corpus = corpus_of(tmp_path / "rates", made)
    places = accepted_places(corpus)
    rates = dict(places.select("clip_id", "true_rate").iter_rows())
    assert [rates[clip.clip_id] for clip in made] == [48_000, 16_000, 16_000, 48_000]
    # V1 speaks at 16 kHz, and is told no more.
    for batch in some(segments(corpus, V1), 4):
        assert batch.sample_rates.max() == 16_000


def test_bad_audio_is_left_out_by_its_id(clips: list[Clip], tmp_path: Path) -> None:
    trained = [c for c in clips if c.clip_id not in held_out_ids([c.clip_id for c in clips], 0.02)]
    spoiled = {trained[0].clip_id: b"fLaC, but no more", trained[1].clip_id: None}
    mixed = [replace(c, audio=spoiled.get(c.clip_id, c.audio)) for c in clips]
    stream = segments(corpus_of(tmp_path / "bad", mixed))
    batches = some(stream, 12)
    skipped = [skip for batch in batches for skip in batch.skipped]
    assert {skip.clip_id for skip in skipped} == set(spoiled)
    assert len(skipped) == 2
    assert all(batch.heard.shape == (4, 1, 3200) for batch in batches)
    nothing = [replace(c, audio=b"no") if c in trained else c for c in clips]
    with pytest.raises(ConfigError, match=r"no clip of .* can be read"):
        some(segments(corpus_of(tmp_path / "worse", nothing)), 1)


def test_a_damaged_part_costs_its_clips_alone(corpus: Corpus) -> None:
    stream = segments(corpus)
    part = Path(corpus.path) / corpus.parts("clips")[0]
    data = bytearray(part.read_bytes())
    data[4:-2000] = bytes(len(data) - 2004)
    part.write_bytes(data)
    batches = some(stream, 3)
    assert sum(len(batch.skipped) for batch in batches) > 0


def test_refused_clips_take_no_part_and_one_clip_is_too_few(
    clips: list[Clip], tmp_path: Path
) -> None:
    stream = segments(corpus_of(tmp_path / "one", clips, refused=(0, 1, 2)))
    assert stream.num_clips + len(stream.held_out()) == NUM_CLIPS - 3
    few = corpus_of(tmp_path / "two", clips, refused=tuple(range(1, NUM_CLIPS)))
    with pytest.raises(ConfigError, match="has 1 accepted clips"):
        segments(few)


def test_what_is_held_out_stays_so_when_the_corpus_grows() -> None:
    names = [content_id("name", index) for index in range(2000)]
    few, many = held_out_ids(names[:1000], 0.05), held_out_ids(names, 0.05)
    assert few <= many
    assert 60 < len(many) < 140


# ── the training ──────────────────────────────────────────────────────────────────────────────────

QUICK = [
    "mel.windows=[128, 512]",
    "mel.num_mels=[10, 40]",
    "discriminators.periods=[2]",
    "discriminators.period_channels=[4, 8]",
    "discriminators.fft_sizes=[256]",
    "discriminators.fft_channels=4",
    "training.steps=8",
    "training.adversarial_from=4",
    "training.batch_size=4",
    "training.save_every=3",
    "training.validate_every=4",
    "training.log_every=1",
    "segments.seconds=0.2",
    "segments.held_out_s=1.5",
]


def trainer_of(root: str, folder: Path) -> VAETrainer:
    recipe = load_recipe("vae-nano", QUICK, VAERecipe)
    vae = load_vae(CORE / "v1")
    stream = ClipSegments(Corpus(root), vae.config, recipe.segments, batch_size=4, seed=0)
    return VAETrainer(vae, recipe, stream, RunFolder(folder))


def die_after_step(step: int, root: str, folder: Path) -> None:
    """In a process of its own."""
    torch.set_num_threads(1)

    def tell(told: Told) -> None:
        if told.step == step:
            os.kill(os.getpid(), signal.SIGKILL)

    trainer_of(root, folder).train(tell=tell)


def test_a_killed_training_goes_on_as_if_it_had_not_been(corpus: Corpus, tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from tests.jobs.test_train_vae import die_after_step; "
        f"die_after_step(5, {corpus.root!r}, Path({str(tmp_path / 'killed')!r}))"
    )
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=120, check=False)
    assert process.returncode == -signal.SIGKILL
    runs = [trainer_of(corpus.root, tmp_path / name) for name in ("killed", "unbroken")]
    assert [run.step for run in runs] == [4, 0]
    assert all(run.train() for run in runs)
    for side in ("vae", "discriminators"):
        states = [getattr(run, side).state_dict() for run in runs]
        assert all(torch.equal(states[0][key], value) for key, value in states[1].items())
    logs = [
        [json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        for name in ("killed", "unbroken")
    ]
    for one, other in zip(*logs, strict=True):
        speeds = ("audio_s_per_s", "waiting_share")
        assert {k: v for k, v in one.items() if k not in speeds} == {
            k: v for k, v in other.items() if k not in speeds
        }


def test_sigterm_ends_after_the_step_and_saves(corpus: Corpus, tmp_path: Path) -> None:
    trainer = trainer_of(corpus.root, tmp_path / "run")

    def tell(told: Told) -> None:
        if told.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with ending_on_signals() as asked:
        assert not trainer.train(tell=tell, stopped=asked.is_set)
    assert signal.getsignal(signal.SIGTERM) == before
    assert trainer_of(corpus.root, tmp_path / "run").step == 2


# ── the command ───────────────────────────────────────────────────────────────────────────────────


class Terminal:
    """The command line in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capfd = monkeypatch, capfd

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        self._monkeypatch.setattr(sys, "argv", ["voxquarry", "train-vae", *arguments])
        self._capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        code = end.value.code
        assert code is None or isinstance(code, int)
        return (code or 0, *self._capfd.readouterr())


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(monkeypatch, capfd)


@pytest.mark.parametrize("name", ["v1", "v2"])
def test_the_command_makes_a_checkpoint_that_opens(
    terminal: Terminal, corpus: Corpus, tmp_path: Path, name: str
) -> None:
    out = tmp_path / "trained"
    policy = tmp_path / "all.yaml"
    policy.write_text(POLICY, encoding="utf-8")
    sets = [part for value in QUICK for part in ("--set", value)]
    command = [corpus.root, "--checkpoint", str(CORE / name), "--out", str(out), "-r", "vae-nano"]
    command += [*sets, "--policy", str(policy)]
    code, told, err = terminal(*command)
    assert code == 0, err
    assert "mel distance" in told
    assert not list(tmp_path.glob(".*"))

    checkpoint, source = load_checkpoint(out, dtype=torch.float32), load_vae(CORE / name)
    best = read_weights(tmp_path / "trained.training" / "best.safetensors")
    assert (out / "audiovae.safetensors").is_file()
    assert read_weights(out / "audiovae.safetensors").keys() == source.state_dict().keys()
    assert all(torch.equal(best[k], v) for k, v in checkpoint.vae.state_dict().items())
    assert not torch.equal(checkpoint.vae.encoder.fc_mu.weight_v, source.encoder.fc_mu.weight_v)
    for file in ("config.json", "tokenizer.json", "model.safetensors"):
        assert (out / file).read_bytes() == (CORE / name / file).read_bytes()
    wave = torch.randn(1, 1, 6400, generator=torch.Generator().manual_seed(0)) * 0.1
    with torch.no_grad():
        plain = checkpoint.vae.decode(checkpoint.vae.encode(wave), 16_000)
        folded = checkpoint.vae.fold_weight_norm()
        torch.testing.assert_close(
            folded.decode(folded.encode(wave), 16_000), plain, atol=1e-4, rtol=1e-3
        )

    figures = json.loads((tmp_path / "trained.training" / "evaluation.json").read_text())
    assert set(figures["means"]) == {"silence", "before", "after"}
    assert figures["means"]["after"]["mel"] < figures["means"]["before"]["mel"]
    assert figures["means"]["after"]["stoi"] is not None
    assert [run["status"] for run in corpus.runs()] == ["finished"]

    code, told, _ = terminal(*command)
    assert code == 0
    assert "Nothing to do" in told
    code, _, err = terminal(*command, "--set", "loss.mel=3")
    assert code == 1
    assert "another loss.mel" in err
    shutil.rmtree(tmp_path / "trained.training")
    code, _, err = terminal(*command)
    assert code == 1
    assert "there already" in err


def test_mistakes_are_one_line(terminal: Terminal, corpus: Corpus, tmp_path: Path) -> None:
    out = ["--out", str(tmp_path / "o"), "--checkpoint", str(CORE / "v1")]
    for arguments, message in (
        ([str(tmp_path / "none"), *out], "holds no corpus"),
        ([corpus.root, *out, "-r", "vae-giant"], "no recipe vae-giant"),
        ([corpus.root, *out, "--set", "loss.mell=1"], "did you mean mel?"),
        ([corpus.root, *out, "--set", "segments.seconds=0.04"], "too few for a window"),
        ([corpus.root, *out[:3], str(tmp_path)], "ModelLoadError"),
    ):
        code, _, err = terminal(*arguments)
        assert (code, err.count("\n")) == (1, 1), err
        assert message in err
    assert not list(tmp_path.glob("o*"))


def test_recipes_load_and_differences_are_named() -> None:
    one, other = (load_recipe(name, [], VAERecipe) for name in ("vae", "vae-nano"))
    assert one.training.steps > other.training.steps
    assert other.loss == one.loss
    assert different({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}) == ["a.c"]
