"""What an audio language model answered, read strictly: a typed result or `MalformedAnswer`.

Packaging is forgiven (thoughts, code fences, prose around the one JSON object, capitals, null
for unsure, extra keys), content is not: a value that is not in its list, a refusal, an empty or
overlong description, or one that repeats the clip's words is no answer.
"""

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from annotators.prompts import DESCRIPTION_SCHEMA, UNSURE, VIEW_SCHEMA, comparison_schema
from annotators.written import Written
from schemas.descriptions import CLOSED, FREE, Claim
from schemas.errors import MalformedAnswer

# No honest answer comes near; a model that babbles would cost time to read.
LONGEST_ANSWER = 20_000
SHORTEST_DESCRIPTION = 5
LONGEST_DESCRIPTION = 600
LONGEST_FREE = 80
# Letters in a row, spaces not counted, from which on a match is no coincidence. A Chinese or
# Japanese character is about a syllable, so fewer of them say as much.
QUOTE_LETTERS = 20
QUOTE_CHARACTERS = 8
# Shown to the model and kept in quarantine.
LONGEST_REASON = 200

_THOUGHTS = re.compile(r"<think>.*?</think>", re.DOTALL)
_REFUSAL = re.compile(
    r"\bas an ai\b|\bi(?:'m| am) (?:sorry|unable|not able)\b|\bi (?:cannot|can't|can not)\b"
    r"|抱歉|无法(?:听|描述|处理|访问|提供)",
    re.IGNORECASE,
)
_NOTHING = {"", UNSURE, "unknown", "none", "n/a", "null", "not sure", "unclear"}
_WIDE = r"\u3040-\u30ff\u3400-\u9fff"
_HAS_WIDE = re.compile(f"[{_WIDE}]")
_SCRIPTS = {
    "zh": re.compile(r"[\u3400-\u9fff]"),
    "ja": re.compile(f"[{_WIDE}]"),
    "ko": re.compile(r"[\uac00-\ud7af]"),
    "ru": re.compile(r"[\u0400-\u04ff]"),
    "ar": re.compile(r"[\u0600-\u06ff]"),
    "hi": re.compile(r"[\u0900-\u097f]"),
    "en": re.compile(r"[A-Za-z]"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Impression:
    """What a model hears in one attribute."""

    name: str
    value: str
    confidence: float
    """Its own, in [0, 1]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Opinion:
    """What a model makes of one claim."""

    name: str
    opinion: str
    """`agree`, `disagree` or `unsure`."""


def read_description(answer: str, *, language: str, transcript: str | None) -> Written:
    """The answer to `prompts.describe`. Raises `MalformedAnswer`."""
    values = _by_schema(answer, DESCRIPTION_SCHEMA)
    text = _sentence(values["description"], "description")
    if len(text) < SHORTEST_DESCRIPTION:
        raise MalformedAnswer(f"description is empty or too short: {text!r}")
    if len(text) > LONGEST_DESCRIPTION:
        raise MalformedAnswer(
            f"description has {len(text)} characters, at most {LONGEST_DESCRIPTION} are allowed"
        )
    if _REFUSAL.search(text):
        raise MalformedAnswer("description is a refusal")
    script = _SCRIPTS.get(language)
    if script and not script.search(text):
        raise MalformedAnswer(f"description is not in the language {language}")
    if transcript and quotes(text, transcript):
        raise MalformedAnswer("description repeats the words that are said in the clip")
    claims = [Claim(name=name, value=values[name]) for name in CLOSED if values[name] != UNSURE]
    for name in FREE:
        value = _sentence(values[name], name)
        if len(value) > LONGEST_FREE:
            raise MalformedAnswer(
                f"{name} has {len(value)} characters, at most {LONGEST_FREE} are allowed"
            )
        if value.casefold().strip(" .") not in _NOTHING:
            claims.append(Claim(name=name, value=value))
    return Written(text=text, claims=tuple(claims))


def read_view(answer: str) -> tuple[Impression, ...]:
    """The answer to `prompts.blind_view`. Raises `MalformedAnswer`."""
    values = _by_schema(answer, VIEW_SCHEMA)
    return tuple(
        Impression(
            name=name, value=values[name]["value"], confidence=float(values[name]["confidence"])
        )
        for name in CLOSED
        if values[name]["value"] != UNSURE
    )


def read_comparison(answer: str, names: Sequence[str]) -> tuple[Opinion, ...]:
    """The answer to `prompts.compare` about claims of these names. Raises `MalformedAnswer`."""
    values = _by_schema(answer, comparison_schema(names))
    return tuple(Opinion(name=name, opinion=values[name]) for name in names)


def quotes(text: str, transcript: str) -> bool:
    """Whether the text repeats the transcript, or a long stretch of it."""
    said, told = _letters(transcript), _letters(text)
    limit = QUOTE_CHARACTERS if _HAS_WIDE.search(transcript) else QUOTE_LETTERS
    # Half a stretch may be a coincidence even where it is all that was said.
    if len(said) < limit // 2:
        return False
    size = min(limit, len(said))
    return any(said[start : start + size] in told for start in range(len(said) - size + 1))


def only_object(answer: str) -> dict[str, Any]:
    """The one JSON object in an answer, whatever stands around it. Raises `MalformedAnswer`."""
    if len(answer) > LONGEST_ANSWER:
        raise MalformedAnswer(
            f"the answer has {len(answer)} characters, at most {LONGEST_ANSWER} are read"
        )
    text = _THOUGHTS.sub("", answer)
    decoder = json.JSONDecoder(parse_constant=_refuse)
    found: list[dict[str, Any]] = []
    at = text.find("{")
    while at >= 0:
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            end = at + 1
        else:
            found.append(value)
        at = text.find("{", end)
    if len(found) != 1:
        raise MalformedAnswer(f"the answer holds {len(found)} JSON objects, not one")
    return found[0]


def _by_schema(answer: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    values = _tidy(only_object(answer), schema)
    worst = best_match(Draft202012Validator(schema).iter_errors(values))
    if worst is not None:
        where = ".".join(str(part) for part in worst.absolute_path) or "the object"
        reason = f"{where}: {worst.message}"[:LONGEST_REASON]
        # What a model answered may be more than UTF-8 can hold.
        raise MalformedAnswer(reason.encode("utf-8", "replace").decode())
    assert isinstance(values, dict)
    return values


def _tidy(value: Any, schema: Mapping[str, Any]) -> Any:
    """The value without what does no harm: unknown keys, null for unsure, capitals and spaces."""
    if schema["type"] == "object" and isinstance(value, dict):
        known = schema["properties"]
        return {name: _tidy(value[name], known[name]) for name in known if name in value}
    if schema["type"] == "string":
        listed = schema.get("enum", ())
        if value is None:
            return UNSURE if UNSURE in listed else ""
        if listed and isinstance(value, str):
            return value.strip().casefold()
    return value


def _sentence(value: str, name: str) -> str:
    """On one line, and fit to be stored. Raises `MalformedAnswer`."""
    text = " ".join(value.split())
    # Controls, and halves of surrogate pairs, which no UTF-8 can hold.
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
        raise MalformedAnswer(f"{name} holds characters that are no text")
    return text


def _letters(text: str) -> str:
    return "".join(character for character in text.casefold() if character.isalnum())


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is no JSON")
