"""Trainings on disk: a Hugging Face directory with the optimizer's tensors, the memory and the metrics.

`model.safetensors`, `config.json` and the tokenizer's files are what any library opens; `state.safetensors`,
`state.json`, `metrics.parquet` and `throughput.parquet` are what training goes on from, and with telemetry
`telemetry.parquet` and `shadows.safetensors`. Checkpoints and saved states are both written so.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors.torch import save_file

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.files import write_json
from coolbits.artifacts.manifest import THROUGHPUT
from coolbits.loops.tensors import read_tensors, restore_model
from coolbits.models.files import save_model
from coolbits.training.loop import Training
from coolbits.training.memory import Memory, metrics_frame
from coolbits.training.telemetry import Observer, telemetry_frame

_METRICS = "metrics.parquet"
_TELEMETRY = "telemetry.parquet"
_SHADOWS = "shadows.safetensors"
_OPTIMIZER = "state.safetensors"
_MEMORY = "state.json"


def write_training(training: Training, tokenizer: Path, out: Path) -> None:
    """Write everything that `training` goes on from to the directory `out`, bit for bit."""
    training.read()
    save_model(training.model, tokenizer, out)
    tensors = training.optimizer.state_tensors()
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, out / _OPTIMIZER)
    write_json(out / _MEMORY, training.memory.to_json())
    write_metrics(training, out)
    paces = pd.DataFrame(training.memory.paces, columns=["step", "tokens_per_second"])
    paces.astype({"step": "int64", "tokens_per_second": "float64"}).to_parquet(out / THROUGHPUT, index=False)
    if training.recipe.telemetry is not None:
        save_file({name: shadow.contiguous() for name, shadow in training.observer.shadows.items()}, out / _SHADOWS)


def write_metrics(training: Training, out: Path) -> None:
    """Write the metrics up to now, those of the logged updates and, if it is not one of them, of the last; and the
    telemetry, if there is any."""
    memory = training.memory
    rows = list(memory.rows)
    if memory.last is not None and (not rows or rows[-1]["step"] != memory.last.step):
        rows.append(training.last_row())
    metrics_frame(rows).to_parquet(out / _METRICS, index=False)
    if training.recipe.telemetry is not None:
        telemetry_frame(training.observer.rows).to_parquet(out / _TELEMETRY, index=False)


def copy_metrics(directory: Path, out: Path) -> None:
    """Copy what `write_metrics` wrote to `directory` to `out`."""
    for name in (_METRICS, _TELEMETRY):
        if (directory / name).is_file():
            shutil.copyfile(directory / name, out / name)


def read_training(training: Training, directory: Path) -> None:
    """Put what `write_training` wrote to `directory` into a training of the same recipe, nothing cast.

    Raises:
        CoolbitsError: if a file is missing or unreadable, or a tensor's name, shape or dtype is not what this training
            would have written.
    """
    restore_model(training.model, directory)
    training.optimizer.load_state_tensors(read_tensors(directory / _OPTIMIZER))
    rows: list[Any] = pd.read_parquet(directory / _METRICS).to_dict("records")
    # The last row may be there only because the file ends with it.
    logged = [row for row in rows if row["step"] % training.recipe.log_steps == 0]
    paces: list[Any] = pd.read_parquet(directory / THROUGHPUT).to_dict("records")
    training.memory = Memory.from_json(json.loads((directory / _MEMORY).read_bytes()), logged, paces)
    if training.recipe.telemetry is not None:
        _read_telemetry(training.observer, directory)


def read_start(training: Training, directory: Path) -> None:
    """Start a branch from a checkpoint of its trunk: weights, optimizer and data go on, its metrics are its own.

    Raises:
        CoolbitsError: as `read_training`, or if the schedule does not begin at the checkpoint's step.
    """
    read_training(training, directory)
    training.memory = training.memory.branch()
    training.observer.rows.clear()
    begins = getattr(training.recipe.schedule, "start_step", training.memory.step)
    if begins != training.memory.step:
        raise CoolbitsError(
            f"schedule.start_step is {begins}, but the branch starts from step {training.memory.step}: {directory}"
        )


def _read_telemetry(observer: Observer, directory: Path) -> None:
    shadows = read_tensors(directory / _SHADOWS)
    found, own = (
        {name: (each.shape, each.dtype) for name, each in kept.items()} for kept in (shadows, observer.shadows)
    )
    if found != own:
        raise CoolbitsError(f"{directory / _SHADOWS}: not the shadows of what telemetry looks at here")
    for name, shadow in observer.shadows.items():
        shadow.copy_(shadows[name])
    rows: list[Any] = pd.read_parquet(directory / _TELEMETRY).to_dict("records")
    observer.rows = rows
