"""What our model core takes on one checkpoint: seconds per part, and the floor under them.

The floor is the model's products alone, over the same number of rows: no norms, attention,
rotations or bookkeeping. Nothing that computes the same numbers in the same type runs below it.
"""

import json
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from model_core.checkpoint import Checkpoint, load_checkpoint
from model_core.flow_matching import Solver, SolverConfig
from model_core.generation.requests import PatchRequest
from model_core.generation.rows import Rows
from model_core.packed import PackedLinear
from model_core.sequences import generation_sequence
from model_core.synthesis import SpeechRequest, Synthesizer
from model_core.transformer import Block, Transformer
from model_core.voxcpm import VoxCPM

PARTS = ("base_lm", "residual_lm", "locdit", "locenc")


@dataclass(frozen=True, kw_only=True, slots=True)
class CoreFigures:
    """Seconds are medians; `batch` maps a number of rows to what one step of them takes."""

    load_s: float
    fuse_s: float
    prefill_s: float
    step_s: dict[int, float]
    """A patch for each row, without AudioVAE."""
    parts_s: dict[int, dict[str, float]]
    """Empty on a GPU, where a step is one recording."""
    floor_s: dict[int, dict[str, float]]
    patch_audio_s: float
    """Audio in a patch."""
    utterances_s: float
    """Text to audio for as many utterances as the largest batch up to 16 holds, together."""
    audio_vae_s: dict[str, float]
    """encode_10s, encode_3s, decode_250_frames, decode_16x40_frames, decode_stream_patch."""
    plain_patch_s: float
    """Batch 1 without fused and packed weights; what packing gains."""


class Clock:
    """Adds up the time inside modules, by part."""

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._cuda = device.type == "cuda"

    def now(self) -> float:
        """Seconds, once the device has done what it was told."""
        if self._cuda:
            torch.cuda.synchronize()
        return time.perf_counter()

    @contextmanager
    def watching(self, parts: dict[str, nn.Module]) -> Iterator[None]:
        """Count the calls of these modules."""
        hooks = []
        for name, module in parts.items():
            begun: list[float] = []
            hooks.append(module.register_forward_pre_hook(lambda *_, b=begun: b.append(self.now())))

            def end(*_: object, b: list[float] = begun, n: str = name) -> None:
                self.seconds[n] += self.now() - b.pop()

            hooks.append(module.register_forward_hook(end))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


def median_s(run: Callable[[], object], clock: Clock, num_runs: int) -> float:
    """Median seconds of a call, after one that does not count."""
    run()
    seconds = []
    for _ in range(num_runs):
        begin = clock.now()
        run()
        seconds.append(clock.now() - begin)
    return statistics.median(seconds)


@torch.inference_mode()
def products_s(
    stack: Transformer, rows: int, kept: int, model: VoxCPM, clock: Clock, num_runs: int
) -> float:
    """Seconds of a transformer's products alone, over `rows` rows, `kept` after the last attention."""
    calls: list[tuple[PackedLinear, int]] = []
    for number, block in enumerate(stack.layers, start=1):
        assert isinstance(block, Block)
        after = kept if number == len(stack.layers) else rows
        calls.append((packed_of(block.self_attn.qkv_proj), rows))
        calls += [
            (packed_of(layer), after)
            for layer in (
                block.self_attn.o_proj,
                block.mlp.gate_proj,
                block.mlp.up_proj,
                block.mlp.down_proj,
            )
        ]
    inputs = {
        (layer.in_features, count): torch.randn(
            count, layer.in_features, device=model.device, dtype=model.dtype
        )
        for layer, count in calls
    }

    def run() -> None:
        for layer, count in calls:
            layer(inputs[layer.in_features, count])

    return median_s(run, clock, num_runs)


def packed_of(layer: nn.Module | None) -> PackedLinear:
    """A layer of a fused model."""
    assert isinstance(layer, PackedLinear)
    return layer


