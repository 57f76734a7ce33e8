"""English descriptions: one to three sentences, each after one of several patterns.

A draft leaves much to chance and may come out clumsy; `english_faults` counts how clumsy, and the
writer takes the best of several.
"""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from annotators.grammar.english_free import textures, with_free
from annotators.grammar.english_phrases import (
    Parts,
    Speaker,
    adjectives,
    article,
    front,
    listed,
    merged,
    series,
    spaced,
    spoken,
    trailing,
)

_MANNER = ("rate", "energy", "pitch_range", "pauses", "emphasis", "emotion")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Telling:
    """What a try at a text works with."""

    said: Mapping[str, str]
    speaker: Speaker
    chance: random.Random
    words: Mapping[str, Any]


def draft(said: Mapping[str, str], chance: random.Random, words: Mapping[str, Any]) -> str | None:
    """One try at a text; None where chance chose what does not fit together."""
    speaker = _speaker(said, chance, words)
    telling = _Telling(said=said, speaker=speaker, chance=chance, words=words)
    manner = [name for name in _MANNER if name in said]
    chance.shuffle(manner)
    voice = _voice(said, manner, chance, words)
    sentences: list[str | None] = []
    first, *later = _split(manner, bool(voice), chance)
    held = bool(voice) and bool(later) and chance.random() < 0.25
    sentences.append(_first(telling, first, [] if held else voice))
    for at, names in enumerate(later):
        own = voice if held and not at else []
        sentences.append(_later(telling, names, own))
    texts = [text for text in sentences if text is not None]
    if len(texts) < len(sentences):
        return None
    texts = with_free(texts, said, speaker, chance)
    return " ".join(f"{text[0].upper()}{text[1:]}." for text in texts)


def _speaker(said: Mapping[str, str], chance: random.Random, words: Mapping[str, Any]) -> Speaker:
    gender, age = said.get("gender", ""), said.get("age", "")
    they, their = {"female": ("she", "her"), "male": ("he", "his")}.get(gender, ("", ""))
    if not gender and not age:
        name = chance.choice(words["nobody"])
        return Speaker(
            name=name, known=False, they="the speaker", their="the", own="their", voice=""
        )
    name = article(chance.choice(words["who"][gender][age]))
    whose = words["whose"][gender].get(age, "")
    noun = chance.choice({"child": ["child"], "teenager": ["teenager"]}.get(age, ["speaker"]))
    return Speaker(
        name=name,
        known=True,
        they=they or f"the {noun}",
        their=their or "the",
        own=their or "their",
        voice=whose,
    )


def _voice(
    said: Mapping[str, str], manner: list[str], chance: random.Random, words: Mapping[str, Any]
) -> list[str]:
    """Adjectives of the voice; attributes of the manner that went into them leave `manner`."""
    found = []
    if "pitch" in said:
        found.append(chance.choice(words["forms"]["pitch"][said["pitch"]]["voice"]))
    found += textures(said)
    chance.shuffle(found)
    borrowed = [name for name in ("energy", "pitch_range", "emotion") if name in manner]
    if borrowed and len(found) < 3 and chance.random() < 0.25:
        name = chance.choice(borrowed)
        options = _forms(said, name, words).get("voice", [])
        # `Hushed, low` would be about loudness alone.
        if options and not (name == "energy" and "pitch" in said and "soft" in said["energy"]):
            manner.remove(name)
            found.insert(0, chance.choice(options))
    # `Very low and soft` is very soft too.
    found.sort(key=lambda word: bool(re.match(r"very |extremely |remarkably |unusually ", word)))
    return found


def _forms(said: Mapping[str, str], name: str, words: Mapping[str, Any]) -> dict[str, list[str]]:
    """Form → ways to put it, of one attribute of the manner."""
    if name != "emotion":
        told: dict[str, list[str]] = words["forms"][name][said[name]]
        return told
    felt = words["emotions"][said[name]]
    feelings = felt.get("adj", [])
    tones = felt["tone"]
    nouns = felt.get("noun", [])
    return {
        "voice": tones,
        "adv": felt.get("adv", []),
        "tail": [f"in {article(tone)} tone" for tone in tones]
        + [f"with {noun} in {{their}} voice" for noun in nouns]
        + [f"with a note of {noun}" for noun in nouns]
        + felt.get("tail", []),
        "ing": [f"sounding {feeling}" for feeling in feelings]
        + [f"clearly {feeling}" for feeling in feelings if " " not in feeling],
        "adj": feelings,
        "clause": [f"the tone is {tone}" for tone in tones]
        + [f"the mood is {tone}" for tone in tones if said[name] in ("calm", "sad", "serious")]
        + felt.get("clause", []),
    }


