"""What a server's answer other than a good one means: try again, give the question up, or stop."""

import email.utils
from collections.abc import Mapping
from datetime import UTC, datetime

# The key, the account, the model or the address is wrong: so it is for every question.
STOPPING = frozenset({401, 402, 403, 404})
RETRIED = frozenset({408, 409, 425, 429})
# Somebody between gave up waiting; the model may have answered, and been paid.
MAY_BE_BILLED = frozenset({408, 504, 524})

LONGEST_REASON = 200


class Failed(Exception):
    """A request that brought no answer."""

    def __init__(
        self,
        reason: str,
        *,
        again: bool,
        billed: bool = False,
        stops: bool = False,
        crowded: bool = False,
        retry_after_s: float = 0.0,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.again = again
        """Whether it may go better a little later."""
        self.billed = billed
        """Whether it may have cost something all the same."""
        self.stops = stops
        """Whether every other question will fare as badly."""
        self.crowded = crowded
        """Whether the server asked for fewer requests."""
        self.retry_after_s = retry_after_s


def failed(status: int, headers: Mapping[str, str], text: str) -> Failed:
    """What an HTTP status other than 200 means. text: the body, without secrets."""
    reason = f"HTTP {status}: {' '.join(text.split())[:LONGEST_REASON]}"
    return Failed(
        reason,
        again=status in RETRIED or status >= 500,
        billed=status in MAY_BE_BILLED,
        stops=status in STOPPING,
        crowded=status == 429,
        retry_after_s=retry_after_s(headers.get("Retry-After", "")),
    )


def retry_after_s(value: str) -> float:
    """Seconds, or a date, as HTTP has it; 0 where it says nothing that can be read."""
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        date = email.utils.parsedate_to_datetime(value)
    except (ValueError, TypeError):
        return 0.0
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.now(UTC)).total_seconds())
