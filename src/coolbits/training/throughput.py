"""Tokens a second: for the eye, and for a file in the work folder. It differs from run to run, so it is no result."""

import json
from pathlib import Path
from time import monotonic

_SECONDS_BETWEEN_ROWS = 5.0


class Throughput:
    """Measures the pace of training; a row of JSON is appended to `path` every few seconds.

    The first update of a process, which may compile, is not counted.
    """

    def __init__(self, path: Path, batch_tokens: int) -> None:
        self._path, self._batch_tokens = path, batch_tokens
        self._counted_from: tuple[int, float] | None = None
        self.tokens_per_second: float | None = None

    def after(self, step: int) -> None:
        """Say that `step` updates are done now."""
        if self._counted_from is None:
            self._counted_from = step, monotonic()
            return
        seconds, steps = monotonic() - self._counted_from[1], step - self._counted_from[0]
        if self.tokens_per_second is None or seconds >= _SECONDS_BETWEEN_ROWS:
            self.tokens_per_second = steps * self._batch_tokens / seconds
        if seconds >= _SECONDS_BETWEEN_ROWS:
            self._counted_from = step, monotonic()
            row = {"step": step, "tokens_per_second": self.tokens_per_second, "seconds_per_step": seconds / steps}
            with self._path.open("a") as stream:
                stream.write(json.dumps(row) + "\n")

    def pause(self) -> None:
        """Say that something else is done until the next update, which starts the count anew."""
        self._counted_from = None

    @property
    def note(self) -> str:
        """The pace as `105k tokens/s`."""
        pace = self.tokens_per_second
        if pace is None:
            return "pace unknown"
        return f"{pace / 1e6:.1f}M tokens/s" if pace >= 1e6 else f"{pace / 1e3:.3g}k tokens/s"
