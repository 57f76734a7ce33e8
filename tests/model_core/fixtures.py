"""The numerical fixtures under tests/data/core, opened for tests."""

import json
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from model_core.checkpoint import load_checkpoint
from model_core.flow_matching import Draws, Numbers, draws_of
from model_core.sequences import Batch, Sequence
from model_core.voxcpm import VoxCPM

ROOT = Path(__file__).parent.parent / "data" / "core"
MODELS = ("v1", "v15", "v2", "v2b")


@dataclass(frozen=True)
class Fixture:
    """One tiny random model and what the official package computes with it."""

    name: str
    folder: Path
    tensors: dict[str, Tensor]
    facts: dict[str, Any]

    def __getitem__(self, key: str) -> Tensor:
        return self.tensors[key]

    def model(self, dtype: torch.dtype = torch.float32) -> VoxCPM:
        """A fresh model with the fixture's weights."""
        return load_checkpoint(self.folder, dtype=dtype).model

    def close(self, key: str, ours: Tensor, *, atol: float | None = None) -> None:
        """Assert that a tensor agrees within the tolerance that the fixtures' README states."""
        if atol is None:
            atol = 5e-2 if key.startswith("bf16/") else 1e-4
        theirs = self.tensors[key]
        assert ours.shape == theirs.shape, key
        torch.testing.assert_close(
            ours.float(),
            theirs.float(),
            atol=atol,
            rtol=max(1e-4, atol),
            msg=lambda m: f"{key}: {m}",
        )

    def modes(self) -> list[str]:
        """The generation modes that it has."""
        return list(self.facts["gen"])

    def sequence(self, mode: str) -> Sequence:
        """What a generation mode starts from, as the fixture has it."""
        prefix = f"gen/{mode}/"
        audio = self[prefix + "feat_mask"][0].bool()
        tokens = torch.where(audio, 0, self[prefix + "text"][0])
        return Sequence(tokens, audio, self[prefix + "feat"][0][audio], torch.zeros_like(audio))

    def batch(self) -> Batch:
        """The training batch that the official packer made."""
        audio = self["train/audio_mask"].bool()
        text = self["train/text_mask"].bool()
        return Batch(
            tokens=self["train/text_tokens"].long(),
            text_mask=text,
            audio_mask=audio,
            patches=self["train/audio_feats"][audio],
            loss_mask=self["train/loss_mask"].bool(),
            stop_labels=self["train/labels"].long(),
            lengths=(audio | text).sum(dim=1),
        )

    def draws(self, prefix: str = "train/rng/", *, mean_mode: bool = False) -> Draws:
        """The official random draws, for the target patches alone."""
        numbers = Numbers(
            keep=self[prefix + "cfg_rand"],
            noised=self[prefix + "noisy_rand"],
            cond_noise=swapped(self[prefix + "cond_noise"]),
            r=self[prefix + "s_r"],
            t=self[prefix + "s_t"],
            apart=self[prefix + "r_neq_t_rand"],
            noise=swapped(self[prefix + "z"]),
        )
        draws = draws_of(
            numbers,
            self.model().config.dit_config.cfm_config,
            progress=self.facts["train"]["progress"],
            mean_mode=mean_mode,
        )
        mask = self["train/loss_mask"].bool().flatten()
        return Draws(*(getattr(draws, field.name)[mask] for field in fields(Draws)))


@lru_cache
def fixture(name: str) -> Fixture:
    """Open one by name."""
    folder = ROOT / name
    facts = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    return Fixture(name, folder, load_file(folder / "expected.safetensors"), facts)


def swapped(patches: Tensor) -> Tensor:
    """Between the official (N, C, P) and our (N, P, C)."""
    return patches.transpose(1, 2)
