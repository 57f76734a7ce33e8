"""Text to ids, as the family reads text.

A Llama-style BPE whose multi-character Chinese tokens are taken apart again. Source: spec §9.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from tokenizers import Encoding, Tokenizer
from torch import Tensor

from schemas.errors import ModelLoadError, UnspeakableText

_CHINESE = re.compile(r"[\u4e00-\u9fff]{2,}")
_SPACE = re.compile(r"\s+")
_WORD_START = "▁"
_UNKNOWN = 0


class TextTokenizer:
    """Reads a checkpoint's tokenizer.json."""

    def __init__(self, file: Path) -> None:
        """Raises ModelLoadError when the file is missing or no tokenizer."""
        if not file.is_file():
            raise ModelLoadError(f"the checkpoint has no {file.name}: {file.parent}")
        try:
            self._bpe = Tokenizer.from_file(str(file))
        except Exception as error:
            raise ModelLoadError(f"{file} is no tokenizer: {error}") from error
        self._bpe.no_truncation()  # whatever a file asks for, a text is read whole
        self._bpe.no_padding()
        vocabulary = self._bpe.get_vocab()
        self._compounds = {token for token in vocabulary if _CHINESE.fullmatch(token)}
        self._characters = {
            number: len(bare)
            for token, number in vocabulary.items()
            if (bare := token.replace(_WORD_START, "")) in self._compounds
        }

    def tokens(self, text: str) -> list[str]:
        """Pieces of a text; a Chinese compound becomes its characters."""
        pieces = []
        for piece in self._bpe.encode(text, add_special_tokens=False).tokens:
            bare = piece.replace(_WORD_START, "")
            pieces += list(bare) if bare in self._compounds else [piece]
        return pieces

    def ids(self, text: str) -> Tensor:
        """(T,) int64. A piece that the vocabulary lacks is 0."""
        ids = [self._bpe.token_to_id(piece) for piece in self.tokens(text)]
        return torch.tensor([_UNKNOWN if i is None else i for i in ids], dtype=torch.long)

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """How many ids each text has, for many texts at a time."""
        return [
            len(encoding)
            if self._is_whole(text)
            else sum(self._characters.get(number, 1) for number in encoding.ids)
            for text, encoding in self._encoded(texts)
        ]

    def speakable(self, texts: Sequence[str]) -> list[bool]:
        """Whether `check_speakable` lets each text pass, for many texts at a time."""
        silent = {_UNKNOWN, self._bpe.token_to_id(_WORD_START)}
        return [
            # A control character is white space to `strip`, and bytes to the vocabulary.
            (text.strip() != "" and self._is_whole(text) and not silent.issuperset(encoding.ids))
            or self._is_speakable(text)
            for text, encoding in self._encoded(texts)
        ]

    def _encoded(self, texts: Sequence[str]) -> Iterator[tuple[str, Encoding]]:
        """Each text and its ids; the fast way leaves out the pieces."""
        encodings = self._bpe.encode_batch_fast(texts, add_special_tokens=False)
        return zip(texts, encodings, strict=True)

    def _is_whole(self, text: str) -> bool:
        """Whether no piece of it is taken apart: without compounds the BPE's pieces are final."""
        return not self._compounds or not _CHINESE.search(text)

    def _is_speakable(self, text: str) -> bool:
        try:
            self.check_speakable(text)
        except UnspeakableText:
            return False
        return True

    def check_speakable(self, text: str) -> None:
        """Raises UnspeakableText when the text is empty, or no piece of it is in the vocabulary."""
        if not text.strip():
            raise UnspeakableText("the text is empty")
        # A word's start is a piece that every text has, whatever follows it.
        said = [piece for piece in self.tokens(text) if piece.replace(_WORD_START, "")]
        if not any(self._bpe.token_to_id(piece) for piece in said):
            raise UnspeakableText(f"the vocabulary knows no part of the text {text[:60]!r}")


def flattened(text: str) -> str:
    """One line: every run of white space is one space."""
    return _SPACE.sub(" ", text)


def described(text: str, description: str | None) -> str:
    """The text with its control prompt, `(description)text` (the V2 class reads it so)."""
    return f"({description.strip()}){text}" if description and description.strip() else text
