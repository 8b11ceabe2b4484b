"""The pace is tokens over seconds, without the first update and without pauses."""

import json
from pathlib import Path

import pytest

from coolbits.training import throughput
from coolbits.training.throughput import Throughput


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds, as a list of one number that a test moves on."""
    now = [100.0]
    monkeypatch.setattr(throughput, "monotonic", lambda: now[0])
    return now


def test_rows_are_appended_every_few_seconds(tmp_path: Path, clock: list[float]) -> None:
    pace = Throughput(tmp_path / "pace.jsonl", batch_tokens=1000)
    assert pace.note == "pace unknown"
    for step in range(1, 8):
        clock[0] += 30.0 if step == 1 else 2.0
        pace.after(step)
    rows = [json.loads(line) for line in (tmp_path / "pace.jsonl").read_text().splitlines()]
    assert rows == [
        {"step": 4, "tokens_per_second": 500.0, "seconds_per_step": 2.0},
        {"step": 7, "tokens_per_second": 500.0, "seconds_per_step": 2.0},
    ]
    assert pace.note == "0.5k tokens/s"


def test_a_pause_is_not_counted(tmp_path: Path, clock: list[float]) -> None:
    pace = Throughput(tmp_path / "pace.jsonl", batch_tokens=2_000_000)
    pace.after(1)
    clock[0] += 1.0
    pace.after(2)
    pace.pause()
    clock[0] += 50.0
    for step in range(3, 10):
        pace.after(step)
        clock[0] += 1.0
    assert pace.note == "2.0M tokens/s"
