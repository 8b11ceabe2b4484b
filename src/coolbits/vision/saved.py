"""A classifier on disk: the Hugging Face directory that is kept, and the state that a training goes on from.

Both hold `model.safetensors`: weights, and the running moments of batch norm. Equal tensors give equal bytes.
"""

import json
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.files import write_json
from coolbits.loops.divergence import LossHistory
from coolbits.loops.tensors import WEIGHTS, read_tensors, read_weights
from coolbits.vision.training import EVALUATION_TYPES, METRICS_TYPES, Memory, Training

METRICS, EVALUATION = "metrics.parquet", "evaluation.parquet"
_OPTIMIZER, _MEMORY = "state.safetensors", "state.json"


def write_classifier(model: PreTrainedModel, out: Path) -> None:
    """Write `config.json` and `model.safetensors`, which `AutoModelForImageClassification` opens."""
    model.config.architectures = [type(model).__name__]
    model.config.dtype = "float32"
    model.config.save_pretrained(out)
    _write_tensors(model.state_dict(), out / WEIGHTS)


def write_tables(memory: Memory, out: Path) -> None:
    """Write the metrics of the logged updates and the evaluations."""
    for name, rows, types in _tables(memory):
        pd.DataFrame(rows, columns=list(types)).astype(types).to_parquet(out / name, index=False)


def write_state(training: Training, out: Path) -> None:
    """Write everything that `training` goes on from, bit for bit."""
    memory = training.memory
    _write_tensors(training.model.state_dict(), out / WEIGHTS)
    _write_tensors(training.optimizer.state_tensors(), out / _OPTIMIZER)
    write_json(out / _MEMORY, {"step": memory.step} | memory.history.to_json())
    write_tables(memory, out)


def read_state(training: Training, directory: Path) -> None:
    """Put what `write_state` wrote into a training of the same recipe, nothing cast.

    Raises:
        CoolbitsError: if a file is unreadable, or a tensor's name, shape or dtype is not what this training would have
            written.
    """
    weights, states = read_weights(directory), read_tensors(directory / _OPTIMIZER)
    try:
        state: dict[str, Any] = json.loads((directory / _MEMORY).read_bytes())
        metrics, evaluations = (pd.read_parquet(directory / name) for name in (METRICS, EVALUATION))
        training.model.load_state_dict(weights)
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise CoolbitsError(f"{directory}: not readable ({reason}); delete it to train again") from None
    training.optimizer.load_state_tensors(states)
    rows: list[Any] = metrics.to_dict("records")
    evaluated: list[Any] = evaluations.to_dict("records")
    training.memory = Memory(state["step"], LossHistory.from_json(state), rows, evaluated)


def _tables(memory: Memory) -> tuple[tuple[str, list[dict[str, Any]], dict[str, str]], ...]:
    return (METRICS, memory.metrics, METRICS_TYPES), (EVALUATION, memory.evaluations, EVALUATION_TYPES)


def _write_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata={"format": "pt"})
