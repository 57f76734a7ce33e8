"""A clip's latent is what the checkpoint's AudioVAE makes of it alone, whoever shares its batch."""

import io
import pickle
import zlib
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from annotators.audio_vae import AudioVaeEncoder, Ear, grouped
from model_core.audio import encode_patches, latents_of
from model_core.checkpoint import load_checkpoint, load_vae, vae_hash
from schemas.errors import (
    ConfigError,
    DataError,
    EmptyAudio,
    ModelLoadError,
    NonFiniteAudio,
    NonFiniteLatent,
    UndecodableAudio,
)
from schemas.latents import PATCH, ClipSound
from stages.hearing import Hearing
from stages.latents import Latents, LatentsConfig, latent_row

DATA = Path(__file__).parents[1] / "data"
CORE = DATA / "core"
SPEECH, RATE = sf.read(DATA / "devset" / "audio" / "en_allison_s1.flac", dtype="float32")


@cache
def encoder(name: str) -> AudioVaeEncoder:
    return AudioVaeEncoder(CORE / name)


@cache
def hash_of(name: str) -> str:
    return vae_hash(load_vae(CORE / name))


def clip(
    wave: np.ndarray, rate: int = RATE, *, name: str = "c", container: str = "FLAC"
) -> ClipSound:
    buffer = io.BytesIO()
    sf.write(buffer, wave, rate, format=container, subtype=None if container == "FLAC" else "FLOAT")
    return ClipSound(clip_id=name, attempt=1, audio=buffer.getvalue(), sample_rate=rate)


def opened(name: str = "v2", **values: object) -> tuple[Hearing, Latents]:
    stages = (
        Hearing(str(CORE / name)),
        Latents(LatentsConfig(**values), str(CORE / name), hash_of(name)),  # type: ignore[arg-type]
    )
    for stage in stages:
        stage.setup()
    return stages


def encoded(clips: list[ClipSound], name: str = "v2", **values: object) -> list[ClipSound]:
    hearing, latents = opened(name, **values)
    return latents.process(hearing.process(clips))


def array(row: ClipSound) -> np.ndarray:
    assert row.latent is not None
    return np.frombuffer(row.latent.latent, "<f2").reshape(row.latent.frames, row.latent.channels)


@pytest.mark.parametrize("name", ["v1", "v15", "v2"])
def test_a_latent_is_the_releases_patches_in_float16(name: str) -> None:
    wave = SPEECH[RATE : 3 * RATE + 123]
    (row,) = encoded([clip(wave)], name)
    stored, rate = sf.read(io.BytesIO(clip(wave).audio), dtype="float32")
    vae = load_checkpoint(CORE / name, dtype=torch.float32).vae
    patches = encode_patches(vae, torch.from_numpy(stored), rate, patch_size=PATCH, padding="right")
    assert row.latent is not None
    assert row.latent.frames % PATCH == 0
    assert row.latent.frames == patches.shape[0] * PATCH
    assert np.allclose(array(row), latents_of(patches).T.numpy(), atol=1e-3, rtol=1e-3)
    assert row.latent.crc32 == zlib.crc32(row.latent.latent)
    assert row.latent.vae_hash == vae_hash(vae)
    assert row.duration_s == pytest.approx(wave.size / RATE)
    assert row.wave is None
    assert row.audio == b""


