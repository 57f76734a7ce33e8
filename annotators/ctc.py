"""Where each word of a given text is said, by a CTC model in the format of `transformers`.

For languages that no Whisper knows, and where transcripts are given. MMS (Pratap et al. 2023,
arXiv 2305.13516) reads about 1,100 languages, each by an adapter of its own.

Shapes: T frames, V symbols, L symbols of a text.
"""

import json
import math
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from annotators.languages import languages
from annotators.registry import first_line
from annotators.text import normalised
from annotators.threads import torch_with
from schemas.errors import ModelLoadError
from schemas.rows import Wave, Word

F32 = npt.NDArray[np.float32]

SAMPLE_RATE = 16_000
WINDOW_S, CONTEXT_S = 30.0, 1.0
"""Seconds that the model hears at a time, and of these at either end what is heard for context alone."""
MOST_CELLS = 3e8
"""Frames times symbols of an alignment: two bytes each."""
_SHORTEST = SAMPLE_RATE // 10


class CtcModel:
    """One checkpoint, open for one language."""

    def __init__(
        self, path: Path, *, language: str | None = None, device: str = "cpu", threads: int = 1
    ) -> None:
        """path: the checkpoint's folder. language: whose adapter an MMS checkpoint is to use.

        Raises ModelLoadError.
        """
        self._torch = torch_with(threads)
        from transformers import AutoModelForCTC, AutoProcessor

        adapter = adapter_of(path, language)
        extra = {"target_lang": adapter, "ignore_mismatched_sizes": True} if adapter else {}
        try:
            self._processor: Any = AutoProcessor.from_pretrained(
                path, local_files_only=True, **({"target_lang": adapter} if adapter else {})
            )
            model: Any = AutoModelForCTC.from_pretrained(path, local_files_only=True, **extra)
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise ModelLoadError(
                f"{path} does not open as a CTC model: {first_line(error)}"
            ) from error
        tokenizer = getattr(self._processor, "tokenizer", None)
        if tokenizer is None or model.config.pad_token_id is None:
            raise ModelLoadError(f"{path} has no CTC tokenizer")
        self._model = model.to(device).eval()
        self._device = device
        self.blank = int(model.config.pad_token_id)
        """The symbol that stands for nothing said."""
        self._ids: dict[str, int] = dict(tokenizer.get_vocab())
        self._symbols = {number: symbol for symbol, number in self._ids.items()}
        delimiter = getattr(tokenizer, "word_delimiter_token", None)
        self._between = self._ids.get(delimiter) if delimiter else None

    def log_probs(self, wave: Wave) -> F32:
        """(samples,) at 16 kHz -> (T, V)."""
        parts = [self._window(wave, start) for start in _starts(wave.size)]
        return np.concatenate(parts)

    def spelled(self, word: str, language: str | None) -> list[int]:
        """The symbols of a word; letters that the model does not know at all are left out."""
        ids = []
        for letter in normalised(word, language).replace(" ", ""):
            # A letter that the model lacks is looked for without its accent.
            plain = unicodedata.normalize("NFD", letter)[0]
            known = (self._ids.get(one) for one in (letter, letter.upper(), plain, plain.upper()))
            number = next((one for one in known if one is not None), self.blank)
            if number != self.blank:
                ids.append(number)
        return ids

    def align(
        self, waves: Sequence[Wave], words: Sequence[str], language: str | None
    ) -> list[list[Word]]:
        """Each wave's words, out of a text that is said in them all, in order.

        A word that spans two waves goes to the one that has more of it; one without a letter that
        the model knows goes to none. Empty for every wave where the text cannot have been said in
        so little time.
        """
        heard = [self.log_probs(wave) for wave in waves]
        spelled = [self.spelled(word, language) for word in words]
        spans = aligned(np.concatenate(heard), spelled, blank=self.blank, between=self._between)
        found: list[list[Word]] = [[] for _ in waves]
        begins = np.cumsum([0, *(len(one) for one in heard)])
        for word, span in zip(words, spans, strict=True):
            if span is None:
                continue
            first, stop, prob = span
            shared = np.minimum(stop, begins[1:]) - np.maximum(first, begins[:-1])
            home = int(np.argmax(shared))
            frame_s = waves[home].size / SAMPLE_RATE / len(heard[home])
            start = max(0, first - int(begins[home])) * frame_s
            end = (min(stop, int(begins[home + 1])) - int(begins[home])) * frame_s
            found[home].append(
                Word(word=word, start_s=round(start, 3), end_s=round(end, 3), prob=prob)
            )
        return found

    def hear(self, wave: Wave) -> list[Word]:
        """The likeliest symbols, as words: what is said, as far as the model spells it."""
        probs = self.log_probs(wave)
        frame_s = wave.size / SAMPLE_RATE / len(probs)
        best = probs.argmax(axis=1)
        found: list[Word] = []
        letters, first, stop, scores = "", 0, 0, [0.0]
        changes = np.flatnonzero(np.diff(best, prepend=-1, append=-1))
        for begin, end in pairwise(changes):
            symbol = int(best[begin])
            if symbol == self.blank:
                continue
            if symbol != self._between:
                if not letters:
                    first, scores = int(begin), []
                letters += self._symbols[symbol]
                scores.append(float(probs[begin:end, symbol].max()))
                stop = int(end)
            elif letters:
                found.append(_word(letters, first, stop, scores, frame_s))
                letters = ""
        if letters:
            found.append(_word(letters, first, stop, scores, frame_s))
        return found

    def _window(self, wave: Wave, start: int) -> F32:
        context = int(CONTEXT_S * SAMPLE_RATE)
        stop = min(wave.size, start + int(WINDOW_S * SAMPLE_RATE))
        begin, end = max(0, start - context), min(wave.size, stop + context)
        piece = wave[begin:end]
        piece = np.pad(piece, (0, max(0, _SHORTEST - piece.size)))
        inputs = self._processor(piece, sampling_rate=SAMPLE_RATE, return_tensors="pt")
        with self._torch.inference_mode():
            logits = self._model(**{k: v.to(self._device) for k, v in inputs.items()}).logits[0]
            probs: F32 = logits.float().log_softmax(dim=-1).cpu().numpy()
        per_sample = len(probs) / piece.size
        first = round((start - begin) * per_sample)
        return probs[first : max(first + 1, round((stop - begin) * per_sample))]


