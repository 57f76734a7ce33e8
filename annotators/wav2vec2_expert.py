"""Gender, age and emotion by wav2vec2 and its kin, in the format of `transformers`.

Three kinds of checkpoint, told apart by what they hold:

- heads `age` and `gender` over the mean of the last layer: Burkhardt et al., "Speech-based age and
  gender prediction with transformers", 2023;
- a head `classifier` of two layers for arousal, dominance and valence: Wagner et al., "Dawn of the
  transformer era in speech emotion recognition", IEEE TPAMI 2023;
- audio classification whose labels name genders or emotions.

No code that a checkpoint brings along is ever run.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from annotators.expert import Opinion, Sound
from annotators.expert_labels import CHILD, age_group, label_of, opinion_by
from annotators.registry import first_line
from annotators.threads import torch_with
from schemas.errors import EmptyAudio, ModelLoadError
from schemas.rows import Wave

SAMPLE_RATE = 16_000
LONGEST_S = 30.0
"""How much of a clip is heard, from its start."""

# A few times the network's window of 25 ms; a shorter clip is repeated.
_SHORTEST = SAMPLE_RATE // 10
# The kinds that take the waveform itself.
_TYPES = (
    "data2vec-audio",
    "hubert",
    "sew",
    "sew-d",
    "unispeech",
    "unispeech-sat",
    "wav2vec2",
    "wavlm",
)
# With a layer norm in the convolutions, a mask hides padding wholly (tried, and in the tests).
_MASKED = ("hubert", "wav2vec2")
_HEADS: dict[str, dict[str, int]] = {
    "age": {"age": 1, "gender": 3},
    "dimensions": {"classifier": 3},
}
_GENDERS = ("female", "male", CHILD)
_DIMENSIONS = ("arousal", "dominance", "valence")
_SAFE, _PICKLED = "model.safetensors", "pytorch_model.bin"
# Weight normalisation is stored by its old names in checkpoints made before PyTorch 2.
_RENAMED = {".weight_g": ".parametrizations.weight.original0"}
_RENAMED |= {".weight_v": ".parametrizations.weight.original1"}

F32 = npt.NDArray[np.float32]
Read = Callable[[Sequence[F32]], list[Opinion]]
"""From the values of each head to an opinion per clip."""


class Wav2Vec2Expert:
    """Judges clips by one checkpoint."""

    def __init__(
        self,
        path: Path,
        *,
        device: str = "cpu",
        threads: int = 1,
        batch_size: int = 8,
        longest_s: float = LONGEST_S,
    ) -> None:
        """path: the checkpoint's folder. Raises ModelLoadError."""
        torch = self._torch = torch_with(threads)
        _transformers()
        config = _config(path)
        state = _weights(path, torch)
        kind = _kind(state)
        self._read = _reading(kind, config, path)
        self._net = _network(kind, config, state, path).to(device).eval()
        self._masked = (
            config.model_type in _MASKED and getattr(config, "feat_extract_norm", "") == "layer"
        )
        self._normalised = _normalised(path)
        self._device = device
        self._batch = batch_size
        self._longest = round(longest_s * SAMPLE_RATE)

    def judge(self, sounds: Sequence[Sound]) -> list[Opinion]:
        """An opinion for each clip. Raises EmptyAudio for one without samples."""
        waves = [self._prepared(sound.wave_16k) for sound in sounds]
        # Alike in length, so that little of a batch is padding.
        order = sorted(range(len(waves)), key=lambda at: waves[at].size)
        found: dict[int, Opinion] = {}
        while order:
            group = order[: self._batch]
            if not self._masked:
                group = [at for at in group if waves[at].size == waves[group[0]].size]
            order = order[len(group) :]
            heads = self._forward([waves[at] for at in group])
            found |= dict(zip(group, self._read(heads), strict=True))
        return [found[at] for at in range(len(waves))]

    def _prepared(self, wave: Wave) -> F32:
        if not wave.size:
            raise EmptyAudio("no samples to judge")
        wave = np.resize(wave[: self._longest], max(min(wave.size, self._longest), _SHORTEST))
        if self._normalised:
            wave = (wave - wave.mean()) / np.sqrt(wave.var() + 1e-7)
        return wave.astype(np.float32)

    def _forward(self, waves: Sequence[F32]) -> list[F32]:
        """The values of each head: (clips, values)."""
        torch = self._torch
        lengths = [wave.size for wave in waves]
        batch = torch.zeros(len(waves), max(lengths))
        mask = torch.zeros(len(waves), max(lengths), dtype=torch.long)
        for row, wave in enumerate(waves):
            batch[row, : wave.size] = torch.from_numpy(wave)
            mask[row, : wave.size] = 1
        with torch.inference_mode():
            heads = self._net(
                batch.to(self._device),
                attention_mask=mask.to(self._device) if self._masked else None,
            )
        return [head.float().cpu().numpy() for head in heads]


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise ModelLoadError(
            "this expert needs transformers: install voxquarry[cluster], or take the expert acoustic"
        ) from error
    return transformers


