"""The random checkpoints have the published names and shapes; a peer without figures is absent."""

import json
import math
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.benchmarks.peer_voxcpm import PeerFigures, parse
from tests.benchmarks.peers import PeerUnavailable
from tests.benchmarks.random_checkpoint import (
    Shape,
    Tensors,
    audio_vae_tensors,
    model_tensors,
    released_config,
    write_random_checkpoint,
)

CORE = Path(__file__).parents[1] / "data" / "core"


def num_parameters(tensors: Tensors) -> int:
    return sum(math.prod(tensor.shape) for tensor in tensors.values() if tensor.values is None)


@pytest.mark.parametrize("fixture", ["v1", "v2"])
def test_names_and_shapes_are_those_of_the_published_layout(fixture: str) -> None:
    folder = CORE / fixture
    config = json.loads((folder / "config.json").read_text())
    known = json.loads((folder / "state_dict_keys.json").read_text())
    vae = audio_vae_tensors(config["audio_vae_config"])
    ours = model_tensors(config) | {f"audio_vae.{name}": tensor for name, tensor in vae.items()}
    assert {name: list(tensor.shape) for name, tensor in ours.items()} == {
        name: entry["shape"] for name, entry in known.items()
    }


@pytest.mark.parametrize(
    ("shape", "millions", "vae_millions"), [("0.5B", 652.3, 75.4), ("2B", 2290, 94.2)]
)
def test_the_sizes_are_those_of_the_releases(
    shape: Shape, millions: float, vae_millions: float
) -> None:
    config = released_config(shape)
    # The smaller release relies on the default AudioVAE, which differs in its decoder alone.
    vae = config.get("audio_vae_config") or {
        **released_config("2B")["audio_vae_config"],
        "decoder_dim": 1536,
        "decoder_rates": [8, 8, 5, 2],
        "sr_bin_boundaries": None,
    }
    assert num_parameters(model_tensors(config)) / 1e6 == pytest.approx(millions, abs=0.5)
    assert num_parameters(audio_vae_tensors(vae)) / 1e6 == pytest.approx(vae_millions, abs=0.1)


def test_a_written_checkpoint_reads_back_in_the_published_types(tmp_path: Path) -> None:
    write_random_checkpoint(tmp_path, "nano", seed=3)
    model, vae = (load_file(tmp_path / f"{n}.safetensors") for n in ("model", "audiovae"))
    config = json.loads((tmp_path / "config.json").read_text())
    assert {n: t.shape for n, t in model.items()} == {
        n: t.shape for n, t in model_tensors(config).items()
    }
    assert {tensor.dtype for tensor in model.values()} == {torch.bfloat16}
    assert vae["decoder.sr_bin_boundaries"].tolist() == [20_000, 30_000, 40_000]
    assert vae["encoder.fc_mu.weight_v"].dtype == torch.float32
    assert (tmp_path / "tokenizer.json").is_file()
    embeddings = model["base_lm.embed_tokens.weight"].float()
    assert embeddings.std().item() == pytest.approx(0.02, rel=0.05)
    assert torch.equal(model["base_lm.norm.weight"], torch.ones(128, dtype=torch.bfloat16))


def test_the_same_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_random_checkpoint(tmp_path / name, "nano", seed=seed)
    a, b, c = ((tmp_path / name / "model.safetensors").read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_the_peers_figures_are_the_last_line_of_its_output() -> None:
    cost = {"seconds": 1.5, "audio_s": 10.0, "rtf": 0.15}
    line: dict[str, object] = {field.name: 1.0 for field in fields(PeerFigures)}
    line["audio_vae"] = {"encode_10s": cost}
    figures = parse(f"a greeting\n{json.dumps(line)}\n")
    assert figures.patch_s == 1.0
    assert figures.audio_vae["encode_10s"].rtf == 0.15


@pytest.mark.parametrize("output", ["", "no figures", "[1]", '{"patch_s": 1.0}'])
def test_a_peer_that_prints_no_figures_is_unavailable(output: str) -> None:
    with pytest.raises(PeerUnavailable, match="printed no figures"):
        parse(output)
