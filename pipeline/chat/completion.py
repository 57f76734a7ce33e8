"""A chat completion as the endpoints send it, read leniently: only the content matters."""

import json
from dataclasses import dataclass
from typing import Any

from pipeline.chat.config import ChatConfig
from pipeline.chat.request import cost


@dataclass(frozen=True, kw_only=True, slots=True)
class Completion:
    """What came back."""

    content: str
    """Empty where the model refused or said nothing."""
    model: str | None
    system_fingerprint: str | None
    finish_reason: str | None
    usage: dict[str, Any]


def completion_of(raw: str) -> Completion:
    """Raises `ValueError` where the text is no chat completion."""
    try:
        values = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ValueError("the body is no JSON") from error
    try:
        choice = values["choices"][0]
        message = choice["message"]
        content = message.get("content")
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ValueError("the body holds no choice with a message") from error
    usage = values.get("usage")
    return Completion(
        content=_storable(_text(content)),
        model=_string(values.get("model")),
        system_fingerprint=_string(values.get("system_fingerprint")),
        finish_reason=_string(choice.get("finish_reason")),
        usage=_counts(usage) if isinstance(usage, dict) else {},
    )


def cost_of(config: ChatConfig, completion: Completion, worst_cost: float) -> float:
    """By its usage; the worst case where the endpoint does not tell it."""
    told = completion.usage.get("prompt_tokens")
    output = completion.usage.get("completion_tokens")
    if told is None or output is None:
        return worst_cost
    # Some endpoints count a model's thoughts in the total only.
    output = max(output, completion.usage.get("total_tokens", 0) - told)
    return cost(config, told, output)


def _counts(usage: dict[str, Any]) -> dict[str, Any]:
    """The numbers that the books need; endpoints add details of any shape."""
    names = ("prompt_tokens", "completion_tokens", "total_tokens")
    return {
        name: value
        for name in names
        if isinstance(value := usage.get(name), int) and not isinstance(value, bool) and value >= 0
    }


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        return "".join(part for part in parts if isinstance(part, str))
    return ""


def _string(value: Any) -> str | None:
    return _storable(value) if isinstance(value, str) else None


def _storable(text: str) -> str:
    """Halves of surrogate pairs are JSON, but no UTF-8."""
    return text.encode("utf-8", "replace").decode()
