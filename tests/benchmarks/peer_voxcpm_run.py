"""Time the official package on one checkpoint; run inside its own environment.

    python peer_voxcpm_run.py CHECKPOINT --text "…" [--device cpu] [--threads 2] [--patches 8]

The last line of the output is JSON: seconds are medians, those of a part are per patch. Everything
goes through the package's public calls as a user would write them; where a figure lies inside one
(a part of the model, the prefill), the calls to the modules are marked with the time.

The package loops over patches: solver (LocDiT), LocEnc, [stop], base LM step, residual LM step.
From one solver call to the next is therefore one patch without the AudioVAE.
"""

import argparse
import json
import os
import platform
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch
from voxcpm import VoxCPM

GIB = 2**30
CFG_VALUE = 2.0
INFERENCE_TIMESTEPS = 10
DECODED_FRAMES = 250
STREAMED_PATCHES = 12
REDECODED_PATCHES = 3
"""The window that the first generation decodes anew for every patch it streams."""


class Clock:
    """Wall time, after the device has done what it was given; and named moments of it."""

    def __init__(self, device: str) -> None:
        self.is_cuda = device.startswith("cuda")
        self.marks: list[tuple[str, float]] = []

    def now(self) -> float:
        if self.is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter()

    def mark(self, name: str) -> None:
        self.marks.append((name, self.now()))

    def timed(self, call: Callable[[], object]) -> float:
        """Seconds of one call."""
        started = self.now()
        call()
        return self.now() - started


def around(call: Callable[..., Any], name: str, clock: Clock) -> Callable[..., Any]:
    """The same call, with a mark before it (`name`) and after (`name end`)."""

    @wraps(call)
    def marked(*args: Any, **kwargs: Any) -> Any:
        clock.mark(name)
        result = call(*args, **kwargs)
        clock.mark(f"{name} end")
        return result

    return marked


@contextmanager
def marks_in(model: Any, clock: Clock) -> Iterator[None]:
    """Mark where each part of the model starts and ends, while the context lasts.

    LocEnc has no mark of its own, since compiled modules are best left alone: it runs from the
    solver's end to the projection that takes its output.
    """
    wrapped = [
        (model.base_lm, "forward_step", "base_lm"),
        (model.residual_lm, "forward_step", "residual_lm"),
        (model.audio_vae, "decode", "vae_decode"),
    ]
    for owner, method, name in wrapped:
        setattr(owner, method, around(getattr(owner, method), name, clock))
    hooks = []
    for module, name in (
        (model.base_lm, "base_lm prefill"),
        (model.residual_lm, "residual_lm prefill"),
        (model.feat_decoder, "locdit"),
    ):
        hooks.append(module.register_forward_pre_hook(lambda *_, n=name: clock.mark(n)))
        hooks.append(module.register_forward_hook(lambda *_, n=name: clock.mark(f"{n} end")))
    hooks.append(model.enc_to_lm_proj.register_forward_pre_hook(lambda *_: clock.mark("encoded")))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for owner, method, _ in wrapped:
            # What was set on the object hides the class's own method or, compiled, replaced it.
            setattr(owner, method, getattr(owner, method).__wrapped__)


def generation(tts: VoxCPM, text: str, patches: int, runs: int, clock: Clock) -> dict[str, Any]:
    """Seconds of generating `patches` patches: as a whole, streamed, and by part."""
    settings: dict[str, Any] = {
        "text": text,
        "cfg_value": CFG_VALUE,
        "inference_timesteps": INFERENCE_TIMESTEPS,
        # The stop decision counts only past min_len, so the length is always max_len.
        "min_len": patches,
        "max_len": patches,
        "retry_badcase": False,
    }
    audio = tts.generate(**settings)  # warms up
    generate_s = median(clock.timed(lambda: tts.generate(**settings)) for _ in range(runs))

    first_chunk_s, stream_patch_s = [], []
    for _ in range(runs):
        moments = [clock.now()]
        for chunk in tts.generate_streaming(**settings):
            assert len(chunk) * patches == len(audio)
            moments.append(clock.now())
        assert len(moments) == patches + 1
        intervals = [b - a for a, b in pairwise(moments)]
        first_chunk_s.append(intervals[0])
        stream_patch_s += intervals[1:]

    inside: list[dict[str, list[float]]] = []
    for _ in range(runs):
        clock.marks.clear()
        with marks_in(tts.tts_model, clock):
            clock.mark("start")
            tts.generate(**settings)
        inside.append(read_marks(clock.marks, patches))
    found = {name: median(value for run in inside for value in run[name]) for name in inside[0]}
    patch_s = found.pop("patch")
    prefill_s = found.pop("prefill")
    prefill_parts = {
        name: found.pop(f"prefill {name}") for name in ("locenc", "base_lm", "residual_lm")
    }
    found["vae_decode"] /= patches
    audio_s = len(audio) / tts.tts_model.sample_rate
    return {
        "patch_audio_s": audio_s / patches,
        "prefill_s": prefill_s,
        "prefill_parts_s": prefill_parts,
        "patch_s": patch_s,
        "patch_with_vae_s": patch_s + found["vae_decode"],
        "patches_per_s": 1 / patch_s,
        "parts_s": found,
        "first_chunk_s": median(first_chunk_s),
        "stream_patch_s": median(stream_patch_s),
        "generate_s": generate_s,
        "generate_rtf": generate_s / audio_s,
    }


