"""The settings of one chat endpoint."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

from schemas.errors import ConfigError

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatConfig:
    """Which model is asked, at what price and pace, and under which terms. Off without a `url`."""

    url: str | None = None
    """Address of the endpoint up to its version, such as `http://localhost:8000/v1`; null: off."""
    model: str = ""
    """Model id, as the endpoint knows it."""
    provider: str = ""
    """Who answers, as kept with every answer; empty: the host of the url."""
    terms: str = ""
    """The user's declaration: under which terms the answers may be used, and for what. Required.
    Some providers forbid training models that compete with theirs."""
    key_env: str | None = "OPENAI_API_KEY"
    """Environment variable that holds the key, wherever Ray's workers run; null: no key. The key
    itself is no setting, so that no profile, record or log can hold it."""

    input_price: float | None = None
    """Per million tokens of input, audio included; 0 for a server of one's own. Required."""
    output_price: float | None = None
    """Per million tokens of output, thoughts included, in the same currency. Required."""
    ceiling: float | None = None
    """The most that all answers and lost requests of this corpus may cost, over all its runs and
    models. Required where there is a price."""
    max_output_tokens: int = 4096
    """Thoughts included, so a model that thinks needs many more than its answer has."""
    audio_tokens_per_s: float = 50.0
    """An upper bound, for the worst case of a request: Gemini counts 32, Step-Audio and
    Qwen-Audio at most 25."""

    requests_per_minute: float = 60.0
    max_in_flight: int = 16
    """Requests that wait for their answer at the same time."""
    timeout_s: float = 120.0
    """For one request; what it costs if it is billed all the same is kept at its worst case."""
    max_retries: int = 6
    """After 408, 409, 425, 429, 5xx, a timeout or a broken connection."""
    first_wait_s: float = 1.0
    """Before the first retry; doubles with each, with jitter. `Retry-After` makes it longer."""
    longest_wait_s: float = 60.0
    failures_in_a_row: int = 20
    """Questions that fail one after another before the run stops."""

    temperature: float | None = 0.0
    """Null where the endpoint takes none."""
    json_schema: bool = True
    """Whether the endpoint takes `response_format: json_schema`; if not, the prompt has it."""
    audio_format: Literal["wav", "flac"] = "wav"
    """`wav`: 16 kHz, mono, 16 bit. `flac`: as the corpus holds it, at its own rate."""
    limit_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What the endpoint calls `max_output_tokens`."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the request, such as `reasoning_effort`; kept in run records, so no secrets."""

    def __post_init__(self) -> None:
        if self.url is None:
            return
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            # Not shown: it may hold what should be secret.
            raise ConfigError("chat url must start with http:// or https:// and name a host")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ConfigError(
                "chat url must hold no user, password, query or fragment: it is kept with every "
                "answer; the key belongs into the environment variable that key_env names"
            )
        if not self.model:
            raise ConfigError("chat needs a model")
        if self.key_env is not None and not _VARIABLE.fullmatch(self.key_env):
            # Not shown: it is likely the key itself.
            raise ConfigError("chat key_env must be the name of an environment variable")
        if not self.terms.strip():
            raise ConfigError(
                "chat needs terms: declare under which terms of the provider the answers may be "
                "used for training; some forbid it for competing models"
            )
        self._check_money()
        self._check_pace()

    def _check_money(self) -> None:
        if self.input_price is None or self.output_price is None:
            raise ConfigError(
                "chat needs input_price and output_price per million tokens (0 if it is free)"
            )
        if self.input_price < 0 or self.output_price < 0:
            raise ConfigError("chat prices must not be negative")
        if self.ceiling is None and (self.input_price or self.output_price):
            raise ConfigError("chat has a price, so it needs a ceiling")
        if self.ceiling is not None and self.ceiling < 0:
            raise ConfigError(f"chat ceiling must not be negative, got {self.ceiling}")
        if self.max_output_tokens < 1 or self.audio_tokens_per_s <= 0:
            raise ConfigError("chat max_output_tokens >= 1 and audio_tokens_per_s > 0 are needed")

    def _check_pace(self) -> None:
        if self.requests_per_minute <= 0 or self.max_in_flight < 1 or self.timeout_s <= 0:
            raise ConfigError(
                "chat requests_per_minute > 0, max_in_flight >= 1 and timeout_s > 0 are needed"
            )
        if self.max_retries < 0 or not 0 <= self.first_wait_s <= self.longest_wait_s:
            raise ConfigError(
                "chat max_retries >= 0 and 0 <= first_wait_s <= longest_wait_s are needed"
            )
        if self.failures_in_a_row < 1:
            raise ConfigError("chat failures_in_a_row must be at least 1")

    @property
    def on(self) -> bool:
        """Whether there is anybody to ask."""
        return self.url is not None

    @property
    def endpoint(self) -> str:
        """Where questions go."""
        assert self.url is not None
        base = self.url.rstrip("/")
        return base if base.endswith("/chat/completions") else f"{base}/chat/completions"

    @property
    def host(self) -> str:
        """Host, and port if one is given."""
        return urlsplit(self.url or "").netloc

    @property
    def provider_name(self) -> str:
        """As kept with every answer."""
        return self.provider or self.host
