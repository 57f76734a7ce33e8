"""`voxquarry speak`: one utterance from a checkpoint to a sound file."""

import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
from rich.console import Console

from annotators.registry import checkpoint_folder
from model_core.checkpoint import load_checkpoint
from model_core.flow_matching import SolverConfig
from model_core.lora import load_lora, merge_lora
from model_core.synthesis import Recording, SpeechRequest, Synthesizer
from pipeline.decoders import open_decoder
from schemas.errors import ConfigError, EmptyAudio

LONGEST_VOICE_S = 300.0
"""Seconds; a longer reference or prompt is a mistake, and would not fit the model's positions."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SpeakConfig:
    """What to say, in whose voice, and where it goes."""

    checkpoint: str
    """A folder, or a repository on the model hub."""
    text: str
    output: Path
    describe: str | None = None
    reference: str | None = None
    prompt: str | None = None
    prompt_text: str | None = None
    lora: Path | None = None
    seed: int | None = None
    num_steps: int = 10
    cfg: float = 2.0


def speak(config: SpeakConfig, console: Console) -> None:
    """Write the utterance and say how long it took. Raises VoxquarryError; then nothing is written."""
    container = checked_container(config.output)
    solver = SolverConfig(num_steps=config.num_steps, cfg=config.cfg)
    # Drawn here and not below: told again, it repeats every attempt, and not the last one first.
    seed = secrets.randbits(32) if config.seed is None else config.seed
    request = SpeechRequest(
        text=config.text,
        description=config.describe,
        reference=read_voice(config.reference),
        prompt=read_voice(config.prompt),
        prompt_text=config.prompt_text,
        seed=seed,
    )
    with console.status("Loading the checkpoint"):
        device = "cuda" if torch.cuda.is_available() else "cpu"
        checkpoint = load_checkpoint(checkpoint_folder(config.checkpoint), device=device)
        if config.lora is not None:
            load_lora(checkpoint.model, config.lora)
            merge_lora(checkpoint.model)
        synthesizer = Synthesizer(checkpoint, solver=solver, batch_size=1)
    with console.status("Reading text and voices") as status:
        begin, made_s = time.perf_counter(), 0.0

        def on_step(seconds: float) -> None:
            nonlocal made_s
            made_s += seconds
            status.update(f"Speaking: {made_s:.1f} s in {time.perf_counter() - begin:.0f} s")

        [(_, speech)] = synthesizer.speak([request], on_step=on_step)
        elapsed_s = time.perf_counter() - begin
    write_wave(config.output, speech.wave.numpy(), speech.sample_rate, container)
    duration_s = len(speech.wave) / speech.sample_rate
    console.print(
        f"{config.output}: {duration_s:.2f} s at {speech.sample_rate} Hz, seed {seed}, "
        f"in {elapsed_s:.1f} s (real-time factor {elapsed_s / duration_s:.2f})",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    if not speech.stopped:
        console.print(
            f"The model did not end by itself in {speech.num_attempts} attempts; the speech was "
            "cut at the longest that its text allows.",
            style="yellow",
            highlight=False,
            soft_wrap=True,
        )


def checked_container(file: Path) -> str:
    """The container that a file's name asks for.

    Raises ConfigError for a name that asks for none, or a place that cannot be written: better now
    than after minutes of work.
    """
    container = file.suffix.removeprefix(".").upper()
    if container not in soundfile.available_formats() or container == "RAW":
        raise ConfigError(f"{file}: the name must end in .wav, .flac or the like")
    if not file.absolute().parent.is_dir():
        raise ConfigError(f"the folder of {file} does not exist")
    try:
        if file.is_dir():
            raise ConfigError(f"{file} is a folder; give the name of a sound file")
        _aside(file).touch()
        _aside(file).unlink()
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror}") from error
    return container


def read_voice(uri: str | None) -> Recording | None:
    """A reference or prompt, whole. Raises DataError for what cannot be read."""
    if uri is None:
        return None
    with open_decoder(uri) as decoder:
        rate = decoder.sample_rate
        blocks = list(decoder.blocks(0, int(LONGEST_VOICE_S * rate) + 1))
    wave = np.concatenate(blocks) if blocks else np.zeros((0, 1), np.float32)
    if not wave.size:
        raise EmptyAudio(f"{uri} decodes to no samples")
    if len(wave) > LONGEST_VOICE_S * rate:
        raise ConfigError(f"{uri} is longer than {LONGEST_VOICE_S:.0f} s; cut a voice sample first")
    return Recording(torch.from_numpy(wave.T.copy()), rate)


def write_wave(file: Path, wave: np.ndarray, sample_rate: int, container: str) -> None:
    """Write beside and rename, so that a half-written file is never taken for a whole one.

    Raises ConfigError when it cannot be written there.
    """
    aside = _aside(file)
    try:
        soundfile.write(aside, wave, sample_rate, format=container)
        aside.replace(file)
    except (OSError, soundfile.LibsndfileError) as error:
        why = error.strerror if isinstance(error, OSError) else error.error_string
        raise ConfigError(f"{file} cannot be written: {why}") from error
    finally:
        aside.unlink(missing_ok=True)


def _aside(file: Path) -> Path:
    return file.with_name(f".{file.name}.{os.getpid()}.tmp")