def _split(manner: Sequence[str], voice: bool, chance: random.Random) -> list[list[str]]:
    """The attributes of each sentence."""
    weight = len(manner) + (1 if voice else 0)
    if weight <= 2:
        num = 1
    elif weight <= 4:
        num = chance.choice((1, 1, 2))
    elif weight <= 5:
        num = 2
    else:
        num = chance.choice((2, 2, 3))
    num = min(num, max(1, len(manner)))
    groups: list[list[str]] = [[] for _ in range(num)]
    for at, name in enumerate(manner):
        groups[at % num].append(name)
    return groups


def _parts(telling: _Telling, names: Sequence[str], room: Mapping[str, int]) -> Parts | None:
    """A form for each attribute, no form taken more often than there is room for it."""
    said, speaker, chance, words = telling.said, telling.speaker, telling.chance, telling.words
    left = dict(room)
    parts = Parts()
    for name in names:
        forms = _forms(said, name, words)
        options = [form for form, number in left.items() if number and forms.get(form)]
        if not options:
            return None
        form = chance.choice(options)
        left[form] -= 1
        text = chance.choice(forms[form])
        getattr(parts, form).append(text.replace("{their}", speaker.own))
    return parts


def _first(
    telling: _Telling,
    names: Sequence[str],
    voice: list[str],
) -> str | None:
    """The sentence that brings in the speaker."""
    speaker, chance = telling.speaker, telling.chance
    if not names and not voice:
        return _only(speaker, chance)
    patterns = ["verb", "verb", "verb", "fronted", "heard"]
    if voice:
        patterns += ["in front", "has", "has", "nominal", "apposed", "voice", "voice of"]
    else:
        patterns += ["fronted", "is heard"]
    if not speaker.known:
        patterns += ["clauses", "spoken", "spoken", "bare voice" if voice else "spoken"]
    pattern = chance.choice(patterns)
    room = {"adv": 2, "tail": 2, "ing": 1}
    name = speaker.name
    if pattern == "clauses":
        return _clauses(telling, names, voice)
    if pattern == "fronted":
        parts = _parts(telling, names, {"adj": 2, "ing": 1, "adv": 2, "tail": 1})
        if parts is None or not (parts.adj or parts.ing):
            return None
        if any(" pitch " in text for text in parts.ing):
            return None
        return f"{front(parts)}, {name} {spoken(_verb(chance), parts, voice, [], chance)}"
    if pattern in ("voice", "voice of"):
        return _voice_first(telling, names, voice, of=pattern == "voice of")
    parts = _parts(telling, names, room)
    if parts is None:
        return None
    done = parts.ing
    if pattern == "verb":
        return f"{name} {spoken(_verb(chance), parts, voice, done, chance)}"
    if pattern == "heard":
        lead = chance.choice(
            ("here, {}", "this is {} who", "we hear {}", "it is {} who")
            if speaker.known
            else ("here, {}", "this is {} who", "we hear {}")
        ).format(name)
        verb = chance.choice(("speaking", "talking")) if " hear " in lead else _verb(chance)
        return f"{lead} {spoken(verb, parts, voice, done, chance)}"
    if pattern == "is heard":
        verb = chance.choice(("is heard speaking", "can be heard talking", "is heard talking"))
        return f"{name} {spoken(verb, parts, voice, done, chance)}"
    if pattern == "spoken":
        verb = chance.choice(("spoken", "delivered", "said"))
        if parts.ing or not (parts.adv or parts.tail or voice):
            return None
        # Nobody was named whose voice it could be.
        if any(speaker.own in text.split() for text in parts.tail):
            return None
        return spoken(verb, parts, voice, done, chance)
    if pattern == "bare voice":
        verb = chance.choice(("speaks", "talks"))
        return f"{article(adjectives(voice, chance))} voice {spoken(verb, parts, [], done, chance)}"
    if pattern == "in front":
        lead = f"in {article(adjectives(voice, chance))} voice"
        return f"{lead}, {name} {spoken(_verb(chance), parts, [], done, chance)}"
    noun = f"{article(adjectives(voice, chance))} voice"
    if pattern == "has":
        noun = f"{article(', '.join(voice))} voice"
        if not (parts.adv or parts.tail):
            return f"{name} has {noun}{trailing(done)}"
        verb = chance.choice(("speaks", "talks"))
        return f"{name} has {noun} and {spoken(verb, parts, [], done, chance)}"
    if pattern == "nominal":
        if not speaker.known:
            return None
        verb = chance.choice(("speaking", "talking"))
        rest = f", {spoken(verb, parts, [], done, chance)}" if parts.adv or parts.tail else ""
        return f"{name} with {noun}{rest or trailing(done)}"
    assert pattern == "apposed"
    if len(voice) > 2:
        return None
    verb = spoken(_verb(chance), parts, [], done, chance)
    return f"{name} {verb}; {speaker.their} voice is {listed(voice)}"


