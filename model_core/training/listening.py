"""Speech from a model in training, to be listened to."""

import copy
import logging
from pathlib import Path

import soundfile
import torch

from model_core.audio_vae import AudioVAE
from model_core.checkpoint import Checkpoint
from model_core.synthesis import Recording, SpeechRequest, Synthesizer
from model_core.tokenizer import TextTokenizer
from model_core.training.config import Line
from model_core.training.log import RunLog
from model_core.voxcpm import VoxCPM
from schemas.errors import VoxquarryError

logger = logging.getLogger(__name__)


def speak_lines(
    model: VoxCPM,
    vae: AudioVAE,
    tokenizer: Path,
    lines: tuple[Line, ...],
    folder: Path,
    log: RunLog,
    *,
    step: int,
    seed: int,
    device: torch.device,
) -> None:
    """Write each line as folder/NUMBER.wav, and to TensorBoard.

    model: a copy of its own, which is made ready for inference here; the AudioVAE is copied.
    A line that fails is logged: what a half-trained model does must not end its training.
    """
    with torch.random.fork_rng():
        parts = Checkpoint(
            model.to(device), copy.deepcopy(vae).to(device), TextTokenizer(tokenizer)
        )
        synthesizer = Synthesizer(parts)
        folder.mkdir(parents=True, exist_ok=True)
        for number, line in enumerate(lines, start=1):
            try:
                request = SpeechRequest(
                    text=line.text,
                    description=line.description,
                    reference=None if line.reference is None else _recording(line.reference),
                    seed=seed,
                )
                ((_, speech),) = synthesizer.speak([request])
            except (VoxquarryError, RuntimeError, OSError) as error:
                logger.warning("step %d: sample %d was not spoken: %s", step, number, error)
                log.write("unspoken", step, sample=number, reason=str(error))
                continue
            wave = speech.wave.nan_to_num().clamp(-1, 1)
            soundfile.write(folder / f"{number:02d}.wav", wave.numpy(), speech.sample_rate)
            log.audio(step, f"samples/{number:02d}", wave, speech.sample_rate)
            log.write(
                "spoken",
                step,
                sample=number,
                audio_s=len(wave) / speech.sample_rate,
                stopped=speech.stopped,
            )


def _recording(path: Path) -> Recording:
    wave, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return Recording(torch.from_numpy(wave.T.copy()), rate)
