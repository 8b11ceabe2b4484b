"""Fine-tunings on disk: states to go on from, in the work folder, and the artifact that comes of them."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors.torch import save_file

from coolbits.artifacts.files import replacing, write_json
from coolbits.artifacts.node import Node
from coolbits.artifacts.store import Store
from coolbits.finetuning.conversations import TEMPLATE
from coolbits.finetuning.training import Finetuning, Memory
from coolbits.loops.ownership import Owner, mark, owner_of, usable
from coolbits.loops.tensors import read_tensors, restore_model
from coolbits.models.files import save_model

METRICS, VALIDATION = "metrics.parquet", "validation.parquet"
_OPTIMIZER, _MEMORY = "state.safetensors", "state.json"
_STEPS = "step_[0-9]*"
_METRICS_TYPES = {
    **{"step": "int64", "tokens": "int64"},
    **dict.fromkeys(("loss", "lr", "grad_norm", "weight_norm"), "float64"),
    "data_digest": "str",
}
_VALIDATION_TYPES = {"step": "int64", "loss": "float64", "exact": "float64", "tokens": "int64"}


def write_finetuned(training: Finetuning, tokenizer: Path, conversations: Path, out: Path) -> dict[str, Any]:
    """Write the artifact to `out`, its two tables alone if training diverged; return the summary.

    The tokenizer, from the directory `tokenizer`, gets the chat template of the conversations.
    """
    memory = training.memory
    pd.DataFrame(memory.metrics, columns=list(_METRICS_TYPES)).astype(_METRICS_TYPES).to_parquet(out / METRICS)
    table = pd.DataFrame(memory.validation, columns=list(_VALIDATION_TYPES)).astype(_VALIDATION_TYPES)
    table.to_parquet(out / VALIDATION)
    if memory.diverged_step is not None:
        return {"outcome": "diverged", "diverged_step": memory.diverged_step}
    save_model(training.model, tokenizer, out)
    shutil.copyfile(conversations / TEMPLATE, out / TEMPLATE)
    first, last = memory.validation[0], memory.validation[-1]
    return {
        "step": memory.step,
        "tokens": memory.tokens,
        "loss": memory.metrics[-1]["loss"],
        "start_validation_loss": first["loss"],
        "validation_loss": last["loss"],
        "data_digest": memory.data_digest,
    }


@dataclass(frozen=True)
class States:
    """The saved states of the fine-tuning `node`: used only if this code wrote them, from the parents as they are."""

    node: Node
    store: Store

    @property
    def work(self) -> Path:
        """The work folder of the fine-tuning."""
        return self.store.work_directory(self.node)

    @property
    def _folder(self) -> Path:
        return self.work / "states"

    def save(self, training: Finetuning, tokenizer: Path) -> None:
        """Save a state, then drop those before it: at every moment one of them is whole.

        What diverged has none to save: its artifact will say so.
        """
        if training.memory.diverged_step is not None:
            return
        with replacing(self._folder / f"step_{training.memory.step:07d}") as directory:
            save_model(training.model, tokenizer, directory)
            tensors = training.optimizer.state_tensors()
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, directory / _OPTIMIZER)
            write_json(directory / _MEMORY, training.memory.to_json())
            mark(directory, self._owner)
        for directory in self._folder.glob(_STEPS):
            if _step_of(directory) < training.memory.step:
                shutil.rmtree(directory)

    def newest(self) -> Path | None:
        """Return the newest state that can be gone on from."""
        found = sorted(self._folder.glob(_STEPS), key=_step_of, reverse=True)
        return next((directory for directory in found if usable(directory, self._owner)), None)

    def read(self, training: Finetuning) -> None:
        """Go on from the newest state, if there is one."""
        directory = self.newest()
        if directory is None:
            return
        restore_model(training.model, directory)
        training.optimizer.load_state_tensors(read_tensors(directory / _OPTIMIZER))
        training.memory = Memory.from_json(json.loads((directory / _MEMORY).read_bytes()))

    def clear(self) -> None:
        """Remove all states, half-written ones included."""
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def _owner(self) -> Owner:
        return owner_of(self.node, self.store, self.node.fingerprint)


def _step_of(directory: Path) -> int:
    return int(directory.name.removeprefix("step_"))