def _only(speaker: Speaker, chance: random.Random) -> str:
    """Nothing is claimed but who speaks, or what is told last."""
    patterns = [
        *("{} is speaking here", "{} is talking here", "{} is heard speaking"),
        *("{} can be heard talking", "here, {} is speaking", "here {} can be heard"),
    ]
    if speaker.known:
        patterns += ["the speaker is {}", "we hear {} speaking", "{} can be heard speaking"]
        patterns += ["this is the voice of {}", "the voice is that of {}", "it is {} who speaks"]
        patterns += ["this is {} speaking", "the person talking is {}", "the voice belongs to {}"]
    return chance.choice(patterns).format(speaker.name)


def _voice_first(
    telling: _Telling,
    names: Sequence[str],
    voice: list[str],
    *,
    of: bool,
) -> str | None:
    """The voice as the subject."""
    speaker, chance = telling.speaker, telling.chance
    told = listed(voice)
    if of:
        subject = f"the voice of {speaker.name}" if speaker.known else "the voice"
        parts = _parts(telling, names, {"clause": 2})
        if parts is None:
            return None
        verb = chance.choice(("is", "sounds"))
        return series([f"{subject} {verb} {told}", *parts.clause])
    parts = _parts(telling, names, {"adv": 2, "tail": 2, "ing": 1})
    if parts is None or not (speaker.voice and names):
        return None
    verb = spoken("speaks", parts, [], parts.ing, chance)
    return f"{article(speaker.voice)} voice, {told}, {verb}"


def _clauses(
    telling: _Telling,
    names: Sequence[str],
    voice: list[str],
) -> str | None:
    """A sentence of short clauses: the pace is slow, and pauses are frequent."""
    parts = _parts(telling, names, {"clause": 3})
    if parts is None:
        return None
    found = list(parts.clause)
    if voice:
        found.insert(0, f"{telling.speaker.their} voice is {listed(voice)}")
    return series(found) if found else None


def _later(
    telling: _Telling,
    names: Sequence[str],
    voice: list[str],
) -> str | None:
    """A sentence about a speaker who was already brought in."""
    speaker, chance = telling.speaker, telling.chance
    pattern = chance.choice(("verb", "clauses", "clauses", "sounds", "fronted"))
    if pattern == "clauses":
        return _clauses(telling, names, voice)
    if pattern == "sounds":
        parts = _parts(telling, names, {"adj": 1, "tail": 2, "ing": 1})
        if parts is None or not parts.adj or "emotion" not in names:
            return None
        felt = parts.adj[0]
        if felt not in _forms(telling.said, "emotion", telling.words)["adj"]:
            return None
        rest = f", speaking{spaced(merged(parts.tail))}" if parts.tail else ""
        start = f"{speaker.they} sounds {felt}{rest}"
        if voice:
            start = f"{speaker.their} voice is {listed(voice)}, and {start}"
        return f"{start}{trailing(parts.ing)}"
    if pattern == "fronted":
        parts = _parts(telling, names, {"adj": 1, "ing": 1, "adv": 2, "tail": 1})
        if parts is None or not (parts.adj or parts.ing):
            return None
        if any(" pitch " in text for text in parts.ing):
            return None
        if not (parts.adv or parts.tail or voice):
            return None
        return f"{front(parts)}, {speaker.they} {spoken(_later_verb(chance), parts, voice, [], chance)}"
    parts = _parts(telling, names, {"adv": 2, "tail": 2, "ing": 1})
    if parts is None or not (parts.adv or parts.tail or voice):
        return None
    return f"{speaker.they} {spoken(_later_verb(chance), parts, voice, parts.ing, chance)}"


def _verb(chance: random.Random) -> str:
    return chance.choice(("speaks", "speaks", "talks", "is speaking", "is talking"))


def _later_verb(chance: random.Random) -> str:
    return chance.choice(("speaks", "talks"))
