import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coolbits.artifacts.errors import CoolbitsError
from coolbits.optim.schedules import factor, learning_rate, phase, tail, trunk
from coolbits.study.recipes.training import WSD, Constant, Cooldown, Cosine, Linear, Schedule

SHAPES = st.sampled_from(["linear", "sqrt", "cosine"])
FRACTIONS = st.floats(0, 1)
LENGTHS = st.integers(1, 300)


@st.composite
def wsd_schedules(draw: st.DrawFn) -> WSD:
    """Warmup, stable part and decay of any length, in that order."""
    warmup, stable, decay = draw(st.integers(0, 100)), draw(st.integers(0, 100)), draw(LENGTHS)
    return WSD(
        warmup_steps=warmup,
        total_steps=warmup + stable + decay,
        decay_steps=decay,
        decay_shape=draw(SHAPES),
        final_fraction=draw(FRACTIONS),
    )


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    """Any schedule, a cooldown that starts within the warmup included."""
    warmup, length, final = draw(st.integers(0, 100)), draw(LENGTHS), draw(FRACTIONS)
    kind = draw(st.sampled_from(["constant", "cosine", "linear", "wsd", "cooldown"]))
    match kind:
        case "constant":
            return Constant(warmup_steps=warmup)
        case "cosine":
            return Cosine(warmup_steps=warmup, total_steps=warmup + length, final_fraction=final)
        case "linear":
            return Linear(warmup_steps=warmup, total_steps=warmup + length, final_fraction=final)
        case "wsd":
            return draw(wsd_schedules())
        case _:
            start = draw(st.integers(0, 200))
            return Cooldown(
                warmup_steps=warmup,
                start_step=start,
                decay_steps=length,
                decay_shape=draw(SHAPES),
                final_fraction=final,
            )


def factors(schedule: Schedule, steps: range) -> list[float]:
    return [factor(schedule, step) for step in steps]


class TestValuesByHand:
    def test_constant_warms_up_to_the_peak_with_its_last_warmup_update(self) -> None:
        assert factors(Constant(warmup_steps=4), range(6)) == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]

    def test_constant_without_warmup_is_at_the_peak_from_the_first_update(self) -> None:
        assert factor(Constant(warmup_steps=0), 0) == 1.0

    def test_linear_falls_to_zero_at_its_end_and_stays_there(self) -> None:
        schedule = Linear(warmup_steps=2, total_steps=6)
        assert factors(schedule, range(9)) == [0.5, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0, 0.0]

    def test_linear_falls_to_the_final_fraction(self) -> None:
        assert factors(Linear(warmup_steps=0, total_steps=2, final_fraction=0.5), range(4)) == [1.0, 0.75, 0.5, 0.5]

    def test_cosine_is_halfway_down_in_the_middle(self) -> None:
        schedule = Cosine(warmup_steps=10, total_steps=110, final_fraction=0.1)
        assert factor(schedule, 10) == 1.0
        assert factor(schedule, 60) == pytest.approx(0.55, abs=1e-15)
        assert factor(schedule, 35) == pytest.approx(0.1 + 0.9 * (0.5 + math.sqrt(2) / 4), abs=1e-15)
        assert factor(schedule, 110) == 0.1

    def test_wsd_of_plain_numbers(self) -> None:
        schedule = WSD(warmup_steps=2, total_steps=8, decay_steps=4)
        assert factors(schedule, range(9)) == [0.5, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]

    @pytest.mark.parametrize(
        ("shape", "quarters"),
        [
            ("linear", [1.0, 0.75, 0.5, 0.25, 0.0]),
            ("sqrt", [1.0, 0.5, 1 - math.sqrt(0.5), 1 - math.sqrt(0.75), 0.0]),
            ("cosine", [1.0, 0.5 + math.sqrt(2) / 4, 0.5, 0.5 - math.sqrt(2) / 4, 0.0]),
        ],
    )
    def test_decay_shapes_at_their_quarters(self, shape: str, quarters: list[float]) -> None:
        schedule = Cooldown(warmup_steps=0, start_step=10, decay_steps=4, decay_shape=shape)
        assert factors(schedule, range(10, 15)) == pytest.approx(quarters, abs=1e-15)

    def test_a_cooldown_within_the_warmup_falls_from_the_rate_reached_there(self) -> None:
        schedule = Cooldown(warmup_steps=10, start_step=4, decay_steps=2)
        assert factors(schedule, range(3, 7)) == [0.4, 0.5, 0.25, 0.0]

    def test_learning_rate_is_the_factor_of_the_peak(self) -> None:
        assert learning_rate(Linear(warmup_steps=0, total_steps=4), 3e-3, 1) == 3e-3 * 0.75