def adapter_of(path: Path, language: str | None) -> str | None:
    """The name of the language's adapter in a checkpoint of MMS; None in one that has none.

    Raises ModelLoadError where there are adapters, but none for the language.
    """
    there = {file.name.split(".")[1] for file in path.glob("adapter.*.safetensors")}
    if not there:
        return None
    row = languages().get(language or "")
    name = row.mms if row else language
    if name not in there:
        raise ModelLoadError(f"{path} has no adapter for {language} (adapter.{name}.safetensors)")
    return name


def speaks(path: Path, language: str | None) -> bool:
    """Whether a checkpoint is for the language; one that says nothing of languages is."""
    try:
        adapter_of(path, language)
    except ModelLoadError:
        return False
    config = path / "config.json"
    said = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
    return said.get("language", language) == language


def aligned(
    log_probs: F32, words: Sequence[Sequence[int]], *, blank: int, between: int | None
) -> list[tuple[int, int, float] | None]:
    """First frame, one past the last, and mean probability of each word; None for one without symbols.

    log_probs: (T, V). words: the symbols of each. between: the symbol that parts words, if one does.
    None for all where T frames cannot hold them, or the alignment would take too much memory.
    """
    import torch
    from torchaudio.functional import forced_align

    nothing: list[tuple[int, int, float] | None] = [None] * len(words)
    symbols: list[int] = []
    owners: list[int] = []
    for number, word in enumerate(words):
        if word and symbols and between is not None:
            symbols.append(between)
            owners.append(-1)
        symbols.extend(word)
        owners.extend([number] * len(word))
    frames = len(log_probs)
    repeats = sum(a == b for a, b in pairwise(symbols))
    if not symbols or len(symbols) + repeats > frames or len(symbols) * frames > MOST_CELLS:
        return nothing
    path, scores = forced_align(
        torch.from_numpy(np.ascontiguousarray(log_probs))[None],
        torch.tensor([symbols], dtype=torch.int32),
        blank=blank,
    )
    spans: list[list[tuple[int, int, float]]] = [[] for _ in words]
    for owner, first, stop in _runs(path[0].numpy(), owners, blank):
        if owner >= 0:
            spans[owner].append((first, stop, float(scores[0, first:stop].mean().exp())))
    return [
        (own[0][0], own[-1][1], math.fsum(p for *_, p in own) / len(own)) if own else None
        for own in spans
    ]


def _runs(path: Any, owners: Sequence[int], blank: int) -> Iterator[tuple[int, int, int]]:
    """Owner, first frame and one past the last of every symbol of an alignment."""
    changes = np.flatnonzero(np.diff(path, prepend=-1, append=-1))
    said = [(int(begin), int(end)) for begin, end in pairwise(changes) if path[begin] != blank]
    for owner, (begin, end) in zip(owners, said, strict=True):
        yield owner, begin, end


def _starts(size: int) -> range:
    return range(0, max(1, size), int(WINDOW_S * SAMPLE_RATE))


def _word(letters: str, first: int, stop: int, scores: Sequence[float], frame_s: float) -> Word:
    prob = math.exp(math.fsum(scores) / max(1, len(scores)))
    start, end = round(first * frame_s, 3), round(stop * frame_s, 3)
    return Word(word=letters, start_s=start, end_s=end, prob=prob)
