"""The books: what was spent, what is promised to requests on their way, and the ceiling over both."""

import asyncio

from pipeline.chat.responses import Responses
from pipeline.storage import Corpus

# Sums of many small amounts in floating point.
_ROUNDING = 1e-9


class Purse:
    """What a corpus has cost over all runs and models; one for all who ask in a run."""

    def __init__(self, corpus: Corpus) -> None:
        self._responses = Responses(corpus)
        self._spent: float | None = None

    @property
    def spent(self) -> float:
        """Counted from the kept responses at first, then kept up to date."""
        if self._spent is None:
            self._spent = self._responses.total_cost()
        return self._spent

    def add(self, amount: float) -> None:
        """What a question has cost more than was known; its response is kept by now."""
        if self._spent is not None:
            self._spent += amount


class Books:
    """One worker's books: nothing leaves before its worst case is set aside.

    For one event loop; no locks are needed between its awaits.
    """

    def __init__(self, *, spent: float, ceiling: float | None) -> None:
        self.spent = spent
        self.reserved = 0.0
        self.ceiling = ceiling
        self._changed = asyncio.Event()

    async def reserve(self, amount: float) -> bool:
        """Set an amount aside; False where it does not fit under the ceiling.

        Waits where it may fit once others that are on their way turn out cheaper than their worst.
        """
        while not self._fits(self.reserved + amount):
            if not self._fits(amount):
                return False
            changed = self._changed
            await changed.wait()
        self.reserved += amount
        return True

    def settle(self, amount: float, cost: float) -> None:
        """What was set aside has cost this much."""
        self.reserved = max(0.0, self.reserved - amount)
        self.spent += cost
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _fits(self, amount: float) -> bool:
        return self.ceiling is None or self.spent + amount <= self.ceiling + _ROUNDING
