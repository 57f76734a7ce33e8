"""How far apart two waves are for a recogniser: what its encoder makes of them.

The least error of a wave is not the fewest word errors: where music covers a consonant, the least error
is to take both away. A loss on what a trained recogniser makes of sound asks for what words are told by
(Plantinga et al., "Perceptual loss with recognition model", arXiv 2112.06068).
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor, nn
from torchaudio.functional import melscale_fbanks
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from jobs.shipped.separator.mixing import RATE

WINDOW, HOP, MELS = 400, 160, 80
"""Whisper's, at 16 kHz."""
_DTYPES = {0: np.float32, 4: np.float16}
"""CTranslate2's numbers of those that an unquantised model has."""


class Hearing(nn.Module):
    """The encoder of a Whisper model, which is not trained any more."""

    window: Tensor
    bank: Tensor

    def __init__(self, place: Path, samples: int) -> None:
        """place: folder of a model in CTranslate2's format, not quantised. samples: of a wave."""
        super().__init__()
        with (place / "model.bin").open("rb") as file:
            state = dict(_renamed(dict(_variables(file))))
        frames = samples // (2 * HOP)
        state["embed_positions.weight"] = state["embed_positions.weight"][:frames]
        config = WhisperConfig(
            num_mel_bins=MELS,
            d_model=state["layer_norm.weight"].numel(),
            encoder_layers=1 + max(int(n.split(".")[1]) for n in state if n.startswith("layers.")),
            encoder_attention_heads=state["layer_norm.weight"].numel() // 64,
            encoder_ffn_dim=state["layers.0.fc1.bias"].numel(),
            max_source_positions=frames,
        )
        self.encoder = WhisperEncoder(config).eval().requires_grad_(False)
        self.encoder.load_state_dict(state)
        self.samples = frames * 2 * HOP
        self.register_buffer("window", torch.hann_window(WINDOW))
        bank = melscale_fbanks(WINDOW // 2 + 1, 0, RATE / 2, MELS, RATE, "slaney", "slaney")
        self.register_buffer("bank", bank)

    def forward(self, said: Tensor, speech: Tensor) -> Tensor:
        """Distance of (B, T) from (B, T): 0 alike, about 1 for unrelated sounds; of each layer, their mean.

        Waves without speech count for nothing: a recogniser hears silence as loud as anything else.
        """
        there = speech.square().mean(-1) > 1e-8
        if not bool(there.any()):
            return said.sum() * 0.0
        ours, theirs = self.features(said[there]), self.features(speech[there])
        distances = [
            (a - b.detach()).abs().mean() / (b - b.mean(1, keepdim=True)).abs().mean().detach()
            for a, b in zip(ours, theirs, strict=True)
        ]
        return torch.stack(distances).mean()

    def features(self, wave: Tensor) -> tuple[Tensor, ...]:
        """(B, T) -> what each layer makes of it, (B, frames, width) each."""
        spectra = torch.stft(
            wave[:, : self.samples], WINDOW, HOP, window=self.window, return_complex=True
        )[..., :-1]
        power = spectra.real.square() + spectra.imag.square()
        mels = torch.log10((power.transpose(1, 2) @ self.bank).clamp(min=1e-10)).transpose(1, 2)
        mels = torch.maximum(mels, mels.amax((1, 2), keepdim=True).detach() - 8.0)
        found = self.encoder((mels + 4.0) / 4.0, output_hidden_states=True)
        states: tuple[Tensor, ...] = found.hidden_states
        return states


def _variables(file: BinaryIO) -> Iterator[tuple[str, Tensor]]:
    """Those of the encoder in CTranslate2's model.bin (its binary versions 4 to 6)."""

    def number(kind: str) -> int:
        return int(struct.unpack(f"<{kind}", file.read(struct.calcsize(kind)))[0])

    def text() -> str:
        return file.read(number("H"))[:-1].decode()

    number("I"), text(), number("I")
    for _ in range(number("I")):
        name = text()
        shape = [number("I") for _ in range(number("B"))]
        dtype, raw = number("B"), file.read(number("I"))
        if name.startswith("encoder/") and shape:
            values = np.frombuffer(raw, _DTYPES[dtype]).reshape(shape).astype(np.float32)
            yield name.removeprefix("encoder/"), torch.from_numpy(values)


def _renamed(variables: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """CTranslate2's names to those of transformers, where queries, keys and values are apart."""
    parts = {
        "self_attention/layer_norm": "self_attn_layer_norm",
        "self_attention/linear_1": "self_attn.out_proj",
        "ffn/layer_norm": "final_layer_norm",
        "ffn/linear_0": "fc1",
        "ffn/linear_1": "fc2",
    }
    kinds = {"gamma": "weight", "beta": "bias"}
    for name, value in variables.items():
        if name == "position_encodings/encodings":
            yield "embed_positions.weight", value
            continue
        place, kind = name.rsplit("/", 1)
        kind = kinds.get(kind, kind)
        if not place.startswith("layer_") or place == "layer_norm":
            yield f"{place}.{kind}", value
            continue
        layer, inner = place.split("/", 1)
        layer = f"layers.{layer.removeprefix('layer_')}"
        if inner != "self_attention/linear_0":
            yield f"{layer}.{parts[inner]}.{kind}", value
            continue
        for part, own in zip("qkv", value.chunk(3), strict=True):
            if (part, kind) != ("k", "bias"):
                yield f"{layer}.self_attn.{part}_proj.{kind}", own