@torch.inference_mode()
def steps_s(
    checkpoint: Checkpoint, request: PatchRequest, batch: int, num_steps: int
) -> tuple[float, float, dict[str, float]]:
    """Seconds of prefill, of one step of `batch` rows, and of the step's parts."""
    model = checkpoint.model
    clock = Clock(model.device)
    rows = Rows(model, Solver(model.estimator, SolverConfig()), batch)
    begin = clock.now()
    rows.admit([(number, request) for number in range(batch)])
    prefill_s = clock.now() - begin
    rows.sample()
    rows.advance()
    steps: list[dict[str, float]] = []
    parts = {
        "base_lm": model.base_lm,
        "residual_lm": model.residual_lm,
        "locdit": model.estimator.decoder,
        "locenc": model.feat_encoder,
    }
    # A recorded step calls no module, and one being recorded must not wait for the device.
    with clock.watching({} if model.device.type == "cuda" else parts):
        for _ in range(num_steps):
            clock.seconds.clear()
            begin = clock.now()
            rows.sample()
            rows.advance()
            steps.append({"step": clock.now() - begin, **clock.seconds})
    # One step that really happened, the middle one, so that its parts add up.
    middle = sorted(steps, key=lambda step: step["step"])[len(steps) // 2]
    return prefill_s, middle.pop("step"), middle


def floor_s(checkpoint: Checkpoint, batch: int, num_runs: int) -> dict[str, float]:
    """The products of one step of `batch` rows, by part."""
    model, solver = checkpoint.model, SolverConfig()
    clock = Clock(model.device)
    patch = model.config.patch_size
    calls = solver.num_steps - solver.num_idle_steps
    tokens = 2 * patch + (3 if model.config.is_v2 else 1)

    def products(stack: Transformer, rows: int, kept: int) -> float:
        return products_s(stack, rows, kept, model, clock, num_runs)

    return {
        "base_lm": products(model.base_lm, batch, batch),
        "residual_lm": products(model.residual_lm, batch, batch),
        "locdit": calls * products(model.estimator.decoder, 2 * batch * tokens, 2 * batch * patch),
        "locenc": products(model.feat_encoder.encoder, batch * (patch + 1), batch),
    }


@torch.inference_mode()
def audio_vae_s(checkpoint: Checkpoint, num_runs: int) -> dict[str, float]:
    """Seconds of AudioVAE calls in float32."""
    vae, config = checkpoint.vae, checkpoint.vae.config
    device = vae.device
    clock = Clock(device)
    patch = checkpoint.model.config.patch_size

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, device=device) * 0.1

    long, short = noise(1, 1, 10 * config.sample_rate), noise(1, 1, 3 * config.sample_rate)
    latent, many = noise(1, config.latent_dim, 250), noise(16, config.latent_dim, 40)
    chunk, decoder = noise(1, config.latent_dim, patch), vae.stream()
    return {
        "encode_10s": median_s(lambda: vae.encode(long), clock, num_runs),
        "encode_3s": median_s(lambda: vae.encode(short), clock, num_runs),
        "decode_250_frames": median_s(lambda: vae.decode(latent), clock, num_runs),
        "decode_16x40_frames": median_s(lambda: vae.decode(many), clock, num_runs),
        "decode_stream_patch": median_s(lambda: decoder.decode(chunk), clock, num_runs * 5),
    }


def measure(
    folder: Path, text: str, *, device: str, batches: list[int], num_steps: int, num_runs: int
) -> CoreFigures:
    """Every figure of one checkpoint, in this process."""
    clock = Clock(torch.device(device))
    begin = clock.now()
    checkpoint = load_checkpoint(folder, device=device, dtype=torch.bfloat16)
    load_s = clock.now() - begin
    config = checkpoint.model.config
    sequence = generation_sequence(
        checkpoint.tokenizer.ids(text), torch.zeros(0, config.patch_size, config.feat_dim)
    )
    request = PatchRequest(sequence=sequence, seed=0, max_patches=4 * num_steps + 8)
    plain_s = steps_s(checkpoint, request, 1, num_steps)[1]
    begin = clock.now()
    many = max(batch for batch in batches if batch <= 16)
    synthesizer = Synthesizer(checkpoint, batch_size=many)
    fuse_s = clock.now() - begin
    prefill_s, steps, parts, floors = 0.0, {}, {}, {}
    for batch in batches:
        prefill, steps[batch], parts[batch] = steps_s(checkpoint, request, batch, num_steps)
        prefill_s = prefill if batch == batches[0] else prefill_s
        floors[batch] = floor_s(checkpoint, batch, num_runs)
    # As long as what the official package is timed on, and like there none stops before.
    asked = [
        SpeechRequest(text=text, seed=seed, min_patches=num_steps, max_patches=num_steps)
        for seed in range(many)
    ]
    begin = clock.now()
    spoken = list(synthesizer.speak(asked))
    utterances_s = clock.now() - begin
    assert all(len(speech.patches) == num_steps for _, speech in spoken)
    return CoreFigures(
        load_s=load_s,
        fuse_s=fuse_s,
        prefill_s=prefill_s,
        step_s=steps,
        parts_s=parts,
        floor_s=floors,
        patch_audio_s=config.patch_size
        * checkpoint.vae.config.out_hop
        / checkpoint.vae.config.out_sample_rate,
        utterances_s=utterances_s,
        audio_vae_s=audio_vae_s(checkpoint, num_runs),
        plain_patch_s=plain_s,
    )


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[3]))
    found = measure(
        Path(sys.argv[1]),
        sys.argv[2],
        device=sys.argv[4],
        batches=[int(n) for n in sys.argv[5].split(",")],
        num_steps=int(sys.argv[6]),
        num_runs=int(sys.argv[7]),
    )
    print(json.dumps(asdict(found)))
