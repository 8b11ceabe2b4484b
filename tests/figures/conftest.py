"""Synthetic tables of a study in which both papers' effects are built in, with one seed or three."""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import same_color

from coolbits.study.recipes.results import MODEL_COLUMNS, TRAJECTORY_COLUMNS

BATCH = 4096
QUANTIZERS = {"rtn-w3": ("rtn", 3, 1.6), "gptq-w3": ("gptq", 3, 1.0), "gptq-w4": ("gptq", 4, 0.22)}
DIVERGED_STEP = 900
NO_DECAY = dict.fromkeys(("decay_tokens", "decay_shape", "final_fraction"))
DECAY = {"decay_tokens": 1_200_000, "decay_shape": "linear", "final_fraction": 0.0}
# Of each variant the peak rates, besides the trunk's; linear AdamW diverges at all of them, linear SGD at the higher.
VARIANTS = {
    ("adamw", "32"): (3e-3, 3e-2),
    ("adamw", "8D"): (3e-3, 1e-2, 3e-2),
    ("adamw", "8L"): (3e-2, 1e-1),
    ("muon", "32"): (3e-3, 1e-2),
    ("muon", "8D"): (3e-3, 1e-2),
    ("muon", "8L"): (3e-3, 1e-2),
    ("muon", "8L+8D"): (1e-2,),
    ("muon", "8L+8L"): (1e-2,),
    ("sgd", "32"): (1e-2, 3e-1),
    ("sgd", "8L"): (1e-2, 3e-1),
}
# What the optimizer and its states add to the loss, in nats.
_OPTIMIZER = {"adamw": 0.0, "muon": -0.06, "sgd": 0.3}
_COST = {"32": 0.0, "8D": 0.006, "8L": 0.01, "8L+8D": 0.02, "8L+8L": 0.035}


def _trajectory(
    run: str, seed: int, schedule: str, lr: float = 1e-2, optimizer: str = "adamw", **other: Any
) -> dict[str, Any]:
    family = f"micro-{optimizer}-{other.get('states', '32')}-{schedule}-lr{lr:g}-s{seed}"
    fields = {"run": run, "trajectory": family, "family": family, "model": "micro-neox", "parameters": 262_144}
    fields |= {"optimizer": optimizer, "weight_decay": 0.1, "schedule": schedule, "peak_lr": lr, "seed": seed}
    fields |= {"states": "32", "beta2": 0.95, **NO_DECAY, **other}
    return {"branch_tokens": None, "budget_tokens": None} | fields


def _points(seed: int) -> Iterator[dict[str, Any]]:
    trunk = _trajectory("trunk", seed, "constant")
    for millions in np.arange(1.2, 9.7, 1.2):
        yield _model(trunk, millions, "stable", 1.0, final=millions > 9)
        if millions in (2.4, 4.8, 7.2, 9.6):
            branch = trunk | {"trajectory": f"{trunk['trajectory']}-{millions}", "schedule": "cooldown"}
            branch |= {"branch_tokens": round(millions * 1e6), "budget_tokens": round((millions + 1.2) * 1e6)} | DECAY
            for share in (0.5, 1.0):
                yield _model(branch, millions + 1.2 * share, "decay", 1 - share, final=share == 1, start=millions)
    for millions in (2.4, 4.8, 7.2, 9.6):
        yield _model(trunk, millions, "stable", 1.0, average="lawa", window=5)
    yield _model(
        trunk | {"schedule": "cooldown", "run": "soup"} | DECAY, 10.8, "decay", 0.0, average="soup", window=3, start=9.6
    )
    for (optimizer, states), rates in VARIANTS.items():
        for lr in rates:
            beta2 = None if optimizer == "sgd" else 0.95
            own = {"states": states, "beta2": beta2, "budget_tokens": 6_000_000} | DECAY
            yield from _wsd(
                _trajectory("rates", seed, "wsd", lr, optimizer, **own), doomed=states == "8L" and lr > 0.02
            )
    for weight_decay in (0.0, 0.1, 0.3):
        own = {"weight_decay": weight_decay, "budget_tokens": 6_000_000} | DECAY | {"decay_shape": "sqrt"}
        run = _trajectory("decays", seed, "wsd", **own)
        run["trajectory"] = run["family"] = f"{run['family']}-wd{weight_decay:g}"
        yield from _wsd(run, doomed=False)
    for budget in (6.0, 10.8):
        shape = {"decay_tokens": round(0.95 * budget * 1e6), "decay_shape": "cosine", "final_fraction": 0.0}
        run = _trajectory("cosine", seed, "cosine", budget_tokens=round(budget * 1e6), **shape)
        run["trajectory"] = run["family"] = f"{run['family']}-{budget}"
        for share in np.arange(0.2, 1.01, 0.2):
            factor = 0.5 * (1 + np.cos(np.pi * share))
            yield _model(run, budget * share, "decay", factor, final=share > 0.99)
    yield from _wsd(_trajectory("hot", seed, "wsd", 1e-1, budget_tokens=6_000_000, **DECAY), doomed=True)


