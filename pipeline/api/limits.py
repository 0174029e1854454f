"""How often one may ask: a bucket of tokens for every caller."""

import time
from collections.abc import Callable

CALLERS = 10_000  # of which buckets are kept; the idlest are forgotten


class Rate:
    """Lets each caller through `burst` times at once, and `rate` times a second thereafter.

    Parameters
    ----------
    rate : float > 0
    burst : int >= 1
    clock : callable, optional
        Seconds that only rise.
    """

    def __init__(
        self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.rate, self.burst, self.clock = rate, burst, clock
        self._buckets: dict[str, tuple[float, float]] = {}  # caller to what is left, and when

    def wait(self, caller: str) -> float:
        """Take one; 0 if there was one, else the seconds until there is."""
        now = self.clock()
        left, since = self._buckets.pop(caller, (float(self.burst), now))
        left = min(float(self.burst), left + (now - since) * self.rate)
        passes = left >= 1
        self._buckets[caller] = (left - passes, now)  # the newest stands last
        if len(self._buckets) > CALLERS:
            del self._buckets[next(iter(self._buckets))]  # idle for longest, so the fullest
        return 0.0 if passes else (1 - left) / self.rate
