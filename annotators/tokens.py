"""From timed tokens to timed words."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

_BEFORE = frozenset("\"'“¿([{-")
_AFTER = frozenset("\"'.。,，!！?？:：;”)]}、…")


@dataclass(frozen=True, kw_only=True, slots=True)
class Token:
    """One text token as the alignment pass sees it."""

    id: int
    start_s: float
    end_s: float
    prob: float


@dataclass(frozen=True, kw_only=True, slots=True)
class TimedWord:
    """A word with its punctuation, in seconds from the start of its window."""

    text: str
    """With the space in front of it, where the language writes one."""
    start_s: float
    end_s: float
    prob: float
    """Mean probability of the word's tokens, punctuation left out."""
    logprobs: tuple[float, ...]
    """Natural log probability of each token."""


def timed_words(tokens: Sequence[Token], tokenizer: Any) -> list[TimedWord]:
    """Group tokens into words; punctuation joins its word and adds no time to it.

    Attention rests on a full stop through the pause that follows, so a stop must not make its
    word longer. tokenizer: faster_whisper's, which knows the languages without spaces.
    """
    texts, groups = tokenizer.split_to_word_tokens([token.id for token in tokens])
    words: list[TimedWord] = []
    at = 0
    opening = ""
    opening_logs: tuple[float, ...] = ()
    for text, group in zip(texts, groups, strict=True):
        own = tokens[at : at + len(group)]
        at += len(group)
        if not own:
            continue
        logs = tuple(math.log(max(token.prob, 1e-10)) for token in own)
        bare = text.strip()
        if bare and all(mark in _AFTER for mark in bare) and words and not text.startswith(" "):
            words[-1] = replace(
                words[-1], text=words[-1].text + text, logprobs=words[-1].logprobs + logs
            )
        elif bare and all(mark in _BEFORE for mark in bare):
            opening += text
            opening_logs += logs
        else:
            words.append(
                TimedWord(
                    text=opening + (text.lstrip() if opening else text),
                    start_s=own[0].start_s,
                    end_s=own[-1].end_s,
                    prob=sum(token.prob for token in own) / len(own),
                    logprobs=opening_logs + logs,
                )
            )
            opening, opening_logs = "", ()
    return words
