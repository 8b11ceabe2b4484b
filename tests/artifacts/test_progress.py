"""Progress: plain lines where there is no terminal, and what they say of the time left."""

import pytest

from coolbits.artifacts import progress
from coolbits.artifacts.progress import PLAIN, Progress, duration


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "monotonic", clock)
    monkeypatch.setenv(PLAIN, "1")
    return clock


@pytest.mark.parametrize(
    ("seconds", "said"), [(45, "45 s"), (89, "89 s"), (180, "3 min"), (9000, "2.5 h"), (259_200, "3.0 d")]
)
def test_a_duration_is_said_as_a_person_would(seconds: float, said: str) -> None:
    assert duration(seconds) == said


class TestTimeLeft:
    def test_before_anything_is_done_it_is_unknown(self, clock: Clock) -> None:
        assert Progress("run", 400, "step").line() == "run: step 0 of 400, unknown time left"

    def test_the_first_advance_which_may_compile_does_not_count(self, clock: Clock) -> None:
        run = Progress("run", 400, "step")
        clock.now += 40
        run.advance(1, "loss 6.26")
        assert run.line("loss 6.26") == "run: step 1 of 400, loss 6.26, unknown time left"
        clock.now += 5
        run.advance(50)
        assert run.line() == "run: step 51 of 400, 35 s left"

    def test_what_an_earlier_run_did_does_not_count(self, clock: Clock) -> None:
        run = Progress("run", 1000, "step", done=900)
        run.advance()
        clock.now += 10
        run.advance()
        assert run.line() == "run: step 902 of 1,000, 16 min left"


def test_a_line_is_printed_every_twenty_seconds_at_most(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("run", 100, "step") as run:
        for _ in range(50):
            clock.now += 1
            run.advance()
    said = capsys.readouterr().out.splitlines()
    assert said == ["run: step 20 of 100, 80 s left", "run: step 40 of 100, 60 s left"]
