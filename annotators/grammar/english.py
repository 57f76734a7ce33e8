"""English descriptions: one to three sentences, each after one of several patterns.

A draft leaves much to chance and may come out clumsy; `faults` counts how clumsy, and the writer
takes the best of several.
"""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_MANNER = ("rate", "energy", "pitch_range", "pauses", "emphasis", "emotion")
# Words that may well stand twice.
_COMMON = {"with", "that", "this", "very", "their", "from", "there", "while", "voice"}
_VOWEL_LETTERS = "AEFHILMNORSX"
_NOT_VOWELS = re.compile(r"(?:eu|uni|use|usu|one\b|once\b|u\b)")
_SILENT_H = re.compile(r"(?:hour|honest|honou?r|heir)")
_DETERMINED = re.compile(
    r"(?:an?|the|his|her|their|its|some|someone|somebody|one|two|several|many|my|our|your)\b",
    re.IGNORECASE,
)
_PLACED = re.compile(
    r"(?:in|on|at|over|during|while|for|from|to|when|as|with|by|after|before|inside|under)\b",
    re.IGNORECASE,
)
_DOING = re.compile(
    r"[a-z]+ing(?:$| (?:to|an?|the|his|her|their|from|about|with|on|in|at|into|out|for|some)\b)",
    re.IGNORECASE,
)
_COUNTED = (
    *("broadcast", "podcast", "call", "story", "lecture", "interview", "advertisement", "advert"),
    *("commercial", "meeting", "conversation", "speech", "documentary", "audiobook", "trailer"),
    *("vlog", "show", "lesson", "bulletin", "film", "movie", "game", "play", "presentation"),
    *("report", "sermon", "message", "chat", "debate", "talk", "monologue", "dialogue", "video"),
)
_ACCENTED = re.compile(r"\b(?:accents?|lilt|drawl|brogue|twang|burr|inflections?|pronunciation)\b")


@dataclass(kw_only=True)
class _Speaker:
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
class _Parts:
    """The forms chosen for one sentence."""

    adv: list[str] = field(default_factory=list)
    tail: list[str] = field(default_factory=list)
    ing: list[str] = field(default_factory=list)
    adj: list[str] = field(default_factory=list)
    clause: list[str] = field(default_factory=list)


def draft(said: Mapping[str, str], chance: random.Random, words: Mapping[str, Any]) -> str | None:
    """One try at a text; None where chance chose what does not fit together."""
    speaker = _speaker(said, chance, words)
    manner = [name for name in _MANNER if name in said]
    chance.shuffle(manner)
    voice = _voice(said, manner, chance, words)
    sentences: list[str | None] = []
    first, *later = _split(manner, bool(voice), chance)
    held = bool(voice) and bool(later) and chance.random() < 0.25
    sentences.append(_first(said, first, [] if held else voice, speaker, chance, words))
    for at, names in enumerate(later):
        own = voice if held and not at else []
        sentences.append(_later(said, names, own, speaker, chance, words))
    texts = [text for text in sentences if text is not None]
    if len(texts) < len(sentences):
        return None
    texts = _with_free(texts, said, speaker, chance)
    return " ".join(f"{text[0].upper()}{text[1:]}." for text in texts)


