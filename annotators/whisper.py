"""Speech recognition with word times by Whisper on CTranslate2 (faster-whisper).

Differs from `WhisperModel.transcribe` where that costs time or words on short clips:

- clips of one recording share a 30 s window (`annotators.packing`);
- text is decoded without timestamp tokens: with them the model skips clips after a pause (WER
  of packed clean English 4.3 % against 1.0 %), and seeks again over what it has read;
- there is no sampling at higher temperatures, so that a second run gives the same text;
- a clip's confidence is that of its own words, from the alignment pass.

A clip that came out badly in company is read again on its own.
Source: Radford et al., "Robust speech recognition via large-scale weak supervision", 2022;
word times by dynamic time warping over cross-attention as in the authors' release.
"""

import json
import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from annotators.packing import (
    SAMPLE_RATE,
    PackedWindow,
    Piece,
    owners_of,
    pack,
    pieces_of,
    placed,
    window_of,
)
from annotators.tokens import TimedWord, Token, timed_words
from schemas.errors import ModelLoadError
from schemas.rows import Wave, Word

_WINDOW_S = 29.6
_MAX_COMPRESSION = 2.4
_MIN_LOGPROB = -1.0
_LONG_WORD_S = 2.0
_MAX_TOKENS_PER_S = 12
_SURE_LANGUAGE = 0.8
_ENGLISH_TOKENS = 51_864
"""Of the English-only models' vocabulary; every other one has more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Transcription:
    """What was said in one clip."""

    text: str
    words: tuple[Word, ...]
    """Times in seconds from the start of the clip."""
    avg_logprob: float | None
    """Mean log probability of the clip's tokens; None without words."""
    no_speech_prob: float
    """Of the window that held the clip."""
    compression_ratio: float
    """Bytes of text over bytes of zlib: high when a phrase repeats."""
    language: str
    language_prob: float | None
    """None when the language was declared or the model knows only one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Read:
    """One piece as it was read."""

    words: tuple[TimedWord, ...]
    no_speech_prob: float
    language: str
    language_prob: float | None
    suspect: bool


class Whisper:
    """A Whisper model in CTranslate2's format."""

    def __init__(
        self,
        path: Path,
        *,
        device: str = "cpu",
        compute_type: str = "auto",
        threads: int = 1,
        beam_size: int = 5,
        batch_size: int = 4,
        gap_s: float = 0.3,
    ) -> None:
        """path: model folder. compute_type: `auto` is int8 on CPU, float16 on CUDA.

        batch_size: windows decoded at once. gap_s: silence between clips of a window.
        Raises ModelLoadError.
        """
        from faster_whisper import WhisperModel

        if not (path / "model.bin").is_file():
            raise ModelLoadError(f"{path} is not a CTranslate2 model folder: it lacks model.bin")
        if not (path / "tokenizer.json").is_file():
            raise ModelLoadError(f"{path} lacks tokenizer.json")
        if compute_type == "auto":
            compute_type = "float16" if device == "cuda" else "int8"
        try:
            self._model: Any = WhisperModel(
                str(path),
                device=device,
                compute_type=compute_type,
                cpu_threads=threads,
                num_workers=1,
            )
        except (RuntimeError, ValueError) as error:
            raise ModelLoadError(f"{path} does not open as a Whisper model: {error}") from error
        self._on_cpu = device == "cpu"
        self._beam = beam_size
        self._batch = batch_size
        self._gap_s = gap_s
        self._tokenizers: dict[str, Any] = {}

    @property
    def multilingual(self) -> bool:
        """False for the English-only models."""
        return bool(self._model.model.is_multilingual)

    def knows(self, language: str) -> bool:
        """Whether the model reads the language (ISO 639-1)."""
        return language in self._model.supported_languages

    def transcribe(
        self, segments: Sequence[Wave], language: str | None = None, *, alone: bool = False
    ) -> list[Transcription]:
        """Transcribe neighbouring clips of one recording, in order of time.

        segments: (samples,) each, at 16 kHz, of any length. language: ISO 639-1, or None to
        detect it for each window; an English-only model reads everything as English.
        alone: each clip has its windows to itself, for clips that have nothing to do with another.
        """
        if not self.multilingual:
            language = "en"
        pieces = [p for i, wave in enumerate(segments) for p in pieces_of(i, wave, _WINDOW_S)]
        if alone:
            windows = [window_of([piece]) for piece in pieces]
        else:
            windows = pack(pieces, max_s=_WINDOW_S, gap_s=self._gap_s)
        reads = list(self._read(windows, language))
        lone = [i for i, read in enumerate(reads) if read.suspect]
        again = self._read([window_of([pieces[i]]) for i in lone], language)
        for i, read in zip(lone, again, strict=True):
            reads[i] = read
        by_clip: list[list[tuple[Piece, _Read]]] = [[] for _ in segments]
        for piece, read in zip(pieces, reads, strict=True):
            by_clip[piece.clip].append((piece, read))
        return [_joined(parts) for parts in by_clip]

    def _read(self, windows: Sequence[PackedWindow], language: str | None) -> Iterator[_Read]:
        """One `_Read` for each piece of each window, in order."""
        for start in range(0, len(windows), self._batch):
            yield from self._read_batch(windows[start : start + self._batch], language)

    def _read_batch(self, windows: Sequence[PackedWindow], language: str | None) -> Iterator[_Read]:
        features = [self._features(window.wave) for window in windows]
        singles, encoded = self._encode(features)
        languages: list[tuple[str, float | None]] = [(language or "", None)] * len(windows)
        if self.multilingual:
            found = self._model.model.detect_language(encoded)
            languages = [_language_of(probs, language) for probs in found]
        tokenizers = [self._tokenizer(code) for code, _ in languages]
        results = self._model.model.generate(
            encoded,
            [self._model.get_prompt(own, [], without_timestamps=True) for own in tokenizers],
            beam_size=self._beam,
            max_length=min(self._model.max_length, _most_tokens(windows)),
            return_no_speech_prob=True,
            suppress_tokens=self._suppressed(languages[0][0]),
        )
        for i, (window, result, own) in enumerate(zip(windows, results, tokenizers, strict=True)):
            ids = [token for token in result.sequences_ids[0] if token < own.eot]
            words = self._align(singles[i], own, ids, window.wave.size)
            yield from _assigned(window, words, float(result.no_speech_prob), *languages[i])

    def _features(self, wave: Wave) -> Any:
        extractor = self._model.feature_extractor
        # The extractor reflects at its ends and so needs more than half a frame.
        features = extractor(np.pad(wave, (0, max(0, 400 - wave.size))))[..., :-1]
        width = extractor.nb_max_frames
        features = features[..., :width]
        return np.pad(features, ((0, 0), (0, width - features.shape[-1])))

    def _encode(self, features: Sequence[Any]) -> tuple[list[Any], Any]:
        """Each window's (1, 1500, dim), and all of them as (windows, 1500, dim).

        Encoded one by one, since a batch falls out of a core's caches; decoded together, since
        there a batch saves reading the weights once per token and beam.
        """
        singles = [self._model.encode(one) for one in features]
        if len(singles) == 1:
            return singles, singles[0]
        if not self._on_cpu:
            return singles, self._model.encode(np.stack(features))
        from ctranslate2 import StorageView

        return singles, StorageView.from_array(np.concatenate([np.array(s) for s in singles]))

    def _align(
        self, encoded: Any, tokenizer: Any, ids: list[int], num_samples: int
    ) -> list[TimedWord]:
        if not ids:
            return []
        frames = min(3000, max(2, num_samples // 160))
        (result,) = self._model.model.align(
            encoded, tokenizer.sot_sequence, [ids], frames, median_filter_width=7
        )
        step_s = 0.02
        begins: dict[int, int] = {}
        for token, frame in result.alignments:
            begins.setdefault(token, frame)
        stops = [*(begins[i] for i in range(1, len(ids))), begins.get(len(ids), frames // 2)]
        tokens = [
            Token(id=token, start_s=begins[i] * step_s, end_s=stops[i] * step_s, prob=float(prob))
            for i, (token, prob) in enumerate(zip(ids, result.text_token_probs, strict=True))
        ]
        return timed_words(tokens, tokenizer)

    def _tokenizer(self, language: str) -> Any:
        if language not in self._tokenizers:
            from faster_whisper.tokenizer import Tokenizer

            self._tokenizers[language] = Tokenizer(
                self._model.hf_tokenizer, self.multilingual, task="transcribe", language=language
            )
        return self._tokenizers[language]

    def _suppressed(self, language: str) -> list[int]:
        """Tokens that are no speech: symbols, and the control tokens of other tasks."""
        own = self._tokenizer(language)
        control = (own.transcribe, own.translate, own.sot, own.sot_prev, own.sot_lm, own.no_speech)
        return sorted({*own.non_speech_tokens, *control})


def knows_language(path: Path, language: str) -> bool:
    """Whether the model in a folder reads a language (ISO 639-1); found without opening it."""
    if language == "en":
        return True
    listed = path / "vocabulary.json"
    if listed.is_file():
        tokens = len(json.loads(listed.read_text(encoding="utf-8")))
    else:
        tokens = len((path / "vocabulary.txt").read_text(encoding="utf-8").splitlines())
    if tokens <= _ENGLISH_TOKENS:
        return False
    from faster_whisper.tokenizer import _LANGUAGE_CODES

    return language in _LANGUAGE_CODES


def _language_of(
    probs: Sequence[tuple[str, float]], declared: str | None
) -> tuple[str, float | None]:
    """The likeliest language, or the declared one, with its probability. probs: falling."""
    if declared is None:
        return probs[0][0][2:-2], float(probs[0][1])
    return declared, next((float(p) for token, p in probs if token[2:-2] == declared), 0.0)


def _most_tokens(windows: Sequence[PackedWindow]) -> int:
    """Bound on a batch's tokens: nobody speaks faster, so a loop need not run to its end."""
    longest = max(window.wave.size for window in windows) / SAMPLE_RATE
    return 16 + math.ceil(_MAX_TOKENS_PER_S * longest)


def compression_ratio(text: str) -> float:
    """Bytes of text over bytes of zlib; 0 for no text."""
    raw = text.encode()
    return len(raw) / len(zlib.compress(raw)) if raw else 0.0


def _mean_logprob(words: Sequence[TimedWord]) -> float | None:
    logs = [log for word in words for log in word.logprobs]
    return math.fsum(logs) / len(logs) if logs else None


def _assigned(
    window: PackedWindow,
    words: Sequence[TimedWord],
    no_speech_prob: float,
    language: str,
    language_prob: float | None,
) -> Iterator[_Read]:
    """Give each word of a window to its piece; mark the pieces that are to be read alone."""
    owners, unsure = owners_of(window, words)
    own: list[list[TimedWord]] = [[] for _ in window.pieces]
    for word, owner in zip(words, owners, strict=True):
        own[owner].append(word)
    logprob = _mean_logprob(words)
    bad = (
        compression_ratio("".join(word.text for word in words)) > _MAX_COMPRESSION
        or (logprob is not None and logprob < _MIN_LOGPROB)
        or (language_prob is not None and language_prob < _SURE_LANGUAGE)
    )
    for index, piece in enumerate(window.pieces):
        mine = placed(own[index], piece.wave, window.starts[index])
        mean = _mean_logprob(mine)
        poor = (
            bad
            or index in unsure
            or mean is None
            or mean < _MIN_LOGPROB
            or any(word.end_s - word.start_s > _LONG_WORD_S for word in mine)
        )
        yield _Read(
            words=mine,
            no_speech_prob=no_speech_prob,
            language=language,
            language_prob=language_prob,
            suspect=poor and len(window.pieces) > 1,
        )


def _joined(parts: Sequence[tuple[Piece, _Read]]) -> Transcription:
    """The pieces of one clip, put together again."""
    words = [
        replace(
            word,
            start_s=word.start_s + piece.offset / SAMPLE_RATE,
            end_s=word.end_s + piece.offset / SAMPLE_RATE,
        )
        for piece, read in parts
        for word in read.words
    ]
    text = "".join(word.text for word in words).strip()
    first = parts[0][1]
    return Transcription(
        text=text,
        words=tuple(
            Word(
                word=word.text.strip(),
                start_s=round(word.start_s, 3),
                end_s=round(word.end_s, 3),
                prob=word.prob,
            )
            for word in words
        ),
        avg_logprob=_mean_logprob(words),
        no_speech_prob=max(read.no_speech_prob for _, read in parts),
        compression_ratio=compression_ratio(text),
        language=first.language,
        language_prob=first.language_prob,
    )
