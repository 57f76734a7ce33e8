"""What recogniser, speaker encoder, DNSMOS and experts make of speech: those of the curate phase."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl

from annotators.expert import Expert
from annotators.languages import base_code
from annotators.registry import resolve
from annotators.silero import Silero, speech_spans
from annotators.text import error_count
from jobs.annotate import measuring_fingerprint
from jobs.clone import open_judges
from jobs.evaluation.ledger import Ledger, units
from jobs.evaluation.rows import JUDGED, JudgedRow
from jobs.evaluation.utterances import Sound, Utterance, mono
from jobs.settings import Settings
from schemas.arrow import ATTRIBUTES
from schemas.attributes import HeardClip, Level, Traits
from schemas.errors import ConfigError, DataError, EmptyAudio, NonFiniteAudio
from schemas.ids import content_id
from schemas.rows import Wave, Word
from stages.acoustics import attributes_of
from stages.experts import judged, open_experts
from stages.judging import MODEL_RATE, Judges, at_model_rate, cosine_of, loudest_dbfs
from stages.traits import traits_of

# Raised when the same speech and judges give other figures than before.
JUDGING_VERSION = "1"


@dataclass(frozen=True, kw_only=True, slots=True)
class Heard:
    """An utterance as it sounds."""

    utterance: Utterance
    row_id: str
    sound: Sound
    """Spoken, or recorded."""


@dataclass(kw_only=True, slots=True)
class _Listened:
    """An utterance, decoded, on its way past the judges."""

    heard: Heard
    wave: Wave = field(repr=False)
    rate: int
    wave_16k: Wave = field(repr=False)
    voice_16k: Wave | None = field(repr=False)
    row: JudgedRow
    words: tuple[Word, ...] = ()


def judges_fingerprint(config: Settings) -> str:
    """Of the models that judge and how they are asked. Raises ModelLoadError."""
    asr = config.transcription
    models = (asr.model, config.speaker.model, config.dnsmos.model, config.vad.model)
    return content_id(
        JUDGING_VERSION,
        *(resolve(name).hash for name in models),
        *(asr.beam_size, asr.compute_type, str(config.judging.silence_dbfs)),
        *(str(config.vad), measuring_fingerprint(config.experts)),
    )


def judged_id(utterance: Utterance, sound_id: str, judges: str, levels: Sequence[Level]) -> str:
    """Of all that a verdict on an utterance depends on. judges: their fingerprint."""
    scale = str(levels) if utterance.description else ""
    return content_id(utterance.key, sound_id, judges, scale)


def judge_missing(
    heard: Sequence[Heard],
    folder: Path,
    panel: "Panel",
    levels: Callable[[Utterance], Sequence[Level]],
    progress: Callable[[int], None],
) -> dict[str, JudgedRow]:
    """Judge what was not judged yet; returns the rows of all, by id.

    folder: the system's. levels: where the words of an utterance's description begin. progress:
    hears how many utterances are done. Raises VoxquarryError.
    """
    ledger: Ledger[JudgedRow] = Ledger(folder / "judged", JUDGED)
    rows = ledger.rows(one.row_id for one in heard)
    progress(len(rows))
    todo = [one for one in heard if one.row_id not in rows]
    for unit in units(todo, panel.config.evaluate.unit):
        made = panel.judged(unit, levels)
        ledger.add(made)
        rows |= {row.row_id: row for row in made}
        progress(len(unit))
    return rows


class Panel:
    """The judges of all systems, opened when there is something to judge."""

    def __init__(self, config: Settings) -> None:
        self.config = config

    @cached_property
    def _judges(self) -> Judges:
        config = self.config
        return open_judges(config.transcription, config.dnsmos, config.speaker)

    @cached_property
    def _experts(self) -> list[Expert]:
        return open_experts(self.config.experts)

    @cached_property
    def _vad(self) -> Silero:
        vad = self.config.vad
        return Silero(resolve(vad.model).path, threads=vad.threads)

    def judged(
        self, unit: Sequence[Heard], levels: Callable[[Utterance], Sequence[Level]]
    ) -> list[JudgedRow]:
        """A row for each utterance, in their order. Raises ModelLoadError."""
        rows: dict[str, JudgedRow] = {}
        listened: list[_Listened] = []
        for one in unit:
            try:
                listened.append(self._listened(one))
            except (DataError, ConfigError) as error:
                rows[one.row_id] = JudgedRow(
                    row_id=one.row_id, error=type(error).__name__, message=str(error)
                )
        self._read(listened)
        audible = [one for one in listened if one.row.audible]
        self._compare(audible)
        scores = self._judges.quality.score([one.wave_16k for one in audible])
        for hears, score in zip(audible, scores, strict=True):
            hears.row = replace(
                hears.row,
                dnsmos_sig=score.sig,
                dnsmos_bak=score.bak,
                dnsmos_ovrl=score.ovrl,
                dnsmos_p808=score.p808,
            )
        self._describe(audible, levels)
        rows |= {hears.row.row_id: hears.row for hears in listened}
        return [rows[one.row_id] for one in unit]

    def _listened(self, heard: Heard) -> _Listened:
        """Raises DataError or ConfigError for what cannot be heard."""
        wave, rate = _wave(heard.sound)
        low = at_model_rate(wave, rate)
        voice = heard.utterance.voice
        return _Listened(
            heard=heard,
            wave=wave,
            rate=rate,
            wave_16k=low,
            voice_16k=at_model_rate(*_wave(voice)) if voice else None,
            row=JudgedRow(
                row_id=heard.row_id,
                audible=loudest_dbfs(low) >= self.config.judging.silence_dbfs,
            ),
        )

    def _read(self, listened: Sequence[_Listened]) -> None:
        """Words and errors, in batches of one language."""
        asr = self._judges.asr
        for language in dict.fromkeys(base_code(one.heard.utterance.language) for one in listened):
            if language is not None and not asr.knows(language):
                continue
            mine = [o for o in listened if base_code(o.heard.utterance.language) == language]
            audible = [one for one in mine if one.row.audible]
            # Each alone: beside others a poor one would be read the better.
            texts = asr.transcribe([one.wave_16k for one in audible], language, alone=True)
            for one, text in zip(audible, texts, strict=True):
                one.row = replace(one.row, text_heard=text.text)
                one.words = text.words
            for one in mine:
                # A recogniser invents words for silence; it says none.
                text_heard = one.row.text_heard or ""
                count = error_count(one.heard.utterance.text, text_heard, language)
                one.row = replace(
                    one.row, text_heard=text_heard, errors=count.errors, units=count.units
                )

    def _compare(self, audible: Sequence[_Listened]) -> None:
        """Cosines to the voices that were given."""
        given = [(one, one.voice_16k) for one in audible if one.voice_16k is not None]
        ours = self._judges.voices.embed([one.wave_16k for one, _ in given])
        theirs = self._judges.voices.embed([voice for _, voice in given])
        for (one, _), own, voice in zip(given, ours, theirs, strict=True):
            one.row = replace(one.row, similarity=cosine_of(own.embedding, voice.embedding))

    def _describe(
        self, audible: Sequence[_Listened], levels: Callable[[Utterance], Sequence[Level]]
    ) -> None:
        """How described utterances were said, on the levels of their corpus."""
        for one in audible:
            scale = levels(one.heard.utterance)
            if one.heard.utterance.description and scale:
                one.row = replace(one.row, traits=self._traits(one, scale))

    def _traits(self, one: _Listened, levels: Sequence[Level]) -> Traits:
        vad = self.config.vad
        speech = speech_spans(
            self._vad.probs(one.wave_16k),
            duration_s=one.wave_16k.size / MODEL_RATE,
            threshold=vad.threshold,
            min_speech_s=vad.min_speech_s,
            min_silence_s=vad.min_silence_s,
            pad_s=vad.pad_s,
        )
        clip = HeardClip(
            clip_id=one.row.row_id,
            attempt=1,
            wave=one.wave,
            sample_rate=one.rate,
            wave_16k=one.wave_16k,
            speech=speech,
            words=one.words,
        )
        (clip,) = judged([replace(clip, attributes=attributes_of(clip))], self._experts)
        letters = sum(char.isalnum() for char in one.row.text_heard or one.heard.utterance.text)
        speech_s = sum(span.end_s - span.start_s for span in speech)
        frame = pl.from_arrow(ATTRIBUTES.to_arrow([clip.attributes]).replace_schema_metadata())
        assert isinstance(frame, pl.DataFrame)
        # Nobody else's speech is beside it: arousal is measured against the corpus.
        frame = frame.with_columns(
            language=pl.lit(base_code(one.heard.utterance.language), pl.String),
            chars_per_s=pl.lit(letters / speech_s if speech_s else None, pl.Float64),
            snr_db=pl.lit(None, pl.Float64),
            speaker=pl.lit(None, pl.String),
            session_id="clip_id",
        )
        (row,) = traits_of(frame, levels, share=1.0).to_dicts()
        return Traits(**row)


def _wave(sound: Sound) -> tuple[Wave, int]:
    """(S,) and hertz. Raises DataError, or ConfigError where it is too long."""
    recording = sound.read()
    wave = mono(recording)
    if not wave.size:
        raise EmptyAudio(f"{sound.name} has no samples")
    if not np.isfinite(wave).all():
        raise NonFiniteAudio(f"{sound.name} holds NaN or infinity")
    return wave, recording.sample_rate