def _config(path: Path) -> Any:
    if not (path / "config.json").is_file():
        raise ModelLoadError(f"{path} is no checkpoint of transformers: it has no config.json")
    try:
        config = _transformers().AutoConfig.from_pretrained(
            path, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:
        raise ModelLoadError(
            f"{path / 'config.json'} does not open: {first_line(error)}"
        ) from error
    if config.model_type not in _TYPES:
        raise ModelLoadError(
            f"{path} is of the type {config.model_type!r}; experts are of {', '.join(_TYPES)}"
        )
    return config


def _weights(path: Path, torch: Any) -> dict[str, Any]:
    """Tensor name → tensor, on the CPU."""
    from safetensors.torch import load_file

    whole, index, pickled = path / _SAFE, path / f"{_SAFE}.index.json", path / _PICKLED
    try:
        if whole.is_file():
            state = load_file(whole)
        elif index.is_file():
            names = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
            parts = [load_file(path / Path(name).name) for name in sorted(set(names))]
            state = {name: tensor for part in parts for name, tensor in part.items()}
        elif pickled.is_file():
            state = torch.load(pickled, map_location="cpu", weights_only=True)
        else:
            raise ModelLoadError(f"{path} has no weights: {_SAFE} or {_PICKLED}")
        return {_renamed(name): tensor for name, tensor in state.items()}
    except ModelLoadError:
        raise
    except Exception as error:
        raise ModelLoadError(f"the weights in {path} do not open: {first_line(error)}") from error


def _renamed(name: str) -> str:
    for old, new in _RENAMED.items():
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def _kind(state: Mapping[str, Any]) -> str:
    """`age`, `dimensions`, or `labels` for plain audio classification."""
    for kind, heads in _HEADS.items():
        if all(f"{head}.out_proj.weight" in state for head in heads):
            return kind
    return "labels"


def _network(kind: str, config: Any, state: Mapping[str, Any], path: Path) -> Any:
    """A module from waves and mask to the values of each head, with the checkpoint's weights."""
    if kind == "labels":
        try:
            net = _transformers().AutoModelForAudioClassification.from_config(
                config, trust_remote_code=False
            )
        except Exception as error:
            raise ModelLoadError(f"{path} classifies no audio: {first_line(error)}") from error
        inner, module = net, _whole(net)
    else:
        inner = module = _with_heads(config, _HEADS[kind])
    try:
        missing = inner.float().load_state_dict(dict(state), strict=False).missing_keys
    except RuntimeError as error:
        raise ModelLoadError(
            f"the weights in {path} have other shapes: {first_line(error)}"
        ) from error
    # The embedding of masked frames is for training only, and some leave it out.
    missing = [name for name in missing if not name.endswith("masked_spec_embed")]
    if missing:
        raise ModelLoadError(
            f"the weights in {path} lack {missing[0]}"
            + (f" and {len(missing) - 1} more" if len(missing) > 1 else "")
        )
    return module


def _whole(net: Any) -> Any:
    from torch import nn

    class Classifier(nn.Module):
        """Probabilities of the labels, as the one head."""

        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, waves: Any, *, attention_mask: Any) -> list[Any]:
            """(B, samples) -> [(B, labels)]."""
            logits = self.net(waves, attention_mask=attention_mask).logits
            return [logits.float().softmax(dim=-1)]

    return Classifier()


