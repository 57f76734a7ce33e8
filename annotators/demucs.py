"""Speech out of a mixture, by any model of the demucs package (Défossez 2021, arXiv 2111.03600).

A folder holds either what `demucs.hf` reads (NAME.yaml and safetensors files) or what a local
repository of demucs holds (NAME.yaml, perhaps, and pickled `.th` files). Both name the class of their
model; only demucs' own are opened, and pickles hold nothing but tensors, numbers and these.

Shapes: N samples at the model's rate, C of its channels, B stretches of L samples.
"""

import json
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from annotators.threads import torch_with
from schemas.errors import ConfigError, ModelLoadError

F32 = npt.NDArray[np.float32]

SPEECH = ("speech", "vocals")
"""What models call it."""
OVERLAP = 0.25
"""Least share of a stretch that the next one hears again; the two are faded into each other."""
LONGEST_S = 30.0
"""Seconds of a stretch, whatever the model was trained with: what it takes of memory."""
_CLASSES = ("demucs.demucs.Demucs", "demucs.hdemucs.HDemucs", "demucs.htdemucs.HTDemucs")


class Separator:
    """A model that is open: a mixture in, its speech out."""

    def __init__(
        self, place: Path, *, device: str = "cpu", threads: int = 1, batch_size: int = 1
    ) -> None:
        """place: a folder as above. batch_size: stretches at a time. Raises ModelLoadError."""
        self._torch = torch_with(threads)
        if device == "cuda" and not self._torch.cuda.is_available():
            raise ConfigError("separation.device is cuda, and there is no GPU")
        self._device, self._batch_size = device, batch_size
        self._model = open_model(place)
        self._model.to(device).eval()
        self.sample_rate = int(self._model.samplerate)
        """Hz of what goes in and comes out."""
        self.channels = int(self._model.audio_channels)
        """C: 2 where the model hears in stereo."""
        names = list(self._model.sources)
        found = [names.index(name) for name in SPEECH if name in names]
        if not found:
            raise ModelLoadError(f"{place} parts {', '.join(names)}: none of them is speech")
        self._speech = found[0]
        models = getattr(self._model, "models", [self._model])
        segment = min(LONGEST_S, *(float(model.segment) for model in models))
        self._length = int(segment * self.sample_rate)

    def speech(self, mixture: F32) -> F32:
        """(N, C) -> (N, C). Memory beyond these grows with the batch, not with N."""
        torch, size = self._torch, len(mixture)
        # Models weigh a stretch by its mean level: the silence that would fill one up changes that.
        length = min(self._length, max(size, self.sample_rate))
        mean, spread = float(mixture.mean()), float(mixture.mean(axis=1).std()) + 1e-8
        out, weight = np.zeros_like(mixture), np.zeros(size, np.float32)
        ramp = np.minimum(np.arange(1, length + 1), np.arange(length, 0, -1)).astype(np.float32)
        number = 1 + math.ceil(max(0, size - length) / ((1 - OVERLAP) * length))
        starts = np.linspace(0, max(0, size - length), number).astype(int)
        for first in range(0, len(starts), self._batch_size):
            group = starts[first : first + self._batch_size]
            stretches = np.zeros((len(group), length, mixture.shape[1]), np.float32)
            for stretch, start in zip(stretches, group, strict=True):
                part = mixture[start : start + length]
                stretch[: len(part)] = (part - mean) / spread
            heard = torch.from_numpy(stretches.transpose(0, 2, 1).copy())
            for start, found in zip(group, self._parted(heard), strict=True):
                end = min(size, start + length)
                out[start:end] += found.T[: end - start] * ramp[: end - start, None]
                weight[start:end] += ramp[: end - start]
        out *= spread
        out /= weight[:, None]
        return out

    def _parted(self, heard: Any) -> F32:
        """(B, C, L) of the mixture -> of its speech."""
        from demucs.apply import apply_model

        with self._torch.inference_mode():
            parted = apply_model(
                self._model, heard.to(self._device), shifts=0, split=False, device=self._device
            )
        found: F32 = parted[:, self._speech].float().cpu().numpy()
        return found


def hears_stereo(place: Path) -> bool:
    """Whether a model may want two channels, without opening it."""
    from safetensors import SafetensorError, safe_open

    try:
        for file in place.glob("*.safetensors"):
            with safe_open(str(file), framework="np") as opened:
                settings = json.loads((opened.metadata() or {}).get("kwargs", "{}"))
            return bool(settings.get("audio_channels", 2) == 2)
    except (SafetensorError, ValueError) as error:
        raise ModelLoadError(f"{place} does not open as a demucs model: {error}") from error
    return True


def open_model(place: Path) -> Any:
    """A model or bag of models, on the CPU. Raises ModelLoadError."""
    try:
        from demucs.apply import BagOfModels
    except ImportError as error:
        raise ModelLoadError("demucs is not installed") from error
    if not place.is_dir():
        raise ModelLoadError(f"{place} is no folder with a demucs model")
    bags = sorted(place.glob("*.yaml"))
    if len(bags) > 1:
        raise ModelLoadError(f"{place} holds several models: {', '.join(b.stem for b in bags)}")
    files = {file.stem.partition("-")[0]: file for file in sorted(place.glob("*.th"))}
    files |= {file.stem: file for file in sorted(place.glob("*.safetensors"))}
    bag: dict[str, Any] = {}
    if bags:
        bag = yaml.safe_load(bags[0].read_text(encoding="utf-8"))
    elif len(files) == 1:
        bag = {"models": list(files)}
    if not isinstance(bag, dict) or not isinstance(bag.get("models"), list) or not bag["models"]:
        raise ModelLoadError(f"{place} names no model: a yaml file with `models` is needed")
    missing = [name for name in bag["models"] if name not in files]
    if missing:
        raise ModelLoadError(f"{place} lacks {', '.join(map(str, missing))}")
    models = [_opened(files[name]) for name in bag["models"]]
    if len(models) == 1 and not bag.get("weights"):
        return models[0]
    return BagOfModels(models, bag.get("weights"), bag.get("segment"))


def _opened(file: Path) -> Any:
    """One file. What it says is not trusted: another class would be another program."""
    try:
        return _of_safetensors(file) if file.suffix == ".safetensors" else _of_pickle(file)
    except ModelLoadError:
        raise
    except Exception as error:  # whatever a damaged file makes the libraries raise
        raise ModelLoadError(f"{file} does not open as a demucs model: {error}") from error


def _of_safetensors(file: Path) -> Any:
    from demucs.hf import load_safetensors_model
    from safetensors import safe_open

    with safe_open(str(file), framework="pt") as opened:
        said = opened.metadata() or {}
    if said.get("klass") not in _CLASSES:
        raise ModelLoadError(
            f"{file} names the class {said.get('klass')!r}, which is not demucs' own"
        )
    if "_class" in json.dumps(json.loads(said.get("structure", "null"))):
        raise ModelLoadError(f"{file} is quantised, which is not read here")
    return load_safetensors_model(file)


def _of_pickle(file: Path) -> Any:
    import torch
    from demucs.demucs import Demucs
    from demucs.hdemucs import HDemucs
    from demucs.htdemucs import HTDemucs
    from demucs.states import load_model

    with torch.serialization.safe_globals([Demucs, HDemucs, HTDemucs, Fraction]):
        package = torch.load(file, map_location="cpu", weights_only=True)
    if package.get("klass") not in (Demucs, HDemucs, HTDemucs):
        raise ModelLoadError(f"{file} names no class of demucs")
    return load_model(package)  # type: ignore[no-untyped-call]
