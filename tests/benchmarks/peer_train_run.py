"""Time the official package's training step; run inside its own environment.

    python peer_train_run.py CHECKPOINT --batches batches.json [--device cpu] [--threads 2]

batches.json lists batches of clips, each [text tokens, seconds of audio]. A step is what the
package's own training script does with a batch that its loader has collated: pack it (which encodes
the audio), forward in bfloat16 autocast, backward, clip, AdamW. The last line of the output is JSON.
"""

import argparse
import json
import resource
import time
from importlib.metadata import version
from pathlib import Path

import torch
from voxcpm.model.voxcpm import VoxCPMModel
from voxcpm.training import BatchProcessor, HFVoxCPMDataset

LAST_WORD = 600
"""Ids below this are in the vocabulary of the random checkpoints."""


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    device = torch.device(options.device)
    model = VoxCPMModel.from_local(
        str(options.checkpoint), optimize=False, training=True, device=options.device
    ).to(device)
    model.train()
    vae = model.audio_vae
    processor = BatchProcessor(config=model.config, audio_vae=vae, dataset_cnt=1, device=device)
    del model.audio_vae  # as the package's script does: it is not trained
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5, weight_decay=0.01)
    batches = [
        HFVoxCPMDataset.collate_fn([_sample(*clip, vae.sample_rate) for clip in clips])
        for clips in json.loads(options.batches.read_text())
    ]
    steps = []
    for number, batch in enumerate([batches[0], *batches]):
        step = _step(model, processor, optimizer, trained, batch, device)
        if number:  # the first one makes the optimizer's state
            steps.append(step)
    cuda = device.type == "cuda"
    peak = torch.cuda.max_memory_allocated() if cuda else 1024 * _peak_kib()
    print(json.dumps({"package": version("voxcpm"), "steps": steps, "peak_gib": peak / 2**30}))


def _step(model, processor, optimizer, trained, batch, device) -> dict[str, float]:
    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    began = now()
    packed = processor(batch)
    ready = now()
    with torch.autocast(device.type, torch.bfloat16):
        losses = model(
            packed["text_tokens"],
            packed["text_mask"],
            packed["audio_feats"],
            packed["audio_mask"],
            packed["loss_mask"],
            packed["position_ids"],
            packed["labels"],
            progress=0.0,
        )
    loss = losses["loss/diff"] + losses["loss/stop"]
    loss.backward()
    done = now()
    torch.nn.utils.clip_grad_norm_(trained, max_norm=1e9)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    ended = now()
    assert torch.isfinite(loss)
    return {
        "pack_s": ready - began,
        "model_s": done - ready,
        "optimizer_s": ended - done,
        "seconds": ended - began,
        "targets": int(packed["loss_mask"].sum()),
        "positions": int((packed["text_mask"] + packed["audio_mask"]).sum()),
        "rows": packed["text_tokens"].numel(),
    }


def _sample(num_tokens: int, duration_s: float, sample_rate: int) -> dict[str, object]:
    return {
        "text_ids": torch.randint(110, LAST_WORD, (num_tokens,)).tolist(),
        "audio_array": (0.1 * torch.randn(int(duration_s * sample_rate))).tolist(),
        "audio_sampling_rate": sample_rate,
        "dataset_id": 0,
    }


def _peak_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--batches", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    main()
