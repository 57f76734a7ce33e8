"""Give each clip its part of a transcript, by the words that were recognised in it.

Given and recognised words are aligned by edit distance. A given word goes where the recognised
word lies that it matches or replaces; one that nothing stands for goes to the clip around it, and
between two clips to none. So every given word is used at most once, and in order.
"""

from collections.abc import Container, Sequence
from dataclasses import dataclass

from rapidfuzz.distance import Levenshtein

Gram = tuple[str, ...]

# Given words in a row that no recognised word stands for: more are another passage, not an error.
LONGEST_GAP = 8
# A transcript much longer than what was heard is first narrowed down to the place it was heard at.
MARGIN = 60
ANCHOR_SIZES = (6, 4, 3)
# Alignment takes two bits for each pair of a given and a heard token: 10 MB at most.
MAX_PAIRS = 40_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Match:
    """A given token, and the clip that it was heard in."""

    token: int
    clip: int
    exact: bool


def place(
    given: Sequence[str], heard: Sequence[str], clip_of: Sequence[int]
) -> dict[int, tuple[int, int]]:
    """Clip → (first, one past the last) given token.

    given, heard: plain tokens; clip_of: for each heard token its clip, ascending.
    """
    if not given or not heard:
        return {}
    start, stop = window(given, heard)
    matches: dict[int, list[Match]] = {}
    for match in _matches(given[start:stop], heard, clip_of):
        matches.setdefault(match.clip, []).append(match)
    placed = {}
    for clip, found in matches.items():
        run = _best_run(found)
        if any(match.exact for match in run):
            placed[clip] = (start + run[0].token, start + run[-1].token + 1)
    return placed


def window(given: Sequence[str], heard: Sequence[str]) -> tuple[int, int]:
    """The part of a long transcript that can have been heard, found by n-grams that are unique.

    Without any, all of it, or nothing where that is too much to align: so long a text that shares
    no phrase with what was heard is another recording's.
    """
    if len(given) <= 2 * len(heard) + 4 * MARGIN:
        return 0, len(given)
    for size in ANCHOR_SIZES:
        here = _unique_grams(heard, size)
        there = _unique_grams(given, size, among=here)
        offsets = sorted(there[gram] - here[gram] for gram in there)
        if offsets:
            # The median is right as soon as most anchors are.
            start = offsets[len(offsets) // 2]
            slack = MARGIN + len(heard) // 4
            return max(0, start - slack), max(0, min(len(given), start + len(heard) + slack))
    return 0, len(given) if len(given) * len(heard) <= MAX_PAIRS else 0


def _unique_grams(
    tokens: Sequence[str], size: int, among: Container[Gram] | None = None
) -> dict[Gram, int]:
    """Where each n-gram stands that occurs once; `among` keeps a book's grams out of memory."""
    places: dict[Gram, int] = {}
    repeated: set[Gram] = set()
    for at in range(len(tokens) - size + 1):
        gram = tuple(tokens[at : at + size])
        if among is not None and gram not in among:
            continue
        if gram in places:
            repeated.add(gram)
        places[gram] = at
    return {gram: at for gram, at in places.items() if gram not in repeated}


def _matches(given: Sequence[str], heard: Sequence[str], clip_of: Sequence[int]) -> list[Match]:
    matches = []
    for op in Levenshtein.opcodes(list(heard), list(given)):
        tokens = range(op.dest_start, op.dest_end)
        if op.tag in ("equal", "replace"):
            width = op.src_end - op.src_start
            for index, token in enumerate(tokens):
                at = op.src_start + min(width - 1, index * width // len(tokens))
                matches.append(Match(token=token, clip=clip_of[at], exact=op.tag == "equal"))
        elif op.tag == "insert" and 0 < op.src_start < len(heard):
            before, after = clip_of[op.src_start - 1], clip_of[op.src_start]
            if before == after:
                matches += [Match(token=token, clip=before, exact=False) for token in tokens]
    return matches


def _best_run(matches: Sequence[Match]) -> list[Match]:
    """Cut at passages that were not heard; the run with the most exact words is the clip's."""
    runs: list[list[Match]] = [[]]
    inexact = 0
    for match in matches:
        inexact = 0 if match.exact else inexact + 1
        if inexact > LONGEST_GAP and len(runs[-1]) >= LONGEST_GAP:
            runs[-1] = runs[-1][: len(runs[-1]) - LONGEST_GAP] or runs[-1]
            runs.append([])
            inexact = 0
        if runs[-1] and match.token != runs[-1][-1].token + 1:
            runs.append([])
        runs[-1].append(match)
    return max(runs, key=lambda run: sum(match.exact for match in run))
