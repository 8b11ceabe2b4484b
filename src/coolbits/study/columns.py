"""The columns that describe a run in every table."""

from typing import Any

from coolbits.models.counts import parameter_counts
from coolbits.study.optimizer_names import states_label
from coolbits.study.recipes.training import Constant, Cosine, Linear, Model, Trajectory
from coolbits.study.schema import Run


def run_columns(name: str, run: Run, model: Model) -> dict[str, Any]:
    """Return the columns of a run's checkpoints, `name` being the run's in the study."""
    return {
        "run": name,
        "model": run.model.preset,
        "parameters": parameter_counts(model).total,
        "optimizer": run.optimizer.kind,
        "states": states_label(run.optimizer),
        "beta2": getattr(run.optimizer, "beta2", None),
        "weight_decay": run.optimizer.weight_decay,
        "peak_lr": run.peak_lr,
        "seed": run.seed,
        "data_seed": run.seed if run.data_seed is None else run.data_seed,
        "source": "checkpoint",
        "average": None,
        "window": None,
    }


def decay_columns(recipe: Trajectory) -> dict[str, Any]:
    """Return the columns of a trajectory's decay: its length in tokens, shape and end; null at a constant rate."""
    schedule, batch = recipe.schedule, recipe.batch_tokens
    shape: str
    match schedule:
        case Constant():
            return {"decay_tokens": None, "decay_shape": None, "final_fraction": None}
        case Cosine() | Linear():
            steps, shape = schedule.total_steps - schedule.warmup_steps, schedule.kind
        case _:
            steps, shape = schedule.decay_steps, schedule.decay_shape
    return {"decay_tokens": steps * batch, "decay_shape": shape, "final_fraction": schedule.final_fraction}
