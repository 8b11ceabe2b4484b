"""Progress with an estimate of the time left: a bar on a terminal, plain lines in a log or below a workflow."""

import os
import sys
from time import monotonic
from types import TracebackType
from typing import Self

from tqdm import tqdm

_SECONDS_BETWEEN_LINES = 20.0
PLAIN = "COOLBITS_PLAIN_PROGRESS"


def duration(seconds: float) -> str:
    """Say a duration as a person would: `45 s`, `3 min`, `2.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} d"


class Progress:
    """Counts `total` units of work under `label`; use it as a context manager and call `advance`.

    The time left is known from the second advance on: the first one's time holds what is done once, as compiling.
    """

    def __init__(self, label: str, total: int, unit: str, done: int = 0) -> None:
        self._label, self._total, self._unit = label, total, unit
        self._done = done
        self._first: tuple[float, int] | None = None  # when the first advance was made, and what was done then
        self._last_line = monotonic()
        plain = os.environ.get(PLAIN) or not sys.stdout.isatty()
        self._bar = None if plain else tqdm(total=total, initial=done, desc=label, unit=unit, file=sys.stdout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def advance(self, units: int = 1, note: str = "") -> None:
        """Say that `units` more are done; `note` is shown beside the count."""
        self._done += units
        self._first = self._first or (monotonic(), self._done)
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(units)
        elif monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = monotonic()
            print(self.line(note), flush=True)

    def line(self, note: str = "") -> str:
        """Return the state as one plain line."""
        since, done = self._first or (0.0, self._done)
        fresh = self._done - done
        left = duration((monotonic() - since) / fresh * (self._total - self._done)) if fresh else "unknown time"
        detail = f", {note}" if note else ""
        return f"{self._label}: {self._unit} {self._done:,} of {self._total:,}{detail}, {left} left"
