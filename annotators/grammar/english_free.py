"""What an English description tells in words of its own: accent, scenario, an unusual texture."""

import random
import re
from collections.abc import Mapping, Sequence

from annotators.grammar.english_phrases import Speaker, article

DETERMINED = re.compile(
    r"(?:an?|the|his|her|their|its|some|someone|somebody|one|two|several|many|my|our|your)\b",
    re.IGNORECASE,
)
PLACED = re.compile(
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


def with_free(
    texts: Sequence[str], said: Mapping[str, str], speaker: Speaker, chance: random.Random
) -> list[str]:
    """The sentences and what is told in words of its own."""
    done = list(texts)
    if "accent" in said:
        accent = re.sub(r"^with ", "", said["accent"])
        named = bool(_ACCENTED.search(accent.casefold()))
        noun = accent if named else f"{accent} accent"
        noun = noun if DETERMINED.match(noun) else article(noun)
        if not speaker.known or (named and chance.random() < 0.5):
            patterns = ["there is {}", "one hears {}"]
        else:
            patterns = [f"{speaker.they} has {{}}", f"{speaker.they} speaks with {{}}"]
        if not named and not PLACED.match(accent):
            patterns.append(f"{speaker.their} accent is {accent}")
        if PLACED.match(accent):
            patterns = [f"{speaker.they} has an accent {{}}"]
            noun = accent
        done.append(chance.choice(patterns).format(noun))
    texture = said.get("texture", "")
    if texture and not textures(said):
        lead = "the voice is heard" if PLACED.match(texture) else "the voice has"
        done.append(f"{lead} {texture}")
    if "scenario" in said:
        scene = said["scenario"]
        if PLACED.match(scene):
            patterns = ["it is a voice as one hears it {}", "such a voice might be heard {}"]
        else:
            last = re.sub(r"[^a-z]", "", scene.casefold().split()[-1])
            patterns = ["it would suit {}", "the setting could be {}", "think of {}"]
            patterns += ["it could come from {}", "this might well be {}"]
            if _DOING.match(scene):
                patterns = ["it could be someone {}", "think of someone {}"]
            elif last in _COUNTED and not DETERMINED.match(scene):
                scene = article(scene)
        done.append(chance.choice(patterns).format(scene))
    return done


def textures(said: Mapping[str, str]) -> list[str]:
    """Adjectives; a texture told by a noun is left to `with_free`."""
    value = said.get("texture", "")
    if not value or _is_noun(value):
        return []
    value = re.sub(r"[ -]voice$|-voiced$", "", value)
    parts = [part.strip() for part in re.split(r",| and ", value) if part.strip()]
    return [re.sub(r"^and ", "", part) for part in parts]


def _is_noun(texture: str) -> bool:
    return bool(DETERMINED.match(texture) or PLACED.match(texture)) or len(texture.split()) > 6
