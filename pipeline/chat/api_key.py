"""The key of an endpoint: from the environment only, and out of every text."""

import os
import re
from collections.abc import Iterator

from schemas.errors import ConfigError

HIDDEN = "[key]"
# A server may quote a part of the key; so much of it in a row is no coincidence.
_TELLING = 8
_KEY_LIKE = re.compile(r"(?i:bearer)\s+[^\s\"',}]+|\b(?:sk|pk|rk|gsk)-[\w-]{8,}|\bAIza[\w-]{20,}")


class ApiKey:
    """Holds a key, or none, and shows it to nobody but the request."""

    __slots__ = ("_key",)

    def __init__(self, key: str | None) -> None:
        self._key = key

    def __repr__(self) -> str:
        return f"ApiKey({HIDDEN})"

    def __reduce__(self) -> str:
        # Whoever needs it in another process reads it from the environment there.
        raise TypeError("a key does not travel")

    @property
    def headers(self) -> dict[str, str]:
        """The header that carries it."""
        return {} if self._key is None else {"Authorization": f"Bearer {self._key}"}

    def hide(self, text: str) -> str:
        """The text without the key, parts of it, and anything that looks like one."""
        for start, end in reversed(self._stretches(text)):
            text = text[:start] + HIDDEN + text[end:]
        return _KEY_LIKE.sub(HIDDEN, text)

    def _stretches(self, text: str) -> list[tuple[int, int]]:
        """Where the text repeats the key, or enough of it: (start, end), in order, apart."""
        key = self._key or ""
        size = min(_TELLING, len(key))
        parts = {key[start : start + size] for start in range(len(key) - size + 1)} - {""}
        found: list[tuple[int, int]] = []
        for start in sorted(start for part in parts for start in _places(part, text)):
            if found and start <= found[-1][1]:
                found[-1] = (found[-1][0], start + size)
            else:
                found.append((start, start + size))
        return found


def key_from_environment(name: str | None) -> ApiKey:
    """The key that an environment variable of this process holds; none where `name` is null.

    Raises `ConfigError`, which names the variable and not what is in it.
    """
    if name is None:
        return ApiKey(None)
    key = os.environ.get(name, "").strip()
    if not key:
        raise ConfigError(f"environment variable {name} holds no key; chat.key_env names it")
    if not all("!" <= character <= "~" for character in key):
        raise ConfigError(f"environment variable {name} holds characters that no key has")
    return ApiKey(key)


def _places(part: str, text: str) -> Iterator[int]:
    at = text.find(part)
    while at >= 0:
        yield at
        at = text.find(part, at + 1)