def faults(text: str) -> int:
    """How much of a text a reader would stumble over."""
    count = 0
    stems: dict[str, int] = {}
    for sentence in re.split(r"[.;] ?", text):
        plain = re.findall(r"[a-z'-]+", sentence.casefold())
        count += max(0, plain.count("and") - 2) + max(0, plain.count("voice") - 1)
        count += max(0, plain.count("with") - 1) + max(0, sentence.count(",") - 3)
        # A row of phrases: in a deep voice in a calm tone at a crawl.
        count += max(0, len(re.findall(r"\bin (?:an?|raised|little|no)\b", sentence)) - 1)
        count += max(0, len(re.findall(r"\b(?:in an?|at|on|with|without|above)\b", sentence)) - 2)
        for word in set(plain):
            if len(word) > 3 and word not in _COMMON:
                count += max(0, plain.count(word) - 1)
    for word in re.findall(r"[a-z]+", text.casefold()):
        if len(word) > 3 and word not in _COMMON:
            stems[word[:5]] = stems.get(word[:5], 0) + 1
    count += sum(number - 1 for number in stems.values())
    strong = re.findall(r"\b(?:very|extremely|remarkably|unusually|tremendous)\b", text)
    count += max(0, len(strong) - 1 - len(text) // 120)
    count += 3 * (len(re.findall(r"\band \w+ and\b", text)))
    num_words = len(text.split())
    return count + 10 * max(0, num_words - 45) + 10 * max(0, 4 - num_words)


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


def _speaker(said: Mapping[str, str], chance: random.Random, words: Mapping[str, Any]) -> _Speaker:
    gender, age = said.get("gender", ""), said.get("age", "")
    they, their = {"female": ("she", "her"), "male": ("he", "his")}.get(gender, ("", ""))
    if not gender and not age:
        name = chance.choice(words["nobody"])
        return _Speaker(
            name=name, known=False, they="the speaker", their="the", own="their", voice=""
        )
    name = article(chance.choice(words["who"][gender][age]))
    whose = words["whose"][gender].get(age, "")
    noun = chance.choice({"child": ["child"], "teenager": ["teenager"]}.get(age, ["speaker"]))
    return _Speaker(
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
    found += _textures(said)
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


def _textures(said: Mapping[str, str]) -> list[str]:
    """Adjectives; a texture told by a noun is left to `_with_free`."""
    value = said.get("texture", "")
    if not value or _is_noun(value):
        return []
    value = re.sub(r"[ -]voice$|-voiced$", "", value)
    parts = [part.strip() for part in re.split(r",| and ", value) if part.strip()]
    return [re.sub(r"^and ", "", part) for part in parts]


def _is_noun(texture: str) -> bool:
    return bool(_DETERMINED.match(texture) or _PLACED.match(texture)) or len(texture.split()) > 6


def _forms(said: Mapping[str, str], name: str, words: Mapping[str, Any]) -> dict[str, list[str]]:
    """Form → ways to put it, of one attribute of the manner."""
    if name != "emotion":
        told: dict[str, list[str]] = words["forms"][name][said[name]]
        return told
    felt = words["emotions"][said[name]]
    adjectives = felt.get("adj", [])
    tones = felt["tone"]
    nouns = felt.get("noun", [])
    return {
        "voice": tones,
        "adv": felt.get("adv", []),
        "tail": [f"in {article(tone)} tone" for tone in tones]
        + [f"with {noun} in {{their}} voice" for noun in nouns]
        + [f"with a note of {noun}" for noun in nouns]
        + felt.get("tail", []),
        "ing": [f"sounding {adjective}" for adjective in adjectives]
        + [f"clearly {adjective}" for adjective in adjectives if " " not in adjective],
        "adj": adjectives,
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


def _parts(
    said: Mapping[str, str],
    names: Sequence[str],
    room: Mapping[str, int],
    speaker: _Speaker,
    chance: random.Random,
    words: Mapping[str, Any],
) -> _Parts | None:
    """A form for each attribute, no form taken more often than there is room for it."""
    left = dict(room)
    parts = _Parts()
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
    said: Mapping[str, str],
    names: Sequence[str],
    voice: list[str],
    speaker: _Speaker,
    chance: random.Random,
    words: Mapping[str, Any],
) -> str | None:
    """The sentence that brings in the speaker."""
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
        return _clauses(said, names, voice, speaker, chance, words)
    if pattern == "fronted":
        parts = _parts(
            said, names, {"adj": 2, "ing": 1, "adv": 2, "tail": 1}, speaker, chance, words
        )
        if parts is None or not (parts.adj or parts.ing):
            return None
        if any(" pitch " in text for text in parts.ing):
            return None
        return f"{_front(parts)}, {name} {_spoken(_verb(chance), parts, voice, [], chance)}"
    if pattern in ("voice", "voice of"):
        return _voice_first(said, names, voice, speaker, chance, words, of=pattern == "voice of")
    parts = _parts(said, names, room, speaker, chance, words)
    if parts is None:
        return None
    done = parts.ing
    if pattern == "verb":
        return f"{name} {_spoken(_verb(chance), parts, voice, done, chance)}"
    if pattern == "heard":
        lead = chance.choice(
            ("here, {}", "this is {} who", "we hear {}", "it is {} who")
            if speaker.known
            else ("here, {}", "this is {} who", "we hear {}")
        ).format(name)
        verb = chance.choice(("speaking", "talking")) if " hear " in lead else _verb(chance)
        return f"{lead} {_spoken(verb, parts, voice, done, chance)}"
    if pattern == "is heard":
        verb = chance.choice(("is heard speaking", "can be heard talking", "is heard talking"))
        return f"{name} {_spoken(verb, parts, voice, done, chance)}"
    if pattern == "spoken":
        verb = chance.choice(("spoken", "delivered", "said"))
        if parts.ing or not (parts.adv or parts.tail or voice):
            return None
        # Nobody was named whose voice it could be.
        if any(speaker.own in text.split() for text in parts.tail):
            return None
        return _spoken(verb, parts, voice, done, chance)
    if pattern == "bare voice":
        verb = chance.choice(("speaks", "talks"))
        return (
            f"{article(_adjectives(voice, chance))} voice {_spoken(verb, parts, [], done, chance)}"
        )
    if pattern == "in front":
        front = f"in {article(_adjectives(voice, chance))} voice"
        return f"{front}, {name} {_spoken(_verb(chance), parts, [], done, chance)}"
    noun = f"{article(_adjectives(voice, chance))} voice"
    if pattern == "has":
        noun = f"{article(', '.join(voice))} voice"
        if not (parts.adv or parts.tail):
            return f"{name} has {noun}{_trailing(done)}"
        verb = chance.choice(("speaks", "talks"))
        return f"{name} has {noun} and {_spoken(verb, parts, [], done, chance)}"
    if pattern == "nominal":
        if not speaker.known:
            return None
        verb = chance.choice(("speaking", "talking"))
        rest = f", {_spoken(verb, parts, [], done, chance)}" if parts.adv or parts.tail else ""
        return f"{name} with {noun}{rest or _trailing(done)}"
    assert pattern == "apposed"
    if len(voice) > 2:
        return None
    verb = _spoken(_verb(chance), parts, [], done, chance)
    return f"{name} {verb}; {speaker.their} voice is {_listed(voice)}"


def _only(speaker: _Speaker, chance: random.Random) -> str:
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
    said: Mapping[str, str],
    names: Sequence[str],
    voice: list[str],
    speaker: _Speaker,
    chance: random.Random,
    words: Mapping[str, Any],
    *,
    of: bool,
) -> str | None:
    """The voice as the subject."""
    listed = _listed(voice)
    if of:
        subject = f"the voice of {speaker.name}" if speaker.known else "the voice"
        parts = _parts(said, names, {"clause": 2}, speaker, chance, words)
        if parts is None:
            return None
        verb = chance.choice(("is", "sounds"))
        return _series([f"{subject} {verb} {listed}", *parts.clause])
    parts = _parts(said, names, {"adv": 2, "tail": 2, "ing": 1}, speaker, chance, words)
    if parts is None or not (speaker.voice and names):
        return None
    verb = _spoken("speaks", parts, [], parts.ing, chance)
    return f"{article(speaker.voice)} voice, {listed}, {verb}"


def _clauses(
    said: Mapping[str, str],
    names: Sequence[str],
    voice: list[str],
    speaker: _Speaker,
    chance: random.Random,
    words: Mapping[str, Any],
) -> str | None:
    """A sentence of short clauses: the pace is slow, and pauses are frequent."""
    parts = _parts(said, names, {"clause": 3}, speaker, chance, words)
    if parts is None:
        return None
    found = list(parts.clause)
    if voice:
        found.insert(0, f"{speaker.their} voice is {_listed(voice)}")
    return _series(found) if found else None


def _later(
    said: Mapping[str, str],
    names: Sequence[str],
    voice: list[str],
    speaker: _Speaker,
    chance: random.Random,
    words: Mapping[str, Any],
) -> str | None:
    """A sentence about a speaker who was already brought in."""
    pattern = chance.choice(("verb", "clauses", "clauses", "sounds", "fronted"))
    if pattern == "clauses":
        return _clauses(said, names, voice, speaker, chance, words)
    if pattern == "sounds":
        parts = _parts(said, names, {"adj": 1, "tail": 2, "ing": 1}, speaker, chance, words)
        if parts is None or not parts.adj or "emotion" not in names:
            return None
        felt = parts.adj[0]
        if felt not in _forms(said, "emotion", words)["adj"]:
            return None
        rest = f", speaking{_spaced(_merged(parts.tail))}" if parts.tail else ""
        start = f"{speaker.they} sounds {felt}{rest}"
        if voice:
            start = f"{speaker.their} voice is {_listed(voice)}, and {start}"
        return f"{start}{_trailing(parts.ing)}"
    if pattern == "fronted":
        parts = _parts(
            said, names, {"adj": 1, "ing": 1, "adv": 2, "tail": 1}, speaker, chance, words
        )
        if parts is None or not (parts.adj or parts.ing):
            return None
        if any(" pitch " in text for text in parts.ing):
            return None
        if not (parts.adv or parts.tail or voice):
            return None
        return f"{_front(parts)}, {speaker.they} {_spoken(_later_verb(chance), parts, voice, [], chance)}"
    parts = _parts(said, names, {"adv": 2, "tail": 2, "ing": 1}, speaker, chance, words)
    if parts is None or not (parts.adv or parts.tail or voice):
        return None
    return f"{speaker.they} {_spoken(_later_verb(chance), parts, voice, parts.ing, chance)}"


def _verb(chance: random.Random) -> str:
    return chance.choice(("speaks", "speaks", "talks", "is speaking", "is talking"))


def _later_verb(chance: random.Random) -> str:
    return chance.choice(("speaks", "talks"))


def _spoken(
    verb: str, parts: _Parts, voice: list[str], ing: Sequence[str], chance: random.Random
) -> str:
    """The verb with all that follows it."""
    tails = list(parts.tail)
    if voice:
        tails.insert(0, f"in {article(_adjectives(voice, chance))} voice")
    # `Very slowly and softly` is very softly too.
    adverbs = sorted(parts.adv, key=lambda word: " " in word)
    manner = f" {' and '.join(adverbs)}" if adverbs else ""
    return f"{verb}{manner}{_spaced(_merged(tails))}{_trailing(ing)}"


def _merged(tails: Sequence[str]) -> list[str]:
    """Phrases in a good order: those with `with` last and under one preposition."""
    others = [tail for tail in tails if not tail.startswith("with ")]
    withs = [tail for tail in tails if tail.startswith("with ")]
    # `With many pauses and joy in her voice` would be a joke.
    if any(re.search(r"note of|voice", tail) for tail in withs):
        others += withs
    elif withs:
        others.append(" and ".join([withs[0], *(tail.removeprefix("with ") for tail in withs[1:])]))
    return others


def _spaced(texts: Sequence[str]) -> str:
    return "".join(f" {text}" for text in texts)


def _trailing(texts: Sequence[str]) -> str:
    return f", {' and '.join(texts)}" if texts else ""


def _front(parts: _Parts) -> str:
    """What comes before the subject, short before long."""
    return " and ".join(sorted([*parts.adj, *parts.ing], key=lambda text: len(text.split())))


def _adjectives(voice: Sequence[str], chance: random.Random) -> str:
    """Before the noun: low, hoarse; or low and hoarse."""
    if len(voice) == 2 and chance.random() < 0.3:
        return " and ".join(voice)
    return ", ".join(voice)


def _listed(texts: Sequence[str]) -> str:
    """After the verb: low, breathy and hoarse."""
    *most, last = texts
    return f"{', '.join(most)} and {last}" if most else last


def _series(clauses: Sequence[str]) -> str:
    """Clauses in one sentence."""
    if len(clauses) == 2:
        return ", and ".join(clauses)
    *most, last = clauses
    return f"{', '.join(most)}, and {last}" if most else last


def _with_free(
    texts: Sequence[str], said: Mapping[str, str], speaker: _Speaker, chance: random.Random
) -> list[str]:
    """The sentences and what is told in words of its own."""
    done = list(texts)
    if "accent" in said:
        accent = re.sub(r"^with ", "", said["accent"])
        named = bool(_ACCENTED.search(accent.casefold()))
        noun = accent if named else f"{accent} accent"
        noun = noun if _DETERMINED.match(noun) else article(noun)
        if not speaker.known or (named and chance.random() < 0.5):
            patterns = ["there is {}", "one hears {}"]
        else:
            patterns = [f"{speaker.they} has {{}}", f"{speaker.they} speaks with {{}}"]
        if not named and not _PLACED.match(accent):
            patterns.append(f"{speaker.their} accent is {accent}")
        if _PLACED.match(accent):
            patterns = [f"{speaker.they} has an accent {{}}"]
            noun = accent
        done.append(chance.choice(patterns).format(noun))
    texture = said.get("texture", "")
    if texture and not _textures(said):
        lead = "the voice is heard" if _PLACED.match(texture) else "the voice has"
        done.append(f"{lead} {texture}")
    if "scenario" in said:
        scene = said["scenario"]
        if _PLACED.match(scene):
            patterns = ["it is a voice as one hears it {}", "such a voice might be heard {}"]
        else:
            last = re.sub(r"[^a-z]", "", scene.casefold().split()[-1])
            patterns = ["it would suit {}", "the setting could be {}", "think of {}"]
            patterns += ["it could come from {}", "this might well be {}"]
            if _DOING.match(scene):
                patterns = ["it could be someone {}", "think of someone {}"]
            elif last in _COUNTED and not _DETERMINED.match(scene):
                scene = article(scene)
        done.append(chance.choice(patterns).format(scene))
    return done
