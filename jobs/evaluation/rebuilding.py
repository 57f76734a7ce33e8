"""What an AudioVAE leaves of recordings: mel distance at 16 and 48 kHz, STOI, PESQ."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from jobs.evaluation.ledger import Ledger, units
from jobs.evaluation.rows import REBUILT, RebuiltRow
from jobs.evaluation.systems import System
from jobs.evaluation.utterances import Sound, Utterance
from jobs.settings import Settings
from model_core.audio import padded, resampled, voice_of
from model_core.audio_vae import AudioVAE
from model_core.checkpoint import load_vae
from model_core.vae_training.batches import HeldOutClip
from model_core.vae_training.evaluation import Judge, spoken
from model_core.vae_training.settings import MelConfig
from schemas.errors import ConfigError, DataError
from schemas.ids import content_id

# Raised when the same recording and checkpoint give other figures than before.
REBUILDING_VERSION = "1"
LOW, HIGH = 16_000, 48_000
_WIDE = 44_100
"""A recording of a lower rate says nothing of the upper half of the spectrum at 48 kHz."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rebuilding:
    """A recording and one checkpoint's AudioVAE."""

    sound: Sound
    row_id: str


def recordings_of(utterances: Sequence[Utterance], most: int) -> list[Sound]:
    """The recordings of the texts, else of the voices; each once, at most so many."""
    found: dict[str, Sound] = {}
    for one in utterances:
        sound = one.truth or one.voice
        if sound is not None:
            found.setdefault(sound.sound_id, sound)
    return list(found.values())[:most]


def rebuildings(recordings: Sequence[Sound], system: System) -> list[Rebuilding]:
    """What a checkpoint's AudioVAE has to do."""
    return [
        Rebuilding(
            sound=sound, row_id=content_id(REBUILDING_VERSION, sound.sound_id, system.model_hash)
        )
        for sound in recordings
    ]


def rebuild_missing(
    wanted: Sequence[Rebuilding],
    system: System,
    folder: Path,
    config: Settings,
    progress: Callable[[int], None],
) -> dict[str, RebuiltRow]:
    """Measure what was not measured yet; returns the rows of all, by id.

    folder: the system's. progress: hears how many recordings are done. Raises VoxquarryError.
    """
    ledger: Ledger[RebuiltRow] = Ledger(folder / "rebuilt", REBUILT)
    rows = ledger.rows(one.row_id for one in wanted)
    progress(len(rows))
    todo = [one for one in wanted if one.row_id not in rows]
    if not todo:
        return rows
    assert system.checkpoint is not None, "recordings are not rebuilt by themselves"
    device = torch.device(config.speaking.device)
    torch.set_num_threads(config.speaking.threads)
    vae = load_vae(system.checkpoint, device=device).fold_weight_norm()
    judge = Judge(MelConfig(), LOW, HIGH, device)
    for unit in units(todo, config.evaluate.unit):
        made = []
        for one in unit:
            try:
                made.append(rebuilt(one, vae, judge))
            except (DataError, ConfigError) as error:
                made.append(
                    RebuiltRow(row_id=one.row_id, error=type(error).__name__, message=str(error))
                )
            progress(1)
        ledger.add(made)
        rows |= {row.row_id: row for row in made}
    return rows


def rebuilt(one: Rebuilding, vae: AudioVAE, judge: Judge) -> RebuiltRow:
    """One recording through the AudioVAE and back. judge: at 16 and 48 kHz. Raises DataError."""
    recording = one.sound.read()
    wave = voice_of(recording.wave, recording.sample_rate, one.sound.name)
    config = vae.config
    heard, target = (
        padded(resampled(wave, recording.sample_rate, rate, v2=True), hop, "right")
        for rate, hop in (
            (config.sample_rate, config.hop),
            (config.out_sample_rate, config.out_hop),
        )
    )
    told = min(recording.sample_rate, config.out_sample_rate)
    back = spoken(vae, HeldOutClip(one.row_id, heard, target, told))
    # Without what was padded, and at the rates at which all AudioVAEs are compared.
    length_s = len(wave) / recording.sample_rate
    low, high = (resampled(wave, recording.sample_rate, rate, v2=True) for rate in (LOW, HIGH))
    ours = resampled(back, config.out_sample_rate, HIGH, v2=True)[: int(length_s * HIGH)]
    clip = HeldOutClip(one.row_id, low, high[: len(ours)], told)
    scores = judge.scores(clip, ours, perceptual=True)
    return RebuiltRow(
        row_id=one.row_id,
        mel_16k=scores.mel_heard,
        mel_48k=scores.mel if recording.sample_rate >= _WIDE else None,
        stoi=scores.stoi,
        pesq=scores.pesq,
    )
