"""How fast a run goes, and how long it will still take."""

import time


class Throughput:
    """Counts the steps of this process, evaluations between them included. The rate forgets with each step."""

    def __init__(self, steps_left: int) -> None:
        self.steps_left = steps_left
        self.images_per_second = 0.0
        self._started = self._last = time.perf_counter()
        self._steps = 0

    def step(self, images: int) -> None:
        now = time.perf_counter()
        rate = images / max(now - self._last, 1e-9)
        self.images_per_second = rate if self._steps == 0 else 0.95 * self.images_per_second + 0.05 * rate
        self._last = now
        self._steps += 1
        self.steps_left -= 1

    @property
    def seconds_left(self) -> float:
        return max(self.steps_left, 0) * (self._last - self._started) / max(self._steps, 1)
