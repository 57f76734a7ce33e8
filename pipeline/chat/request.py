"""A prompt as the body of a request, and the key under which its answer is kept."""

import base64
import json
from dataclasses import dataclass
from typing import Any

from pipeline.chat.config import ChatConfig
from schemas.chat import Message, Prompt
from schemas.ids import content_id

# What a server's own template adds around the text, at most.
TEMPLATE_TOKENS = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """A prompt about one clip."""

    clip_id: str
    part: str
    """Part of `clips` that holds the clip's row."""
    duration_s: float
    prompt: Prompt
    again: int = 0
    """Counts up to have the very same question answered anew, since a kept answer serves for ever."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """A question, ready to be sent but for its audio. Travels to a worker as JSON."""

    key: str
    clip_id: str
    part: str
    role: str
    prompt_hash: str
    hears: bool
    worst_cost: float
    """What it can cost at most, in the currency of the prices."""
    body: dict[str, Any]


def request_of(config: ChatConfig, question: Question) -> Request:
    """What to send. The key covers all that decides the answer, measured facts included."""
    prompt = question.prompt
    asked: dict[str, Any] = {
        "messages": [_message(config, item) for item in _messages(config, prompt)]
    }
    if config.json_schema:
        asked["response_format"] = {
            "type": "json_schema",
            "json_schema": {
                "name": prompt.name.replace(" ", "_"),
                "strict": True,
                "schema": prompt.schema,
            },
        }
    if config.temperature is not None:
        asked["temperature"] = config.temperature
    asked |= config.extra
    words = json.dumps(asked, sort_keys=True, ensure_ascii=False)
    key = content_id(question.clip_id, config.model, prompt.name, words, question.again)
    body = {"model": config.model, config.limit_field: config.max_output_tokens, **asked}
    audio_s = question.duration_s if prompt.hears else 0.0
    return Request(
        key=key,
        clip_id=question.clip_id,
        part=question.part,
        role=prompt.name,
        prompt_hash=prompt.prompt_hash,
        hears=prompt.hears,
        worst_cost=worst_cost(config, json.dumps(body, ensure_ascii=False), audio_s),
        body=body,
    )


def worst_cost(config: ChatConfig, text: str, audio_s: float) -> float:
    """The most that a request can cost: a token of text is at least a byte."""
    tokens = len(text.encode()) + TEMPLATE_TOKENS + audio_s * config.audio_tokens_per_s
    return cost(config, tokens, config.max_output_tokens)


def cost(config: ChatConfig, input_tokens: float, output_tokens: float) -> float:
    """In the currency of the prices."""
    spent = input_tokens * (config.input_price or 0) + output_tokens * (config.output_price or 0)
    return spent / 1e6


def with_audio(body: dict[str, Any], audio: bytes) -> dict[str, Any]:
    """The body with the audio in every place that waits for it."""
    data = base64.b64encode(audio).decode()
    return {**body, "messages": [_filled(message, data) for message in body["messages"]]}


def _filled(message: dict[str, Any], data: str) -> dict[str, Any]:
    if isinstance(message["content"], str):
        return message
    parts = [
        {**part, "input_audio": {**part["input_audio"], "data": data}}
        if part["type"] == "input_audio"
        else part
        for part in message["content"]
    ]
    return {**message, "content": parts}


def _messages(config: ChatConfig, prompt: Prompt) -> tuple[Message, ...]:
    if config.json_schema:
        return prompt.messages
    *before, last = prompt.messages
    schema = json.dumps(prompt.schema, ensure_ascii=False)
    told = f"{last.text}\nThe JSON schema: {schema}"
    return (*before, Message(role=last.role, text=told, hears=last.hears))


def _message(config: ChatConfig, message: Message) -> dict[str, Any]:
    if not message.hears:
        return {"role": message.role, "content": message.text}
    audio = {"data": "", "format": config.audio_format}
    return {
        "role": message.role,
        "content": [
            {"type": "text", "text": message.text},
            {"type": "input_audio", "input_audio": audio},
        ],
    }
