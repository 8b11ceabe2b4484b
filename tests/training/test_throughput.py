"""The pace is tokens over seconds, without the first update and without pauses."""

from math import isnan

import pytest

from coolbits.training import throughput
from coolbits.training.throughput import Throughput


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds, as a list of one number that a test moves on."""
    now = [100.0]
    monkeypatch.setattr(throughput, "monotonic", lambda: now[0])
    return now


def test_a_logged_update_gives_a_row_with_the_pace_since_the_one_before(clock: list[float]) -> None:
    pace = Throughput(batch_tokens=1000, log_steps=3)
    assert pace.note == "pace unknown"
    rows = []
    for step in range(1, 8):
        clock[0] += 30.0 if step == 1 else 2.0 if step <= 3 else 4.0
        rows.append(pace.after(step))
    assert rows == [
        *(None, None, {"step": 3, "tokens_per_second": 500.0}),
        *(None, None, {"step": 6, "tokens_per_second": 250.0}),
        None,
    ]
    assert pace.note == "250 tokens/s"


def test_a_pause_is_not_counted(clock: list[float]) -> None:
    pace = Throughput(batch_tokens=2_000_000, log_steps=10)
    pace.after(1)
    clock[0] += 1.0
    pace.after(2)
    pace.pause()
    clock[0] += 50.0
    for step in range(3, 10):
        pace.after(step)
        clock[0] += 1.0
    assert pace.note == "2M tokens/s"


def test_a_pace_just_below_a_million_is_a_million() -> None:
    pace = Throughput(batch_tokens=1, log_steps=1)
    pace.tokens_per_second = 999_600.0
    assert pace.note == "1M tokens/s"


def test_a_logged_update_before_which_nothing_was_counted_has_no_pace(clock: list[float]) -> None:
    row = Throughput(batch_tokens=1000, log_steps=1).after(1)
    assert row is not None
    assert row["step"] == 1
    assert isnan(row["tokens_per_second"])
