"""Models of the demucs package, in both of its layouts: opened safely, and run as demucs runs them."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from demucs.apply import BagOfModels, apply_model
from demucs.hdemucs import HDemucs
from demucs.htdemucs import HTDemucs
from safetensors.torch import save_file

from annotators.demucs import Separator, hears_stereo
from schemas.errors import ModelLoadError

SMALL: dict[str, Any] = {
    "sources": ["background", "speech"],
    "audio_channels": 1,
    "channels": 4,
    "nfft": 256,
    "depth": 4,
    "samplerate": 8_000,
    "segment": 2,
}


def model(seed: int = 0, **settings: Any) -> HDemucs:
    torch.manual_seed(seed)
    return HDemucs(**{**SMALL, **settings}).eval()


def written(folder: Path, *models: HDemucs, weights: Any = None, form: str = "safetensors") -> Path:
    """A folder with these models, as demucs lays it out."""
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for at, one in enumerate(models):
        name = f"{at:08x}"
        _, kwargs = one._init_args_kwargs
        if form == "safetensors":
            said = {
                "klass": f"{type(one).__module__}.{type(one).__name__}",
                "args": "[]",
                "kwargs": json.dumps(kwargs),
            }
            state = {key: value.contiguous() for key, value in one.state_dict().items()}
            save_file(state, folder / f"{name}.safetensors", said)
        else:
            package = {"klass": type(one), "args": (), "kwargs": kwargs, "state": one.state_dict()}
            torch.save({**package, "training_args": {"epochs": 3}}, folder / f"{name}-abc.th")
        names.append(name)
    bag = {"models": names} | ({"weights": weights} if weights else {})
    (folder / "toy.yaml").write_text(yaml.safe_dump(bag))
    return folder


def mixture(seconds: float, rate: int = 8_000, channels: int = 1) -> np.ndarray:
    wave = np.random.default_rng(1).standard_normal((round(seconds * rate), channels)) * 0.1 + 0.01
    return wave.astype(np.float32)


def by_demucs(model: torch.nn.Module, heard: np.ndarray, source: int) -> np.ndarray:
    given = torch.from_numpy(heard).T[None]
    with torch.inference_mode():
        found = apply_model(model, given, shifts=0, split=False)
    return found[0, source].T.numpy()


@pytest.mark.parametrize("form", ["safetensors", "th"])
@pytest.mark.parametrize("seconds", [0.4, 1.3, 2.0, 7.3])
def test_it_separates_as_demucs_itself(tmp_path: Path, form: str, seconds: float) -> None:
    separator = Separator(written(tmp_path, model(), form=form))
    assert (separator.sample_rate, separator.channels) == (8_000, 1)
    heard = mixture(seconds)
    mean, spread = heard.mean(), heard.std()
    given = (heard - mean) / spread
    found = (separator.speech(heard)) / spread
    assert found.shape == heard.shape
    if seconds < 1:
        given = np.pad(given, ((0, 8_000 - len(given)), (0, 0)))
    if seconds <= 2:
        theirs = by_demucs(model(), given, 1)[: len(heard)]
        np.testing.assert_allclose(found, theirs, atol=2e-3)
        return
    # Both ends lie in one stretch each, and no stretch is filled up with silence.
    alone, length = 10_000, 2 * 8_000
    theirs = by_demucs(model(), given[:length], 1)
    np.testing.assert_allclose(found[:alone], theirs[:alone], atol=2e-3)
    theirs = by_demucs(model(), given[-length:], 1)
    np.testing.assert_allclose(found[-alone:], theirs[-alone:], atol=2e-3)


def test_batches_change_nothing(tmp_path: Path) -> None:
    folder = written(tmp_path, model())
    one, four = Separator(folder), Separator(folder, batch_size=4)
    heard = mixture(9.0)
    np.testing.assert_allclose(one.speech(heard), four.speech(heard), atol=1e-5)


def test_a_bag_of_stereo_models_weighs_its_sources(tmp_path: Path) -> None:
    models = [
        model(seed, audio_channels=2, sources=["drums", "bass", "other", "vocals"])
        for seed in range(2)
    ]
    weights = [[1.0, 1.0, 1.0, 0.25], [0.0, 0.0, 0.0, 0.75]]
    separator = Separator(written(tmp_path, *models, weights=weights))
    assert separator.channels == 2
    heard = mixture(1.9, channels=2)
    mean, spread = heard.mean(), heard.mean(axis=1).std()
    theirs = by_demucs(BagOfModels(models, weights), (heard - mean) / spread, 3)
    np.testing.assert_allclose(separator.speech(heard), theirs * spread, atol=2e-4)


def test_a_hybrid_transformer_opens_too(tmp_path: Path) -> None:
    settings = {
        **SMALL, "depth": 3, "channels": 8, "t_layers": 1, "bottom_channels": 16, "t_heads": 2,
        "sources": ["other", "vocals"], "audio_channels": 2,
    }  # fmt: skip
    separator = Separator(written(tmp_path, HTDemucs(**settings).eval()))
    found = separator.speech(mixture(3.0, channels=2))
    assert found.shape == (24_000, 2)
    assert np.isfinite(found).all()


def test_only_classes_of_demucs_are_opened(tmp_path: Path) -> None:
    said = {"klass": "os.path.join", "args": '["a"]', "kwargs": "{}"}
    save_file({"x": torch.zeros(1)}, tmp_path / "0.safetensors", said)
    with pytest.raises(ModelLoadError, match="not demucs' own"):
        Separator(tmp_path)
    packed = {"klass": "demucs.hdemucs.HDemucs", "args": "[]", "kwargs": "{}"}
    packed["structure"] = json.dumps({"_class": "os.system"})
    save_file({"x": torch.zeros(1)}, tmp_path / "0.safetensors", packed)
    with pytest.raises(ModelLoadError, match="quantised"):
        Separator(tmp_path)


class Malice:
    """Runs a command when it is unpickled by whoever trusts it."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


def test_a_pickle_runs_nothing(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    torch.save({"klass": HDemucs, "state": Malice(mark)}, tmp_path / "0.th")
    with pytest.raises(ModelLoadError, match=r"0\.th does not open"):
        Separator(tmp_path)
    assert not mark.exists()


def test_what_is_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="no folder"):
        Separator(tmp_path / "nowhere")
    with pytest.raises(ModelLoadError, match="names no model"):
        Separator(tmp_path)
    (tmp_path / "a.yaml").write_text("models: [abc]")
    with pytest.raises(ModelLoadError, match="lacks abc"):
        Separator(tmp_path)
    (tmp_path / "abc.safetensors").write_bytes(b"broken")
    with pytest.raises(ModelLoadError, match="does not open"):
        Separator(tmp_path)
    with pytest.raises(ModelLoadError, match="does not open"):
        hears_stereo(tmp_path)
    (tmp_path / "b.yaml").write_text("models: [abc]")
    with pytest.raises(ModelLoadError, match="several models: a, b"):
        Separator(tmp_path)
    folder = written(tmp_path / "music", model(sources=["drums", "bass"]))
    with pytest.raises(ModelLoadError, match="none of them is speech"):
        Separator(folder)


@pytest.mark.parametrize("channels", [1, 2])
def test_channels_are_known_before_it_is_opened(tmp_path: Path, channels: int) -> None:
    assert hears_stereo(written(tmp_path, model(audio_channels=channels))) == (channels == 2)
    assert hears_stereo(written(tmp_path / "th", model(), form="th"))
