"""So many a second, and no more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Pace:
    """Lets so many pass a second, after a burst: a bucket of tokens.

    Args:
        rate_per_s: tokens that come back a second.
        burst: tokens at the start, and at most; one is the least, or nothing would ever pass.
        clock: monotonic seconds.
    """

    def __init__(self, rate_per_s: float, *, burst: float, clock: Callable[[], float]) -> None:
        self.rate_per_s = rate_per_s
        self._burst = max(burst, 1.0)
        self._clock = clock
        self._tokens = self._burst
        self._at_s = clock()

    def take(self, count: int = 1) -> bool:
        """Whether `count` may pass now; they then have."""
        self._refill()
        if self._tokens < count:
            return False
        self._tokens -= count
        return True

    async def wait(self, count: int) -> None:
        """Wait until `count` may pass; whoever is cancelled meanwhile has taken none."""
        self._refill()
        self._tokens -= count
        if self._tokens < 0.0:
            try:
                await asyncio.sleep(-self._tokens / self.rate_per_s)
            except BaseException:
                self._tokens += count
                raise

    def _refill(self) -> None:
        now_s = self._clock()
        self._tokens = min(self._burst, self._tokens + max(now_s - self._at_s, 0.0) * self.rate_per_s)
        self._at_s = now_s
