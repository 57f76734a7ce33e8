"""What is said to a chat model about one clip, whoever writes it and whoever sends it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: str
    """`system`, `user` or `assistant`."""
    text: str
    hears: bool = False
    """Whether the clip's audio goes along."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """A question to a chat model, complete but for the audio."""

    name: str
    """What is asked for, such as `describe`."""
    messages: tuple[Message, ...]
    schema: Mapping[str, Any]
    """JSON schema of the answer, of those parts of the language that all servers know."""
    prompt_hash: str
    """Over the template and the schema, not over the clip."""

    @property
    def hears(self) -> bool:
        """Whether the audio goes along at all."""
        return any(message.hears for message in self.messages)
