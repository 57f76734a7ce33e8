"""What a checkpoint makes of the utterances: one attempt each, as `voxquarry speak` would make it."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from annotators.cloner import DTYPES
from annotators.languages import base_code
from annotators.text import WITHOUT_SPACES
from jobs.evaluation.config import EvaluateConfig
from jobs.evaluation.ledger import Ledger, units
from jobs.evaluation.rows import SPOKEN, SpokenRow
from jobs.evaluation.systems import System, safe_name
from jobs.evaluation.utterances import Utterance
from jobs.settings import Settings
from jobs.speak import write_wave
from model_core.checkpoint import load_checkpoint, read_config
from model_core.flow_matching import SolverConfig
from model_core.synthesis import Speech, SpeechRequest, Synthesizer
from schemas.errors import ConfigError, DataError, NonFiniteAudio
from schemas.ids import content_id

# Raised when the same utterance, checkpoint and settings give other speech than before.
SPEAKING_VERSION = "1"
AUDIO = "audio"


@dataclass(frozen=True, kw_only=True, slots=True)
class Saying:
    """An utterance in one checkpoint's mouth."""

    utterance: Utterance
    row_id: str
    seed: int
    file: str


def sayings(utterances: Sequence[Utterance], system: System, config: Settings) -> dict[str, Saying]:
    """What a checkpoint has to say, by the key of its utterance. Raises ModelLoadError."""
    assert system.checkpoint is not None, "recordings are not spoken"
    voice = voice_of(config.evaluate, takes_reference=read_config(system.checkpoint).is_v2)
    how = config.speaking
    found = {}
    for one in utterances:
        seed = int(content_id(config.evaluate.seed, one.key)[:15], 16)
        row_id = content_id(
            *(SPEAKING_VERSION, one.key, system.model_hash, voice, seed),
            *(how.num_steps, str(how.cfg), how.dtype),
        )
        file = f"{AUDIO}/{safe_name(one.utterance_id)}-{row_id[:12]}.wav"
        found[one.key] = Saying(utterance=one, row_id=row_id, seed=seed, file=file)
    return found


def voice_of(config: EvaluateConfig, *, takes_reference: bool) -> str:
    """`reference`, `prompt` or `both`."""
    if config.voice != "auto":
        return config.voice
    return "reference" if takes_reference else "prompt"


def speak_missing(
    said: Sequence[Saying],
    system: System,
    folder: Path,
    config: Settings,
    progress: Callable[[int], None],
) -> dict[str, SpokenRow]:
    """Say what was not said yet; returns the rows of all, by id.

    folder: the system's. progress: hears how many utterances are done. Raises VoxquarryError.
    """
    ledger: Ledger[SpokenRow] = Ledger(folder / "spoken", SPOKEN)
    rows = {
        row_id: row
        for row_id, row in ledger.rows(one.row_id for one in said).items()
        if row.file is None or (folder / row.file).is_file()
    }
    progress(len(rows))
    todo = [one for one in said if one.row_id not in rows]
    if not todo:
        return rows
    speaker = Speaker(system, config)
    (folder / AUDIO).mkdir(parents=True, exist_ok=True)
    for unit in units(todo, config.evaluate.unit):
        made = speaker.spoken(unit, folder)
        ledger.add(made)
        rows |= {row.row_id: row for row in made}
        progress(len(unit))
    return rows


class Speaker:
    """An opened checkpoint that says utterances."""

    def __init__(self, system: System, config: Settings) -> None:
        """Raises ModelLoadError."""
        assert system.checkpoint is not None, "recordings are not spoken"
        how = config.speaking
        torch.set_num_threads(how.threads)
        checkpoint = load_checkpoint(system.checkpoint, device=how.device, dtype=DTYPES[how.dtype])
        self._synthesizer = Synthesizer(
            checkpoint,
            solver=SolverConfig(num_steps=how.num_steps, cfg=how.cfg),
            batch_size=how.batch_size,
        )
        takes_reference = checkpoint.model.config.is_v2
        self._voice = voice_of(config.evaluate, takes_reference=takes_reference)
        self._warm = False

    def spoken(self, unit: Sequence[Saying], folder: Path) -> list[SpokenRow]:
        """Say some utterances together and write their sound below `folder`."""
        began = time.perf_counter()
        requests: list[tuple[Saying, SpeechRequest]] = []
        failed: list[tuple[Saying, Exception]] = []
        # What is likely to take longest begins first, so that none is left alone at the end.
        for one in sorted(unit, key=lambda one: (-len(one.utterance.text), one.row_id)):
            try:
                requests.append((one, self._request(one)))
            except (DataError, ConfigError) as error:
                failed.append((one, error))
        preparing_s = time.perf_counter() - began
        if requests and not self._warm:
            # What is made once per process is no part of the speed.
            list(self._synthesizer.speak([replace(requests[0][1], max_patches=2)]))
            self._warm = True
        began = time.perf_counter()
        speeches: list[tuple[Saying, Speech]] = [
            (requests[number][0], speech)
            for number, speech in self._synthesizer.speak(request for _, request in requests)
        ]
        unit_s = preparing_s + time.perf_counter() - began
        sure: list[tuple[Saying, Speech]] = []
        for one, speech in speeches:
            if speech.wave.isfinite().all():
                sure.append((one, speech))
            else:
                failed.append((one, NonFiniteAudio("the speech holds NaN or infinity")))
        together = {
            "unit": content_id(*(one.row_id for one in unit)),
            "unit_s": unit_s,
            "unit_audio_s": sum(len(s.wave) / s.sample_rate for _, s in sure),
        }
        rows = []
        for one, speech in sure:
            wave = np.clip(speech.wave.numpy(), -1.0, 1.0)
            write_wave(folder / one.file, wave, speech.sample_rate, "WAV")
            rows.append(
                SpokenRow(
                    row_id=one.row_id,
                    file=one.file,
                    duration_s=len(wave) / speech.sample_rate,
                    seed=one.seed,
                    num_attempts=speech.num_attempts,
                    stopped=speech.stopped,
                    **together,  # type: ignore[arg-type]
                )
            )
        for one, why in failed:
            rows.append(
                SpokenRow(
                    row_id=one.row_id,
                    seed=one.seed,
                    error=type(why).__name__,
                    message=str(why),
                    **together,  # type: ignore[arg-type]
                )
            )
        return rows

    def _request(self, saying: Saying) -> SpeechRequest:
        """Raises DataError or ConfigError where it cannot be said."""
        one, synthesizer = saying.utterance, self._synthesizer
        recording = one.voice.read() if one.voice else None
        reference = prompt = None
        if recording is not None and self._voice in ("reference", "both"):
            reference = synthesizer.encode_reference(recording)
        if recording is not None and self._voice in ("prompt", "both"):
            prompt = synthesizer.encode_prompt(recording)
        parted = base_code(one.language) not in WITHOUT_SPACES
        request = SpeechRequest(
            # One string with the prompt's text: words part where the language parts them.
            text=f" {one.text}" if prompt is not None and parted else one.text,
            description=one.description,
            reference=reference,
            prompt=prompt,
            prompt_text=None if prompt is None else one.voice_text or "",
            seed=saying.seed,
        )
        synthesizer.prepare(request)
        return request