class TestProperties:
    @given(schedules(), st.integers(0, 1000))
    def test_a_factor_is_never_negative_and_never_above_the_peak(self, schedule: Schedule, step: int) -> None:
        assert 0.0 <= factor(schedule, step) <= 1.0

    @given(wsd_schedules())
    def test_a_branch_equals_the_tail_of_the_monolithic_schedule_exactly(self, wsd: WSD) -> None:
        start = wsd.total_steps - wsd.decay_steps
        assert factors(tail(wsd), range(start, wsd.total_steps + 2)) == factors(wsd, range(start, wsd.total_steps + 2))

    @given(wsd_schedules())
    def test_a_trunk_equals_the_schedule_until_its_decay_begins_exactly(self, wsd: WSD) -> None:
        stable = range(wsd.total_steps - wsd.decay_steps + 1)
        assert factors(trunk(wsd), stable) == factors(wsd, stable)

    @given(schedules())
    def test_a_rate_rises_in_warmup_and_never_rises_after_it(self, schedule: Schedule) -> None:
        steps = range(600)
        for step, (now, following) in zip(steps, pairwise(factors(schedule, steps)), strict=False):
            if phase(schedule, step + 1) == "warmup":
                assert now < following
            elif phase(schedule, step) != "warmup":
                assert now >= following

    @given(schedules())
    def test_a_rate_moves_by_no_more_than_the_steepest_slope_of_its_parts(self, schedule: Schedule) -> None:
        lengths = {
            "constant": 0,
            "cosine": getattr(schedule, "total_steps", 0) - schedule.warmup_steps,
            "linear": getattr(schedule, "total_steps", 0) - schedule.warmup_steps,
        }
        decay_steps = lengths.get(schedule.kind, getattr(schedule, "decay_steps", 0))
        shape = getattr(schedule, "decay_shape", schedule.kind)
        steepest = {"linear": 1.0, "cosine": math.pi / 2}
        bounds = [1 / schedule.warmup_steps] if schedule.warmup_steps else []
        if decay_steps:
            bounds.append(math.sqrt(1 / decay_steps) if shape == "sqrt" else steepest[shape] / decay_steps)
        jumps = [abs(following - now) for now, following in pairwise(factors(schedule, range(600)))]
        assert max(jumps) <= max(bounds, default=0.0) + 1e-12

    @given(wsd_schedules())
    def test_the_end_of_a_decay_is_the_final_fraction_and_stays(self, wsd: WSD) -> None:
        assert factor(wsd, wsd.total_steps) == wsd.final_fraction
        assert factor(wsd, wsd.total_steps + 10_000) == wsd.final_fraction


class TestPhases:
    def test_wsd_passes_through_all_three(self) -> None:
        schedule = WSD(warmup_steps=2, total_steps=6, decay_steps=2)
        phases = [phase(schedule, step) for step in range(7)]
        assert phases == ["warmup", "warmup", "stable", "stable", "stable", "decay", "decay"]

    def test_a_trunk_never_decays(self) -> None:
        assert {phase(Constant(warmup_steps=2), step) for step in range(2, 500)} == {"stable"}

    def test_a_cosine_is_at_its_peak_for_one_update(self) -> None:
        schedule = Cosine(warmup_steps=1, total_steps=4)
        assert [phase(schedule, step) for step in range(4)] == ["warmup", "stable", "decay", "decay"]

    @given(schedules(), st.integers(0, 400))
    def test_stable_means_that_the_rate_is_the_highest_of_the_schedule(self, schedule: Schedule, step: int) -> None:
        if phase(schedule, step) == "stable":
            assert factor(schedule, step) == max(factors(schedule, range(600)))


class TestErrors:
    def test_a_decay_longer_than_the_schedule_is_refused(self) -> None:
        with pytest.raises(CoolbitsError, match="decay_steps is 11; it must be at most total_steps, 10"):
            factor(WSD(warmup_steps=0, total_steps=10, decay_steps=11), 0)

    @pytest.mark.parametrize("kind", [Cosine, Linear])
    def test_a_warmup_as_long_as_the_schedule_is_refused(self, kind: type[Cosine | Linear]) -> None:
        with pytest.raises(CoolbitsError, match="warmup_steps is 10; it must be below total_steps, 10"):
            factor(kind(warmup_steps=10, total_steps=10), 0)