def _wsd(stem: dict[str, Any], doomed: bool) -> Iterator[dict[str, Any]]:
    """Yield the checkpoints of a run that decays over its last fifth; from some step on a doomed one has diverged."""
    for millions in (1.2, 2.4, 3.6, 4.8):
        yield _outcome(_model(stem | NO_DECAY, millions, "stable", 1.0), doomed)
    tail = stem | {"trajectory": f"{stem['trajectory']}-decay", "branch_tokens": 4_800_000}
    for millions in (5.4, 6.0):
        factor = (6.0 - millions) / 1.2
        yield _outcome(_model(tail, millions, "decay", factor, final=millions == 6.0, start=4.8), doomed)


def _outcome(point: dict[str, Any], doomed: bool) -> dict[str, Any]:
    return point | {"outcome": "diverged" if doomed and point["step"] >= DIVERGED_STEP else "complete"}


def _model(trajectory: dict[str, Any], millions: float, phase: str, factor: float, **other: Any) -> dict[str, Any]:
    start = other.pop("start", 0.0)
    point = {"tokens": round(millions * 1e6), "step": round(millions * 1e6 / BATCH), "phase": phase, "factor": factor}
    point |= {"source": "average" if "average" in other else "checkpoint", "average": None, "window": None}
    lr = trajectory["peak_lr"] * factor
    return trajectory | point | {"final": False, "lr": lr, "outcome": "complete", "start": start} | other


def _loss_and_error(point: dict[str, Any], noise: np.random.Generator) -> tuple[float, float]:
    millions, lr = point["tokens"] / 1e6, point["peak_lr"]
    decayed = 1 - point["factor"]
    averaged = {"lawa": 0.75, "soup": 0.1}.get(point["average"], 0.0)
    tuning = 0.08 * np.log10(lr / 1e-2) ** 2 + _OPTIMIZER[point["optimizer"]] + _COST[point["states"]]
    loss = 2.2 + 1.4 * (millions + 0.3) ** -0.4 + tuning - 0.2 * decayed - 0.2 * averaged
    rise = 0.018 * decayed * (1.3 if point["schedule"] == "cosine" else 1.0) * (1 + 0.02 * millions)
    error = (0.022 + 0.008 * np.log10(millions) + rise - 0.004 * averaged) * (lr / 1e-2) ** -0.25
    error *= 1.25 if point["optimizer"] == "muon" else 1.0
    error *= 1.1 - point["weight_decay"]
    return loss + noise.normal(0, 0.006), error * np.exp(noise.normal(0, 0.03))


def loss_table(seeds: int) -> pd.DataFrame:
    """Return a loss table with `seeds` seeds, the columns that the table stage writes."""
    rows = []
    for seed in range(seeds):
        noise = np.random.default_rng(seed)
        for point in _points(seed):
            full, error = _loss_and_error(point, noise)
            for quantizer, (method, bits, factor) in (QUANTIZERS | {"none": ("none", None, 0.0)}).items():
                relative = error * factor
                row = {"quantizer": quantizer, "method": method, "bits": bits, "group_size": 64 if bits else None}
                row |= {"loss": full * (1 + relative), "base_loss": full, "relative_error": relative}
                row |= {"relative_low": relative * 0.94, "relative_high": relative * 1.06}
                row |= {"absolute_error": full * relative, "scored_tokens": 49_152, "documents": 240, "fallbacks": 0}
                row |= {"diverged_step": None}
                if point["outcome"] == "diverged":
                    row |= dict.fromkeys(
                        ("loss", "base_loss", "relative_error", "relative_low", "relative_high"), np.nan
                    )
                    row |= {"diverged_step": DIVERGED_STEP}
                rows.append(point | row)
    table = pd.DataFrame(rows).drop(columns=["factor", "start"])
    fallen = (
        (table.trajectory == table.trajectory.iloc[0]) & (table.tokens == 6_000_000) & (table.quantizer == "gptq-w3")
    )
    table.loc[fallen, "fallbacks"] = 1
    table = table.astype(TRAJECTORY_COLUMNS | MODEL_COLUMNS | {"outcome": "str", "diverged_step": "Int64"})
    table.attrs = {"confidence": 0.95, "bootstrap_samples": 1000}
    return table


