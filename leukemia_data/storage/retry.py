"""Another attempt, a while later: bounded, longer each time, and not for all at once."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from leukemia_data.storage.faults import is_transient

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Retry:
    """How often a request is made, and how long is waited between.

    Attributes
    ----------
    num_attempts
        How often at most, 1 and more.
    first_s, most_s
        The longest wait before the second attempt, doubled for each further one; and its bound. Seconds.
    sleep
        Called with seconds.
    draw
        A number from 0 to 1; the wait is between half and all of the longest, so that many workers that were refused
        at the same time do not come back at the same time.
    """

    num_attempts: int = 6
    first_s: float = 0.25
    most_s: float = 10.0
    sleep: Callable[[float], None] = time.sleep
    draw: Callable[[], float] = random.random

    def run(self, request: Callable[[], Result]) -> Result:
        """Make a request until it succeeds; its last error, or the first that no waiting mends, goes on."""
        for attempt in range(1, self.num_attempts):
            try:
                return request()
            except Exception as error:
                if not is_transient(error):
                    raise
            self.sleep(self.wait_s(attempt))
        return request()

    def wait_s(self, attempt: int) -> float:
        """Seconds to wait after attempt number `attempt`, from 1."""
        longest_s = min(self.most_s, self.first_s * 2.0 ** (attempt - 1))
        return longest_s * (0.5 + 0.5 * self.draw())
