"""The pieces of an English sentence, and how they are joined."""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

_VOWEL_LETTERS = "AEFHILMNORSX"
_NOT_VOWELS = re.compile(r"(?:eu|uni|use|usu|one\b|once\b|u\b)")
_SILENT_H = re.compile(r"(?:hour|honest|honou?r|heir)")


@dataclass(kw_only=True)
class Speaker:
    """How the text refers to who speaks."""

    name: str
    """With its article."""
    known: bool
    """Whether gender or age is claimed."""
    they: str
    their: str
    """Before `voice`."""
    own: str
    """Her, his or their."""
    voice: str
    """Such as `young female`, before the word voice; empty where nothing fits."""


@dataclass(kw_only=True)
class Parts:
    """The forms chosen for one sentence."""

    adv: list[str] = field(default_factory=list)
    tail: list[str] = field(default_factory=list)
    ing: list[str] = field(default_factory=list)
    adj: list[str] = field(default_factory=list)
    clause: list[str] = field(default_factory=list)


def article(phrase: str) -> str:
    """The phrase with a or an before it."""
    word = phrase.lstrip("'\"")
    if re.match(r"(?:8|11\b|18\b)", word):
        vowel = True
    elif re.match(r"[A-Z]{2,}\b", word):
        vowel = word[0] in _VOWEL_LETTERS
    else:
        lower = word.casefold()
        vowel = bool(lower) and lower[0] in "aeiou" and not _NOT_VOWELS.match(lower)
        vowel = vowel or bool(_SILENT_H.match(lower))
    return f"{'an' if vowel else 'a'} {phrase}"


def spoken(
    verb: str, parts: Parts, voice: list[str], ing: Sequence[str], chance: random.Random
) -> str:
    """The verb with all that follows it."""
    tails = list(parts.tail)
    if voice:
        tails.insert(0, f"in {article(adjectives(voice, chance))} voice")
    # `Very slowly and softly` is very softly too.
    adverbs = sorted(parts.adv, key=lambda word: " " in word)
    manner = f" {' and '.join(adverbs)}" if adverbs else ""
    return f"{verb}{manner}{spaced(merged(tails))}{trailing(ing)}"


def merged(tails: Sequence[str]) -> list[str]:
    """Phrases in a good order: those with `with` last and under one preposition."""
    others = [tail for tail in tails if not tail.startswith("with ")]
    withs = [tail for tail in tails if tail.startswith("with ")]
    # `With many pauses and joy in her voice` would be a joke.
    if any(re.search(r"note of|voice", tail) for tail in withs):
        others += withs
    elif withs:
        others.append(" and ".join([withs[0], *(tail.removeprefix("with ") for tail in withs[1:])]))
    return others


def spaced(texts: Sequence[str]) -> str:
    return "".join(f" {text}" for text in texts)


def trailing(texts: Sequence[str]) -> str:
    return f", {' and '.join(texts)}" if texts else ""


def front(parts: Parts) -> str:
    """What comes before the subject, short before long."""
    return " and ".join(sorted([*parts.adj, *parts.ing], key=lambda text: len(text.split())))


def adjectives(voice: Sequence[str], chance: random.Random) -> str:
    """Before the noun: low, hoarse; or low and hoarse."""
    if len(voice) == 2 and chance.random() < 0.3:
        return " and ".join(voice)
    return ", ".join(voice)


def listed(texts: Sequence[str]) -> str:
    """After the verb: low, breathy and hoarse."""
    *most, last = texts
    return f"{', '.join(most)} and {last}" if most else last


def series(clauses: Sequence[str]) -> str:
    """Clauses in one sentence."""
    if len(clauses) == 2:
        return ", and ".join(clauses)
    *most, last = clauses
    return f"{', '.join(most)}, and {last}" if most else last
