"""What an audio language model is asked about a clip: prompts, and the JSON that must come back.

Four questions: to describe a clip whose measurements are known; to mend an answer that could not
be used; to judge a clip blind; and, after its own view, to say what it makes of the claims of a
description. The answers are read by `annotators.answers`.

The schemas use what every server that takes JSON schemas understands: objects, strings, enums and
numbers. `unsure` is a value like the others, since unions with null are not known everywhere.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from schemas.chat import Message, Prompt
from schemas.descriptions import CLOSED, FREE, Claim
from schemas.ids import content_id

UNSURE = "unsure"
OPINIONS = ("agree", "disagree", UNSURE)

LANGUAGES = {
    "ar": "Arabic",
    "de": "German",
    "en": "English",
    "es": "Spanish",
    "fr": "French",
    "hi": "Hindi",
    "it": "Italian",
    "ja": "Japanese",
    "ko": "Korean",
    "pt": "Portuguese",
    "ru": "Russian",
    "zh": "Chinese (simplified characters)",
}
"""How a model is told the language; any other is named by its code."""

_SYSTEM = (
    "You are an expert listener. You say how a voice sounds and how it speaks. You never say what "
    "is said, and never guess who the speaker is."
)
_DESCRIBE = """\
Listen to the clip and describe its voice and manner for a speech synthesiser.
{facts}{transcript}Answer with one JSON object and nothing else:
- attributes with listed values: what you hear, "{unsure}" where you cannot tell;
- texture, accent, scenario (where such a voice would be heard): a few words in {language} each, \
"" where you cannot tell;
- description: one to three natural sentences in {language} about voice and manner only; it says \
what the attributes say, and nothing beside them."""
_FACTS = "These were measured and are facts; your answer must agree with them: {facts}.\n"
_TRANSCRIPT = (
    "The words, only so that you can tell them from the manner; never quote or retell them: "
    "{transcript}\n"
)
_BLIND = """\
Listen to the clip and judge its voice and manner.
Answer with one JSON object and nothing else: for each attribute the listed value that you hear, \
"{unsure}" where you cannot tell, and your confidence from 0 to 1."""
_COMPARE = """\
Someone else described the same clip. The claims: {claims}.
Listen again and weigh each claim against what you hear; your first view may have been wrong.
Answer with one JSON object and nothing else: for each claim "agree", "disagree" or "{unsure}"."""
_REPAIR = """\
Your answer cannot be used: {reason}.
Answer again with one JSON object by the schema and nothing else."""

# A bad answer is shown to its writer up to here; the rest would only be paid for.
LONGEST_SHOWN = 4_000


def describe(*, facts: Mapping[str, str], transcript: str | None, language: str) -> Prompt:
    """Ask for a description in `language` (ISO 639-1) that agrees with `facts`.

    facts: measured attribute → its value in words.
    """
    told = "; ".join(f"{name}: {value}" for name, value in sorted(facts.items()))
    text = _DESCRIBE.format(
        facts=_FACTS.format(facts=told) if told else "",
        transcript=_TRANSCRIPT.format(transcript=_quoted(transcript)) if transcript else "",
        language=_name(language),
        unsure=UNSURE,
    )
    template = (_SYSTEM, _DESCRIBE, _FACTS, _TRANSCRIPT, _name(language))
    return _prompt("describe", text, DESCRIPTION_SCHEMA, template)


def blind_view() -> Prompt:
    """Ask what a model hears, before it knows what anybody said of the clip."""
    return _prompt("blind view", _BLIND.format(unsure=UNSURE), VIEW_SCHEMA, (_SYSTEM, _BLIND))


def compare(view: str, claims: Sequence[Claim]) -> Prompt:
    """Show a model the claims of a description, after its own blind view.

    view: its answer to `blind_view`, as it came.
    """
    first = blind_view()
    told = "; ".join(f"{claim.name}: {_quoted(claim.value)}" for claim in claims)
    text = _COMPARE.format(claims=told, unsure=UNSURE)
    schema = comparison_schema([claim.name for claim in claims])
    return Prompt(
        name="compare",
        messages=(
            *first.messages,
            Message(role="assistant", text=view[:LONGEST_SHOWN]),
            Message(role="user", text=text),
        ),
        schema=schema,
        prompt_hash=content_id("compare", first.prompt_hash, _COMPARE, json.dumps(OPINIONS)),
    )


def repair(prompt: Prompt, answer: str, reason: str) -> Prompt:
    """Show a model its answer and why it cannot be used.

    The audio goes along again only where the answer holds nothing that could be put in order.
    """
    hears = "{" not in answer
    shown = answer[:LONGEST_SHOWN] or "(no answer)"
    return Prompt(
        name=f"repair of {prompt.name}",
        messages=(
            *(replace(message, hears=message.hears and hears) for message in prompt.messages),
            Message(role="assistant", text=shown),
            Message(role="user", text=_REPAIR.format(reason=reason)),
        ),
        schema=prompt.schema,
        prompt_hash=content_id("repair", prompt.prompt_hash, _REPAIR),
    )


def comparison_schema(names: Sequence[str]) -> dict[str, Any]:
    """One opinion for each of `names`."""
    return _object({name: _enum(OPINIONS) for name in names})


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _enum(values: Sequence[str]) -> dict[str, Any]:
    return {"type": "string", "enum": list(values)}


def _prompt(name: str, text: str, schema: dict[str, Any], template: Sequence[str]) -> Prompt:
    return Prompt(
        name=name,
        messages=(
            Message(role="system", text=_SYSTEM),
            Message(role="user", text=text, hears=True),
        ),
        schema=schema,
        prompt_hash=content_id(name, *template, json.dumps(schema, sort_keys=True)),
    )


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _name(language: str) -> str:
    return LANGUAGES.get(language, f"the language with the ISO 639-1 code {language}")


DESCRIPTION_SCHEMA = _object(
    {
        **{name: _enum([*values, UNSURE]) for name, values in CLOSED.items()},
        **{name: {"type": "string"} for name in FREE},
        "description": {"type": "string"},
    }
)
VIEW_SCHEMA = _object(
    {
        name: _object(
            {
                "value": _enum([*values, UNSURE]),
                "confidence": {"type": "number", "minimum": 0, "maximum": 1},
            }
        )
        for name, values in CLOSED.items()
    }
)