@settings(max_examples=15, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 40_000), min_size=1, max_size=7),
    batch_s=st.sampled_from([0.1, 2.0, 60.0]),
    name=st.sampled_from(["v1", "v2"]),
)
def test_who_shares_a_batch_changes_nothing(lengths: list[int], batch_s: float, name: str) -> None:
    waves = [SPEECH[5000 * i : 5000 * i + length] for i, length in enumerate(lengths)]
    one = encoder(name)
    alone = [one.encode([wave])[0] for wave in waves]
    together = AudioVaeEncoder(CORE / name, batch_s=batch_s).encode(waves)
    for length, first, second in zip(lengths, alone, together, strict=True):
        assert first.dtype == second.dtype == np.float16
        assert first.shape == second.shape == (-(-length // 2560) * 4, 16)
        assert np.allclose(first, second, atol=1e-3, rtol=1e-3)


@given(
    lengths=st.lists(st.integers(1, 5000), max_size=40),
    most=st.integers(1, 20_000),
    multiple=st.sampled_from([1, 640, 2560]),
)
def test_groups_hold_every_clip_once_within_the_bound(
    lengths: list[int], most: int, multiple: int
) -> None:
    groups = list(grouped(lengths, most, multiple))
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    for group in groups:
        longest = max(-(-lengths[i] // multiple) * multiple for i in group)
        assert longest * len(group) <= most or len(group) == 1


@pytest.mark.parametrize(
    ("sound", "error"),
    [
        (clip(np.zeros(0, np.float32), container="WAV"), EmptyAudio),
        (clip(np.array([0.1, np.nan, 0.2], np.float32), container="WAV"), NonFiniteAudio),
        (clip(np.array([0.1, np.inf], np.float32), container="WAV"), NonFiniteAudio),
        (clip(np.zeros((100, 2), np.float32)), UndecodableAudio),
        (replace(clip(SPEECH[:8000]), sample_rate=RATE + 1), UndecodableAudio),
        (replace(clip(SPEECH[:8000]), audio=b"not a sound file"), UndecodableAudio),
        (replace(clip(SPEECH[:8000]), audio=b""), UndecodableAudio),
    ],
)
def test_bad_audio_is_refused_by_its_kind(sound: ClipSound, error: type[DataError]) -> None:
    hearing = Hearing(str(CORE / "v2"))
    hearing.setup()
    with pytest.raises(error):
        hearing.process([sound])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_latent_that_is_not_finite_is_refused(bad: float) -> None:
    latent = np.zeros((8, 16), np.float16)
    latent[5, 3] = bad
    with pytest.raises(NonFiniteLatent, match="frame 5 of 8"):
        latent_row(clip(SPEECH[:800]), latent, "h")


def test_what_float16_cannot_hold_is_refused(tmp_path: Path) -> None:
    """An AudioVAE whose means are beyond 65,504."""
    weights = load_file(CORE / "v2" / "audiovae.safetensors")
    weights["encoder.fc_mu.bias"] = torch.full_like(weights["encoder.fc_mu.bias"], 1e5)
    (tmp_path / "config.json").write_bytes((CORE / "v2" / "config.json").read_bytes())
    save_file(weights, tmp_path / "audiovae.safetensors")
    hearing = Hearing(str(tmp_path))
    latents = Latents(LatentsConfig(), str(tmp_path), vae_hash(load_vae(tmp_path)))
    hearing.setup()
    latents.setup()
    with pytest.raises(NonFiniteLatent):
        latents.process(hearing.process([clip(SPEECH[:8000])]))


def test_the_hash_is_of_the_weights_not_of_their_file(tmp_path: Path) -> None:
    weights = load_file(CORE / "v2" / "audiovae.safetensors")
    (tmp_path / "config.json").write_bytes((CORE / "v2" / "config.json").read_bytes())
    torch.save({"state_dict": weights}, tmp_path / "audiovae.pth")
    assert vae_hash(load_vae(tmp_path)) == hash_of("v2")
    name = next(iter(weights))
    torch.save({"state_dict": {**weights, name: weights[name] + 1e-6}}, tmp_path / "audiovae.pth")
    assert vae_hash(load_vae(tmp_path)) != hash_of("v2")
    assert len({hash_of(name) for name in ("v1", "v15", "v2", "v2b")}) == 4
    with pytest.raises(ConfigError, match="folded"):
        vae_hash(load_vae(tmp_path).fold_weight_norm())


def test_an_audio_vae_that_changed_since_the_plan_is_refused() -> None:
    stage = Latents(LatentsConfig(), str(CORE / "v2"), hash_of("v1"))
    with pytest.raises(ModelLoadError, match="another AudioVAE"):
        stage.setup()


def test_a_folder_without_an_audio_vae_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="no checkpoint here"):
        Ear(tmp_path)
    (tmp_path / "config.json").write_bytes((CORE / "v2" / "config.json").read_bytes())
    with pytest.raises(ModelLoadError, match="audiovae"):
        load_vae(tmp_path)


def test_both_stages_keep_the_contract() -> None:
    hearing, latents = opened()
    assert hearing.process([]) == []
    assert latents.process([]) == []
    batch = [clip(SPEECH[: 8000 * n], name=str(n)) for n in (2, 1, 3)]
    first = latents.process(hearing.process(batch))
    again = latents.process(hearing.process(batch))
    assert [row.latent for row in first] == [row.latent for row in again]
    assert [row.clip_id for row in first] == ["2", "1", "3"]
    for stage in (
        Hearing(str(CORE / "v2")),
        Latents(LatentsConfig(), str(CORE / "v2"), hash_of("v2")),
    ):
        pickle.loads(pickle.dumps(stage)).setup()


def test_bfloat16_hears_about_the_same() -> None:
    wave = SPEECH[: 2 * RATE]
    full, half = (array(encoded([clip(wave)], dtype=dtype)[0]) for dtype in ("float32", "bfloat16"))
    assert np.abs(full.astype(np.float32) - half).mean() < 0.05 * np.abs(full).mean() + 1e-3


@pytest.mark.parametrize(
    "values", [{"device": "tpu"}, {"dtype": "int8"}, {"threads": 0}, {"batch_s": 0}]
)
def test_settings_that_cannot_be_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        LatentsConfig(**values)  # type: ignore[arg-type]
