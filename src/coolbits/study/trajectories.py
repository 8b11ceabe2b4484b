"""From runs to trajectories: what is trained once, who starts where, and which checkpoints are kept."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.node import Ref, fingerprint_of
from coolbits.study.columns import decay_columns, run_columns
from coolbits.study.model_choice import chosen_model
from coolbits.study.optimizer_names import optimizer_name
from coolbits.study.recipes.training import (
    WSD,
    Constant,
    Cooldown,
    Cosine,
    Linear,
    Model,
    Optimizer,
    Schedule,
    Telemetry,
    Trajectory,
)
from coolbits.study.schema import CooldownChoice, Run, Saved
from coolbits.study.track import Track
from coolbits.study.units import length_in_tokens, si

_MOST_KEPT = 100_000


def tracks(name: str, run: Run, vocabulary_size: int, data: dict[str, Ref]) -> list[Track]:
    """Resolve one run (a point of a grid) into trajectories: one, or a trunk and its branches.

    `data` holds the parents `shards` and `tokenizer`. Lengths in tokens become steps here, once.

    Raises:
        CoolbitsError: if lengths contradict each other, naming the run and the key.
    """
    try:
        model = chosen_model(run.model, vocabulary_size, run.sequence_length)
    except CoolbitsError as error:
        raise CoolbitsError(f"runs.{name}.{error}") from None
    if run.batch_tokens % run.sequence_length:
        raise CoolbitsError(
            f"runs.{name}.batch_tokens: {run.batch_tokens} is no multiple of sequence_length {run.sequence_length}"
        )
    if run.schedule.kind != "constant" and run.cooldowns:
        raise CoolbitsError(
            f"runs.{name}.schedule.kind: is {run.schedule.kind}, but only a constant schedule has cooldowns; take "
            "constant, or leave the cooldowns out"
        )
    steps = _Steps(f"runs.{name}", run.batch_tokens)
    total = steps.of(run.tokens, "tokens")
    warmup = steps.of(length_in_tokens(run.schedule.warmup, run.tokens), "schedule.warmup", zero=True)
    if warmup >= total:
        raise CoolbitsError(
            f"runs.{name}.schedule.warmup: {steps.tokens(warmup)} tokens, but the run has {steps.tokens(total)}; at "
            f"most {steps.tokens(total - 1)} are possible"
        )
    columns = run_columns(name, run, model)
    if run.schedule.kind == "wsd":
        return _wsd(run, model, steps, warmup, total, data, columns)
    schedule = _whole_schedule(run, warmup, total)
    budget = None if run.schedule.kind == "constant" else total * run.batch_tokens
    kept = _kept(run.checkpoints, steps, 0, total, "checkpoints")
    branch_steps = [steps.of(choice.at, "cooldowns.at") for choice in run.cooldowns]
    for at in branch_steps:
        if not warmup <= at <= total:
            raise CoolbitsError(
                f"runs.{name}.cooldowns.at: {si(at * run.batch_tokens)} tokens is not on the trunk's constant part, "
                f"{si(warmup * run.batch_tokens)} to {si(total * run.batch_tokens)}"
            )
    trunk = _track(
        _recipe(run, model, schedule),
        data,
        sorted({*kept, *branch_steps}),
        columns | {"schedule": run.schedule.kind, "branch_tokens": None, "budget_tokens": budget},
    )
    branches = [
        _branch(run, choice, trunk, at, warmup, steps, columns)
        for choice, at in zip(run.cooldowns, branch_steps, strict=True)
    ]
    return [trunk, *branches]


@dataclass(frozen=True)
class _Steps:
    where: str
    batch_tokens: int

    def of(self, tokens: int, key: str, zero: bool = False) -> int:
        count = round(tokens / self.batch_tokens)
        if count == 0 and not (zero and tokens == 0):
            raise CoolbitsError(f"{self.where}.{key}: {tokens} tokens is less than a step of {self.batch_tokens}")
        return count

    def tokens(self, steps: int) -> str:
        """Say steps as their writer does, in tokens, to the last one."""
        return f"{steps * self.batch_tokens:,}"


def _whole_schedule(run: Run, warmup: int, total: int) -> Schedule:
    if run.schedule.kind == "constant":
        return Constant(warmup_steps=warmup)
    shape = Cosine if run.schedule.kind == "cosine" else Linear
    return shape(warmup_steps=warmup, total_steps=total, final_fraction=run.schedule.final_fraction)


def _wsd(
    run: Run, model: Model, steps: _Steps, warmup: int, total: int, data: dict[str, Ref], columns: dict[str, Any]
) -> list[Track]:
    """Split a WSD run into a trunk, shared with every run that agrees so far, and the branch that decays."""
    if run.schedule.decay is None:
        raise CoolbitsError(f"{steps.where}.schedule.decay: missing; a wsd schedule needs the length of its decay")
    decay = steps.of(length_in_tokens(run.schedule.decay, run.tokens), "schedule.decay")
    if warmup + decay > total:
        raise CoolbitsError(
            f"{steps.where}.schedule.decay: {steps.tokens(decay)} tokens, but the run has {steps.tokens(total)}, "
            f"{steps.tokens(warmup)} of them warmup; at most {steps.tokens(total - warmup)} are possible"
        )
    whole = WSD(
        warmup_steps=warmup,
        total_steps=total,
        decay_steps=decay,
        decay_shape=run.schedule.shape,
        final_fraction=run.schedule.final_fraction,
    )
    columns = columns | {"schedule": "wsd", "branch_tokens": None, "budget_tokens": total * run.batch_tokens}
    fork = total - decay
    kept = _kept(run.checkpoints, steps, 0, total, "checkpoints")
    if fork == 0:
        return [_track(_recipe(run, model, whole), data, kept, columns)]
    before = [step for step in kept if step < fork]
    trunk = _track(_recipe(run, model, Constant(warmup_steps=warmup)), data, [*before, fork], columns)
    cooldown = Cooldown(
        warmup_steps=warmup,
        start_step=fork,
        decay_steps=decay,
        decay_shape=run.schedule.shape,
        final_fraction=run.schedule.final_fraction,
    )
    parents = data | {"start": trunk.checkpoint(fork).ref}
    after = [step for step in kept if step > fork]
    described = columns | {"branch_tokens": fork * run.batch_tokens}
    branch = _track(_recipe(run, model, cooldown), parents, after, described, trunk.family)
    return [replace(trunk, ends_run=False), branch]


def _branch(
    run: Run, choice: CooldownChoice, trunk: Track, at: int, warmup: int, steps: _Steps, columns: dict[str, Any]
) -> Track:
    length = steps.of(choice.length, "cooldowns.length")
    schedule = Cooldown(
        warmup_steps=warmup,
        start_step=at,
        decay_steps=length,
        decay_shape=choice.shape,
        final_fraction=choice.final_fraction,
    )
    recipe = _recipe(run, trunk.recipe.model, schedule)
    if choice.data_seed is not None:
        recipe = recipe.model_copy(update={"data_seed": choice.data_seed})
    kept = _kept(choice.checkpoints, steps, at, at + length, "cooldowns.checkpoints")
    described = columns | {
        "schedule": "cooldown",
        "data_seed": recipe.data_seed,
        "branch_tokens": at * run.batch_tokens,
        "budget_tokens": (at + length) * run.batch_tokens,
    }
    parents = trunk.parents | {"start": trunk.checkpoint(at).ref}
    return _track(recipe, parents, kept, described, trunk.family)


def _kept(saved: Saved, steps: _Steps, start: int, end: int, key: str) -> list[int]:
    """Return the steps kept after `start` up to `end`: each multiple of `every` from the start, `at`, and the end."""
    kept = {end}
    if saved.every is not None:
        stride = steps.of(saved.every, f"{key}.every")
        if (count := (end - start) // stride) > _MOST_KEPT:
            raise CoolbitsError(f"{steps.where}.{key}.every: would keep {count:,} checkpoints, at most {_MOST_KEPT:,}")
        kept.update(range(start + stride, end, stride))
    for tokens in saved.at:
        step = steps.of(tokens, f"{key}.at")
        if not start < step <= end:
            reach = " to ".join(si(place * steps.batch_tokens) for place in (start, end))
            raise CoolbitsError(f"{steps.where}.{key}.at: {si(tokens)} tokens is outside the trajectory, {reach}")
        kept.add(step)
    return sorted(kept)


def _recipe(run: Run, model: Model, schedule: Schedule) -> Trajectory:
    return Trajectory(
        model=model,
        optimizer=run.optimizer,
        schedule=schedule,
        peak_lr=run.peak_lr,
        seed=run.seed,
        data_seed=run.seed if run.data_seed is None else run.data_seed,
        sequence_length=run.sequence_length,
        batch_tokens=run.batch_tokens,
        precision=run.precision,
        clip_norm=run.clip_norm,
        divergence=run.divergence,
        log_steps=10 if run.log is None else max(1, round(run.log / run.batch_tokens)),
        telemetry=_telemetry(run),
    )


def _telemetry(run: Run) -> Telemetry | None:
    if run.telemetry is None:
        return None
    every = max(1, round(run.telemetry.every / run.batch_tokens))
    return Telemetry(every_steps=every, tensors=run.telemetry.tensors)


def _track(
    recipe: Trajectory,
    parents: dict[str, Ref],
    steps: Iterable[int],
    columns: dict[str, Any],
    family: str | None = None,
) -> Track:
    fingerprint = fingerprint_of("trajectory", recipe.identity(), parents)
    name = f"{_label(recipe)}-{fingerprint[:8]}"
    return Track(recipe, parents, name, family or name, tuple(steps), columns | decay_columns(recipe))


def _label(recipe: Trajectory) -> str:
    config = recipe.model.config
    width = config.get("hidden_size") or config.get("n_embd")
    layers = config.get("num_hidden_layers") or config.get("n_layer")
    architecture = recipe.model.architecture.replace("_", "")
    decay = f"{recipe.schedule.start_step}" if isinstance(recipe.schedule, Cooldown) else ""
    return (
        f"{architecture}{width}x{layers}-{_slug(recipe.optimizer)}-{recipe.schedule.kind}{decay}"
        f"-lr{recipe.peak_lr:g}-s{recipe.seed}"
    )


def _slug(optimizer: Optimizer) -> str:
    """Return the optimizer's name as node names may have it; 32 bits go without saying: muon, muon-8l-adamw-8d."""
    return optimizer_name(optimizer).lower().removesuffix("-32").replace("+", "-").replace("/", "-")
