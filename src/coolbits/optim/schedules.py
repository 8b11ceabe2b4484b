"""Learning-rate schedules: pure functions of the update's number.

Update number `step` (from 0) takes the weights of step `step` to those of step `step + 1`. Warmup is linear: update `t`
of `w` has the factor (t + 1) / w, so that its last update is at the peak and none is wasted at rate 0. A decay of `d`
updates that begins at step `s` has u = (step - s) / d: its first update is still at the peak, its last one at
u = 1 - 1/d, and at step `s + d`, where training ends, the final fraction is reached.
"""

import math
from typing import Literal, assert_never

from coolbits.artifacts.errors import CoolbitsError
from coolbits.study.recipes.training import WSD, Constant, Cooldown, Cosine, DecayShape, Linear, Schedule

Phase = Literal["warmup", "stable", "decay"]


def factor(schedule: Schedule, step: int) -> float:
    """Return the share of the peak rate, in [0, 1], at which update number `step` is made.

    Past the end of a decay it stays at the final fraction. A decay that begins within the warmup starts from the factor
    reached there and falls to the final fraction of that.

    Raises:
        CoolbitsError: if the schedule is longer than itself: a decay or warmup beyond its total steps.
    """
    decay = _decay_of(schedule)
    if decay is None:
        return _warmup_factor(schedule.warmup_steps, step)
    reached = _warmup_factor(decay.warmup_steps, min(step, decay.start_step))
    return reached * _decay_factor(decay, step)


def learning_rate(schedule: Schedule, peak_lr: float, step: int) -> float:
    """Return the learning rate of update number `step`."""
    return peak_lr * factor(schedule, step)


def phase(schedule: Schedule, step: int) -> Phase:
    """Return the phase of update number `step`: "decay" once the rate has begun to fall.

    A decay's first update is still at the peak and counts as stable: so the weights of a step, touched by the updates
    before it, and the update that starts from them have one phase.
    """
    decay = _decay_of(schedule)
    if decay is not None and step > decay.start_step:
        return "decay"
    return "warmup" if step < schedule.warmup_steps else "stable"


def tail(wsd: WSD) -> Cooldown:
    """Return the branch that equals `wsd` exactly: a trunk up to the start of the decay, then the decay.

    Raises:
        CoolbitsError: if the decay is longer than the schedule.
    """
    if wsd.decay_steps > wsd.total_steps:
        raise CoolbitsError(f"decay_steps is {wsd.decay_steps}; it must be at most total_steps, {wsd.total_steps}")
    return Cooldown(
        warmup_steps=wsd.warmup_steps,
        start_step=wsd.total_steps - wsd.decay_steps,
        decay_steps=wsd.decay_steps,
        decay_shape=wsd.decay_shape,
        final_fraction=wsd.final_fraction,
    )


def trunk(wsd: WSD) -> Constant:
    """Return the trunk that equals `wsd` exactly until its decay begins."""
    return Constant(warmup_steps=wsd.warmup_steps)


def _decay_of(schedule: Schedule) -> Cooldown | None:
    """Say any schedule as a cooldown; a constant one has none."""
    match schedule:
        case Constant():
            return None
        case Cosine() | Linear():
            return _decay_after_warmup(schedule, schedule.kind)
        case WSD():
            return tail(schedule)
        case Cooldown():
            return schedule
        case _:
            assert_never(schedule)


def _decay_after_warmup(schedule: Cosine | Linear, shape: DecayShape) -> Cooldown:
    if schedule.warmup_steps >= schedule.total_steps:
        raise CoolbitsError(
            f"warmup_steps is {schedule.warmup_steps}; it must be below total_steps, {schedule.total_steps}"
        )
    return Cooldown(
        warmup_steps=schedule.warmup_steps,
        start_step=schedule.warmup_steps,
        decay_steps=schedule.total_steps - schedule.warmup_steps,
        decay_shape=shape,
        final_fraction=schedule.final_fraction,
    )


def _warmup_factor(warmup_steps: int, step: int) -> float:
    return min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0


def _decay_factor(decay: Cooldown, step: int) -> float:
    elapsed = min(max((step - decay.start_step) / decay.decay_steps, 0.0), 1.0)
    return decay.final_fraction + (1 - decay.final_fraction) * _remaining(decay.decay_shape, elapsed)


def _remaining(shape: DecayShape, elapsed: float) -> float:
    """Return what is left, from 1 to 0, after the share `elapsed` of a decay."""
    match shape:
        case "linear":
            return 1 - elapsed
        case "sqrt":
            return 1 - math.sqrt(elapsed)
        case "cosine":
            return 0.5 * (1 + math.cos(math.pi * elapsed))
        case _:
            assert_never(shape)
