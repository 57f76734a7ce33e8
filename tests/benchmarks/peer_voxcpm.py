"""The peer of the model core: the official voxcpm package, in an environment of its own.

The package asks for 24 others, most of them for its demo and its denoiser. It is installed without
them, and beside it only what loading, generating and training import; none of what is left out runs
when audio is generated or a step is trained.
"""

import json
import subprocess
import time
import venv
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path

from tests.benchmarks.peers import PeerUnavailable, own_environment, run_program

VERSION = "2.0.3"
# The libraries that do the work are those that our core runs on.
SHARED = ("torch", "torchaudio")
NEEDED = (
    "argbind==0.3.9",
    "datasets==5.2.0",
    "einops==0.8.2",
    "huggingface-hub==2.4.0",
    "librosa==0.11.0",
    "numpy==2.4.6",
    "pydantic==2.14.3",
    "safetensors==0.8.0",
    "soundfile==0.14.0",
    "tqdm==4.70.1",
    "transformers==5.23.0",
)
SCRIPT = Path(__file__).with_name("peer_voxcpm_run.py")

NUM_POSITIONS = 100
TEXT = " ".join(["the quick brown fox jumps over the lazy dog"] * 11)
"""99 tokens in the vocabulary of random_checkpoint, and the start of audio makes 100 positions."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PeerSettings:
    """What is timed. cfg 2.0 and 10 solver steps, the package's defaults, are fixed."""

    text: str = TEXT
    device: str = "cpu"
    """As torch names it; on `cuda` the package compiles its modules."""
    threads: int = 2
    num_patches: int = 8
    """Generated per request; the loop never stops before."""
    num_runs: int = 3
    """Repetitions under each median."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VaeCost:
    """One kind of AudioVAE call, fp32."""

    seconds: float
    audio_s: float
    rtf: float


@dataclass(frozen=True, kw_only=True, slots=True)
class PeerFigures:
    """What the official package takes on one checkpoint; seconds are medians."""

    package: str
    architecture: str
    versions: Mapping[str, str]
    device: str
    dtype: str
    threads: int
    num_positions: int
    """Prefilled: text tokens and the start of audio."""
    num_patches: int
    patch_audio_s: float
    """Audio in a patch."""
    load_s: float
    prefill_s: float
    """From the call to the first solver call: tokens, LocEnc, both LMs over all positions."""
    prefill_parts_s: Mapping[str, float]
    """locenc (with tokenising), base_lm, residual_lm."""
    patch_s: float
    """One patch without AudioVAE: from one solver call to the next."""
    patch_with_vae_s: float
    """With its share of decoding all patches at once."""
    patches_per_s: float
    """The package takes one request at a time, so this also holds for many that wait."""
    parts_s: Mapping[str, float]
    """Per patch: base_lm, residual_lm, locdit (the solver), locenc, rest; and vae_decode."""
    first_chunk_s: float
    """From a streaming request to its first audio."""
    stream_patch_s: float
    """From one streamed chunk to the next, AudioVAE included."""
    generate_s: float
    """One whole request, prefill and AudioVAE included."""
    generate_rtf: float
    audio_vae: Mapping[str, VaeCost]
    """encode_10s, encode_3s, decode_250_frames, decode_stream_patch."""
    busy_beside: float
    """Cores that other processes kept busy meanwhile; from 0.2 on the figures are not clean."""
    load_peak_gib: float
    """Resident memory at most while loading, then after it, then at most while running."""
    loaded_gib: float
    run_peak_gib: float
    device_peak_gib: float | None
    """None on a CPU."""


def prepare(environment: Path) -> float:
    """Make the environment unless it is there; seconds that took. Raises PeerUnavailable."""
    started = time.perf_counter()
    done = environment / f"voxcpm-{VERSION}.installed"
    wanted = [*(f"{name}=={version(name).partition('+')[0]}" for name in SHARED), *NEEDED]
    if done.is_file() and done.read_text().split() == wanted:
        return 0.0
    try:
        venv.create(environment, with_pip=True, clear=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise PeerUnavailable(f"its environment: {error}") from error
    pip = [str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    needed_log, package_log = environment / "install-needed.log", environment / "install.log"
    package = f"voxcpm=={VERSION}"
    run_program([*pip, *wanted], needed_log, "pip install", own_environment())
    run_program([*pip, "--no-deps", package], package_log, f"install {package}", own_environment())
    done.write_text("\n".join(wanted))
    return time.perf_counter() - started


def measure(
    checkpoint: Path, environment: Path, work: Path, settings: PeerSettings | None = None
) -> PeerFigures:
    """Time the package on a checkpoint folder, making its environment first if need be.

    Its log goes to `work`. Raises PeerUnavailable when it does not install or does not run.
    """
    settings = settings or PeerSettings()
    prepare(environment)
    work.mkdir(parents=True, exist_ok=True)
    command = [
        str(environment / "bin" / "python"),
        # Without this the benchmark's own modules would come before installed ones.
        "-P",
        str(SCRIPT),
        str(checkpoint),
        f"--text={settings.text}",
        f"--device={settings.device}",
        f"--threads={settings.threads}",
        f"--patches={settings.num_patches}",
        f"--runs={settings.num_runs}",
    ]
    # A setting of the caller's shell must not change what is compared.
    plain = {k: v for k, v in own_environment().items() if not k.endswith("_NUM_THREADS")}
    output = run_program(
        command,
        work / f"voxcpm-{checkpoint.name}.log",
        SCRIPT.name,
        plain | {"HF_HUB_OFFLINE": "1"},
    )
    return parse(output)


def parse(output: str) -> PeerFigures:
    """The figures in the last line of the script's output."""
    lines = output.strip().splitlines()
    try:
        found = json.loads(lines[-1])
        names = {field.name for field in fields(PeerFigures)}
        if not isinstance(found, dict) or set(found) != names:
            raise ValueError(f"expected an object with {', '.join(sorted(names))}")
        costs = {name: VaeCost(**cost) for name, cost in found["audio_vae"].items()}
    except (IndexError, TypeError, ValueError) as error:
        raise PeerUnavailable(f"{SCRIPT.name} printed no figures: {error}") from error
    return PeerFigures(**{**found, "audio_vae": costs})
