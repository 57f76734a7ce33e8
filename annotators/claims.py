"""What a description says of a voice, found by lexicon: who wrote it does not matter.

The lexicons are `annotators/lexicons/<language>.yaml`; the head of `en.yaml` tells how to read and
extend them. The longest phrase wins, so `unhappy` is not `happy`; what is denied (`not angry`)
is not said; and what is said of somebody else (`talks to a girl`) is left out as far as words show.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from annotators.expert_labels import age_group
from schemas.descriptions import Claim

_FOLDER = Path(__file__).parent / "lexicons"
_WHO = {"gender", "age"}
# Marks in a text where the phrase in question begins.
_HERE = "¦"


@dataclass(frozen=True, kw_only=True, slots=True)
class Phrase:
    """A way to say something."""

    pattern: re.Pattern[str]
    """Group `said`, where there is one, is the phrase itself, and the rest what it stands in."""
    about: str = ""
    """Name of what it says; empty for a phrase that only keeps shorter ones from counting."""
    claims: tuple[Claim, ...]
    weak: bool = False
    """Gives way to any other value of the same attribute: a girl is a child unless in her teens."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Lexicon:
    """The words of one language."""

    phrases: tuple[Phrase, ...]
    denial: re.Pattern[str]
    """Matches around the start of a phrase, `¦`, that is denied."""
    others: re.Pattern[str]
    """Matches around the start of a person who is not the speaker."""
    stronger: re.Pattern[str]
    """Matches around the start of a level that is meant to be the next one."""
    next_level: dict[Claim, Claim]
    years: re.Pattern[str]
    """An age in figures."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Found:
    start: int
    end: int
    reach: int
    """Length of the phrase with all that it stands in."""
    about: str
    claims: tuple[Claim, ...]
    weak: bool = False

    def excludes(self, other: "_Found") -> bool:
        """Whether one stretch of text cannot mean both: `low` is either pitch or energy.

        Who speaks can be told by words that tell more: `takes her time`.
        """
        apart = self.end <= other.start or other.end <= self.start
        names = {self.about, other.about}
        return not apart and (len(names) == 1 or "" in names or not names & _WHO)


def claims_in(text: str, language: str) -> tuple[Claim, ...]:
    """What a description says, each thing once, in the order of the text.

    Empty for a language without a lexicon. Texture, accent and scenario are not looked for.
    """
    lexicon = lexicon_of(language)
    if lexicon is None:
        return ()
    text = text.casefold().replace("’", "'").replace(_HERE, " ")
    found = _longest([*_phrases_in(text, lexicon), *_years_in(text, lexicon)])
    firm = {claim.name for match in found if not match.weak for claim in match.claims}
    said: dict[Claim, None] = {}
    for match in found:
        for claim in match.claims:
            if not match.weak or claim.name not in firm:
                said.setdefault(claim)
    return tuple(said)


@lru_cache(maxsize=8)
def lexicon_of(language: str) -> Lexicon | None:
    """The lexicon of an ISO 639-1 code; None where there is none."""
    if language not in {file.stem for file in _FOLDER.glob("*.yaml")}:
        return None
    told = yaml.safe_load((_FOLDER / f"{language}.yaml").read_text(encoding="utf-8"))
    words: dict[str, str] = {}
    for name, text in told["words"].items():
        words[name] = _filled(text, words)

    def compiled(text: str) -> re.Pattern[str]:
        return re.compile(_filled(text, words))

    spaced = told["spaced"]

    def phrases(section: str, *, weak: bool = False) -> Iterator[Phrase]:
        for name, values in told[section].items():
            for value, texts in values.items():
                claims = (Claim(name=name, value=value),)
                for text in texts:
                    pattern = _pattern(text, words, spaced)
                    yield Phrase(pattern=pattern, about=name, claims=claims, weak=weak)

    nothing = (
        Phrase(pattern=_pattern(text, words, spaced), claims=()) for text in told["says nothing"]
    )
    return Lexicon(
        phrases=(*phrases("says"), *phrases("says weakly", weak=True), *nothing),
        denial=compiled(told["denial"]),
        others=compiled(told["others"]),
        stronger=compiled(told["stronger"]),
        next_level={
            Claim(name=name, value=low): Claim(name=name, value=high)
            for name, levels in told["next level"].items()
            for low, high in levels.items()
        },
        years=compiled(told["years"]),
    )


def _phrases_in(text: str, lexicon: Lexicon) -> Iterator[_Found]:
    for phrase in lexicon.phrases:
        for match in phrase.pattern.finditer(text):
            start, end = match.span("said" if phrase.pattern.groups else 0)
            before = f"{text[:start]}{_HERE}{text[start:]}"
            claims = phrase.claims
            other = phrase.about in _WHO and lexicon.others.search(before)
            if other or lexicon.denial.search(before):
                claims = ()
            elif stronger := lexicon.stronger.search(before):
                risen = tuple(lexicon.next_level.get(claim, claim) for claim in claims)
                if risen != claims:
                    # `not very loud` denies too.
                    denied = lexicon.denial.search(f"{text[: stronger.start()]}{_HERE}")
                    claims = () if denied else risen
            yield _Found(
                start=start,
                end=end,
                reach=len(match[0]),
                about=phrase.about,
                claims=claims,
                weak=phrase.weak,
            )


def _years_in(text: str, lexicon: Lexicon) -> Iterator[_Found]:
    for match in lexicon.years.finditer(text):
        group, _ = age_group(float(match[1]))
        claim = Claim(name="age", value=group)
        start, end = match.span()
        yield _Found(start=start, end=end, reach=end - start, about="age", claims=(claim,))


def _longest(found: list[_Found]) -> list[_Found]:
    """The matches that do not exclude each other, longer ones first, in the order of the text."""
    kept: list[_Found] = []
    for match in sorted(found, key=lambda match: (match.start - match.end, -match.reach)):
        if not any(match.excludes(other) for other in kept):
            kept.append(match)
    return sorted(kept, key=lambda match: match.start)


def _filled(text: str, words: dict[str, str]) -> str:
    """A pattern with the named parts, `{voice}`, put in."""
    return re.sub(r"\{([a-z]+)\}", lambda match: words[match[1]], text)


def _pattern(text: Any, words: dict[str, str], spaced: bool) -> re.Pattern[str]:
    source = re.sub(r"(?<!\(\?)<", "(?P[", str(text)).replace(">", ")").replace("(?P[", "(?P<said>")
    source = re.sub(r"\((?!\?)", "(?:", _filled(source, words))
    if not spaced:
        return re.compile(source)
    source = re.sub(r"(?<=[a-z])~", r"(?!less)[a-z]*", source).replace(" ", "[ -]+")
    return re.compile(rf"(?<![a-z'])(?:{source})(?![a-z])")