def metrics_table(seeds: int) -> pd.DataFrame:
    """Return the training metrics of the trajectories of `loss_table(seeds)`."""
    frames = []
    points = pd.DataFrame([point for seed in range(seeds) for point in _points(seed)])
    points = points[points.source == "checkpoint"]
    for _, group in points.groupby("trajectory", sort=False):
        row = group.iloc[-1]
        noise = np.random.default_rng(int(row.seed) + 7)
        first = 10 if row.start == 0 else round(row.start * 1e6 / BATCH)
        steps = np.arange(first, row.step + 1, 10)
        millions = steps * BATCH / 1e6
        decayed = np.clip((millions - row.start) / 1.2, 0, 1) if row.phase == "decay" and row.start else 0.0
        tuning = _OPTIMIZER[row.optimizer] + _COST[row.states]
        loss = 2.2 + 1.4 * (millions + 0.05) ** -0.4 + tuning - 0.2 * decayed + noise.normal(0, 0.05, len(steps))
        frame = pd.DataFrame({"step": steps, "tokens": steps * BATCH, "loss": loss, "lr": row.peak_lr * (1 - decayed)})
        diverged = row.outcome == "diverged"
        if diverged:
            frame = frame[frame.step <= DIVERGED_STEP].assign(
                loss=lambda f: f.loss + (f.step > 860) * (f.step - 860) * 0.03
            )
        described = {name: row[name] for name in TRAJECTORY_COLUMNS}
        outcome = {"outcome": row.outcome, "diverged_step": DIVERGED_STEP if diverged else None}
        norms = {"grad_norm": np.where(frame.step > 40, 0.5, 3.0), "weight_norm": 30 + 1e-3 * frame.step}
        frames.append(frame.assign(**norms, **described, **outcome))
    table = pd.concat(frames, ignore_index=True)
    return table.astype(TRAJECTORY_COLUMNS | {"outcome": "str", "diverged_step": "Int64"})


def tasks_table(seeds: int) -> pd.DataFrame:
    """Return a tasks table: the trunk's end, the decays' ends and the averages on three tasks."""
    losses = loss_table(seeds)
    losses = losses[losses.final.astype(bool) | (losses.source == "average")]
    losses = losses[losses.quantizer.isin(["none", "gptq-w3"])]
    frames = []
    for number, (task, samples) in enumerate(
        {"coolbits_cloze": 400, "coolbits_choice": 300, "blimp_agreement": 900}.items()
    ):
        base = 0.35 + 0.15 * number + 0.4 * (3.1 - losses.base_loss)
        drop = (0.5 + number) * losses.relative_error
        half = 1.96 * np.sqrt(base * (1 - base) / samples)
        value = base - drop * (1 - base)
        columns = {"task": task, "metric": "acc", "value": value, "value_low": value - half, "value_high": value + half}
        columns |= {
            "base_value": base,
            "relative_drop": drop,
            "relative_drop_low": drop - 0.02,
            "relative_drop_high": drop + 0.02,
        }
        asked = losses.drop(columns=["scored_tokens", "documents"])
        frames.append(asked.assign(**columns, samples=samples, requests=samples, cut_requests=0))
    table = pd.concat(frames, ignore_index=True)
    table.attrs = {"confidence": 0.95, "bootstrap_samples": 1000}
    return table


Tables = dict[str, pd.DataFrame]


def documents_table(losses: pd.DataFrame) -> pd.DataFrame:
    """Return the nats of forty documents for each row that has a loss, the mean of which is that loss."""
    hardness = np.random.default_rng(5).normal(0, 0.4, 40)
    rows = []
    for row, (loss, base) in enumerate(zip(losses.loss, losses.base_loss, strict=True)):
        own = np.random.default_rng(row).normal(0, 0.02, 40)
        if np.isfinite(loss):
            excess = 60 * (hardness - hardness.mean() + own - own.mean())
            rows.append({"row": row, "tokens": [60] * 40, "nats": 60 * loss + excess, "base_nats": 60 * base + excess})
    return pd.DataFrame(rows)


@cache
def _tables(seeds: int) -> Tables:
    losses = loss_table(seeds)
    tables = {"loss": losses, "metrics": metrics_table(seeds), "tasks": tasks_table(seeds)}
    return tables | {"documents": documents_table(losses)}


@pytest.fixture(params=[1, 3], ids=["one seed", "three seeds"])
def tables(request: pytest.FixtureRequest) -> Tables:
    """All tables of a study, with one seed and with three."""
    return dict(_tables(request.param))


@pytest.fixture(scope="session")
def make_tables() -> Callable[[int], Tables]:
    """Return a function of the number of seeds that gives all tables."""
    return lambda seeds: dict(_tables(seeds))


@pytest.fixture(scope="session")
def hollow_in() -> Callable[[Axes], int]:
    """Return a function of a panel that counts the points whose mark is hollow."""

    def count(panel: Axes) -> int:
        marked = [line for line in panel.lines if line.get_marker() not in ("None", "", "|", "_", "x")]
        return sum(len(line.get_xdata()) for line in marked if same_color(line.get_markerfacecolor(), "white"))

    return count