def _with_heads(config: Any, sizes: Mapping[str, int]) -> Any:
    """wav2vec2 and heads of two layers over the mean of its last one."""
    from torch import nn

    class Head(nn.Module):
        """(B, D) -> (B, values)."""

        def __init__(self, size: int) -> None:
            super().__init__()
            self.dense = nn.Linear(config.hidden_size, config.hidden_size)
            self.out_proj = nn.Linear(config.hidden_size, size)

        def forward(self, x: Any) -> Any:
            return self.out_proj(self.dense(x).tanh())

    class Heads(nn.Module):
        """Parameter names are the checkpoint's."""

        def __init__(self) -> None:
            super().__init__()
            self.wav2vec2 = _transformers().Wav2Vec2Model(config)
            for name, size in sizes.items():
                self.add_module(name, Head(size))

        def forward(self, waves: Any, *, attention_mask: Any) -> list[Any]:
            """(B, samples) -> (B, values) of each head."""
            net = self.wav2vec2
            frames = net(waves, attention_mask=attention_mask).last_hidden_state  # (B, T, D)
            if attention_mask is None:
                mean = frames.mean(dim=1)
            else:
                heard = net._get_feature_vector_attention_mask(frames.shape[1], attention_mask)
                heard = heard[..., None].to(frames.dtype)  # (B, T, 1)
                mean = (frames * heard).sum(dim=1) / heard.sum(dim=1)
            return [getattr(self, name)(mean) for name in sizes]

    return Heads()


def _reading(kind: str, config: Any, path: Path) -> Read:
    """How the values of the heads become opinions. Raises ModelLoadError for unknown labels."""
    if kind == "age":
        return _read_age_and_gender
    names = [name for _, name in sorted(config.id2label.items())]
    if kind == "dimensions":
        told = tuple(str(name).casefold() for name in names)
        # Labels that were never given a name leave the published order.
        order = told if sorted(told) == sorted(_DIMENSIONS) else _DIMENSIONS
        return lambda heads: _read_dimensions(heads, order)
    labels = [label_of(str(name)) for name in names]
    if all(
        len({getattr(label, field) for label in labels} - {None}) < 2
        for field in ("gender", "emotion")
    ):
        raise ModelLoadError(
            f"the labels of {path} name neither genders nor emotions: {', '.join(map(str, names))}"
        )
    return lambda heads: [opinion_by(labels, row.tolist()) for row in heads[0]]


def _read_age_and_gender(heads: Sequence[F32]) -> list[Opinion]:
    ages, genders = heads
    labels = [label_of(name) for name in _GENDERS]
    opinions = []
    for age, logits in zip(ages[:, 0], genders, strict=True):
        weights = np.exp(logits - logits.max())
        opinion = opinion_by(labels, (weights / weights.sum()).tolist())
        if opinion.age is None:
            group, confidence = age_group(100.0 * float(age))
            opinion = replace(opinion, age=group, age_confidence=confidence)
        opinions.append(opinion)
    return opinions


def _read_dimensions(heads: Sequence[F32], order: Sequence[str]) -> list[Opinion]:
    # Trained on a scale from 0 to 1; the head itself is not bounded.
    values = np.clip(2.0 * heads[0] - 1.0, -1.0, 1.0)
    arousal, valence = (values[:, order.index(name)].tolist() for name in ("arousal", "valence"))
    return [Opinion(arousal=a, valence=v) for a, v in zip(arousal, valence, strict=True)]


def _normalised(path: Path) -> bool:
    """Whether the checkpoint was trained on waves of zero mean and unit variance."""
    told = path / "preprocessor_config.json"
    if not told.is_file():
        return True
    try:
        settings = json.loads(told.read_text(encoding="utf-8"))
        return bool(settings.get("do_normalize", True))
    except (ValueError, AttributeError) as error:
        raise ModelLoadError(f"{told} does not open: {first_line(error)}") from error