def read_marks(marks: list[tuple[str, float]], patches: int) -> dict[str, list[float]]:
    """Seconds of every part of one generation, by name."""
    at: dict[str, list[float]] = {}
    for name, moment in marks:
        at.setdefault(name, []).append(moment)

    def spans(name: str, end: str | None = None) -> list[float]:
        return [b - a for a, b in zip(at[name], at[end or f"{name} end"], strict=True)]

    assert len(at["locdit"]) == patches
    # The first use of the projection is the prefill's.
    at["encoded patch"] = at["encoded"][1:]
    parts = {
        "base_lm": spans("base_lm"),
        "residual_lm": spans("residual_lm"),
        "locdit": spans("locdit"),
        "locenc": spans("locdit end", "encoded patch"),
    }
    patch = [b - a for a, b in pairwise(at["locdit"])]
    known = zip(*parts.values(), strict=True)
    return {
        "prefill": [at["locdit"][0] - at["start"][0]],
        "prefill locenc": [at["encoded"][0] - at["start"][0]],
        "prefill base_lm": spans("base_lm prefill"),
        "prefill residual_lm": spans("residual_lm prefill"),
        "patch": patch,
        **parts,
        # The last patch has no next one to end at.
        "rest": [whole - sum(each) for whole, each in zip(patch, known, strict=False)],
        "vae_decode": spans("vae_decode"),
    }


@torch.inference_mode()
def audio_vae(model: Any, runs: int, clock: Clock) -> dict[str, dict[str, float]]:
    """Seconds per second of audio of the AudioVAE's calls."""
    vae, device, patch_size = model.audio_vae, model.device, model.patch_size
    out_rate = getattr(vae, "out_sample_rate", vae.sample_rate)
    frames_per_s = vae.sample_rate / vae.chunk_size
    found = {}

    def record(name: str, seconds: list[float], audio_s: float) -> None:
        each = median(seconds)
        found[name] = {"seconds": each, "audio_s": audio_s, "rtf": each / audio_s}

    for duration_s in (10, 3):
        wave = 0.1 * torch.randn(1, 1, duration_s * vae.sample_rate, device=device)
        call = [
            clock.timed(lambda wave=wave: vae.encode(wave, vae.sample_rate))
            for _ in range(runs + 1)
        ]
        record(f"encode_{duration_s}s", call[1:], duration_s)

    latents = torch.randn(1, vae.latent_dim, DECODED_FRAMES, device=device)
    call = [clock.timed(lambda: vae.decode(latents)) for _ in range(runs + 1)]
    decoded_s = vae.decode(latents).shape[-1] / out_rate
    assert abs(decoded_s - DECODED_FRAMES / frames_per_s) < 1e-6
    record(f"decode_{DECODED_FRAMES}_frames", call[1:], decoded_s)

    patch_s = patch_size / frames_per_s
    num_chunks = runs * STREAMED_PATCHES + 1
    if hasattr(vae, "streaming_decode"):
        chunk = latents[..., :patch_size]
        with vae.streaming_decode() as decoder:
            call = [clock.timed(lambda: decoder.decode_chunk(chunk)) for _ in range(num_chunks)]
    else:
        chunk = latents[..., : REDECODED_PATCHES * patch_size]
        call = [clock.timed(lambda: vae.decode(chunk)) for _ in range(num_chunks)]
    record("decode_stream_patch", call[1:], patch_s)
    return found


def memory_gib(field: str) -> float:
    """VmHWM (peak) or VmRSS (now) of this process."""
    status = Path("/proc/self/status").read_text()
    match = re.search(rf"^{field}:\s+(\d+) kB", status, re.MULTILINE)
    return int(match[1]) * 1024 / GIB if match else float("nan")


def busy_s() -> tuple[float, float]:
    """CPU seconds that everything on this machine, and this process alone, have used so far."""
    ticks = [int(n) for n in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    idle = ticks[3] + ticks[4]
    return (sum(ticks) - idle) / os.sysconf("SC_CLK_TCK"), time.process_time()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--text", required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--patches", type=int, default=8)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    clock = Clock(options.device)

    started = clock.now()
    tts = VoxCPM.from_pretrained(
        str(options.checkpoint),
        load_denoiser=False,
        # The package compiles on CUDA alone.
        optimize=clock.is_cuda,
        device=options.device,
    )
    load_s = clock.now() - started
    load_peak_gib, loaded_gib = memory_gib("VmHWM"), memory_gib("VmRSS")
    # The peak of loading would hide that of running.
    Path("/proc/self/clear_refs").write_text("5")

    model = tts.tts_model
    started, (all_s, own_s) = time.perf_counter(), busy_s()
    generated = generation(tts, options.text, options.patches, options.runs, clock)
    vae_costs = audio_vae(model, options.runs, clock)
    wall_s, (all_now_s, own_now_s) = time.perf_counter() - started, busy_s()
    found = {
        "package": f"voxcpm {version('voxcpm')}",
        "architecture": type(model).__name__,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "transformers")},
        },
        "device": torch.cuda.get_device_name() if clock.is_cuda else options.device,
        "dtype": str(model.config.dtype),
        "threads": torch.get_num_threads(),
        # The start of audio follows the text.
        "num_positions": len(model.text_tokenizer(options.text)) + 1,
        "num_patches": options.patches,
        "load_s": load_s,
        **generated,
        "audio_vae": vae_costs,
        "busy_beside": max(0.0, (all_now_s - all_s) - (own_now_s - own_s)) / wall_s,
        "load_peak_gib": load_peak_gib,
        "loaded_gib": loaded_gib,
        "run_peak_gib": memory_gib("VmHWM"),
        "device_peak_gib": torch.cuda.max_memory_allocated() / GIB if clock.is_cuda else None,
    }
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
