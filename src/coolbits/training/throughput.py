"""Tokens a second: for the eye, and as rows beside the metrics. They differ from run to run, so they are no result."""

from math import nan
from time import monotonic

from coolbits.study.units import si

Row = dict[str, float]


class Throughput:
    """Measures the pace of training between logged updates.

    The first update of a process, and the first after a pause, are not counted: they may compile, or follow a save.
    """

    def __init__(self, batch_tokens: int, log_steps: int) -> None:
        self._batch_tokens, self._log_steps = batch_tokens, log_steps
        self._counted_from: tuple[int, float] | None = None
        self.tokens_per_second = nan

    def after(self, step: int) -> Row | None:
        """Say that `step` updates are done now; return the row of a logged update, its pace NaN if none was counted."""
        now, pace = monotonic(), nan
        if self._counted_from is not None:
            counted, since = self._counted_from
            pace = self.tokens_per_second = (step - counted) * self._batch_tokens / (now - since)
        logged = step % self._log_steps == 0
        if logged or self._counted_from is None:
            self._counted_from = step, now
        return {"step": step, "tokens_per_second": pace} if logged else None

    def pause(self) -> None:
        """Say that something else is done until the next update, which starts the count anew."""
        self._counted_from = None

    @property
    def note(self) -> str:
        """The pace as `105k tokens/s`."""
        pace = self.tokens_per_second
        if pace != pace:
            return "pace unknown"
        return f"{si(pace)} tokens/s"
