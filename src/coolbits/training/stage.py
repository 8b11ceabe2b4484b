"""The training stage: the checkpoints of one trajectory, made in order by one process."""

import logging
import math
import os
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.job import Job
from coolbits.artifacts.node import Node
from coolbits.artifacts.progress import Progress
from coolbits.artifacts.store import Store
from coolbits.data.batches import Batches
from coolbits.data.shards import open_stream
from coolbits.loops.allocator import keep_freed_memory
from coolbits.loops.guards import Heard, can_compile, guarded, hearing_signals, make_reproducible, stop_if_asked
from coolbits.loops.locks import alone_in
from coolbits.models.build import build_model
from coolbits.models.devices import choose_device
from coolbits.optim.build import build_optimizer
from coolbits.optim.optimizer import describe_states
from coolbits.products import widens
from coolbits.study.execution import Execution
from coolbits.study.recipes.training import Checkpoint, Trajectory
from coolbits.training.gradient import summed_loss
from coolbits.training.loop import Training
from coolbits.training.saved import copy_metrics, read_start, read_training, write_metrics, write_training
from coolbits.training.sources import Sources
from coolbits.training.telemetry import observe
from coolbits.training.throughput import Throughput

_LOG = logging.getLogger(__name__)


def run(job: Job, store: Store) -> int:
    """Make the checkpoints of the job that are missing, one trajectory after the other; return how many were made.

    A branch comes after its trunk. Training goes on from the newest checkpoint or saved state. SIGTERM and SIGINT end
    it after the step under way, with a state saved, or after the checkpoint that is being written; what kills it
    outright costs at most `state_every_seconds` of work.
    Once a trajectory, or the trunk it starts from, was found to have diverged, checkpoints have no weights and say so.
    The step that they name may lie before checkpoints kept until then, which stay as they are.

    Raises:
        CoolbitsError: if another process trains a trajectory, or files to go on from do not fit.
        SystemExit: after a signal, saying where training stopped.
    """
    execution = Execution.read(job.execution)
    if execution.compile:
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(store.root.resolve() / "work" / "compile-cache"))
    trajectories: dict[str, list[Node]] = {}
    for node in sorted(job.nodes, key=lambda node: "start" in node.parents):
        trajectories.setdefault(Path(node.name).parent.name, []).append(node)
    with hearing_signals() as heard:
        return sum(
            _make_trajectory(sorted(nodes, key=_step), store, execution, heard) for nodes in trajectories.values()
        )


def _make_trajectory(nodes: list[Node], store: Store, execution: Execution, heard: Heard) -> int:
    sources, made = Sources(nodes[-1], store), 0
    with alone_in(sources.work), ExitStack() as stack:
        sources.sweep()
        trainer = _Trainer(sources, execution, heard, stack)
        for node in nodes:
            stop_if_asked(heard)
            made += store.ensure(node, partial(trainer.make, node))
        sources.drop(_step(nodes[-1]))
    return made


def start_training(recipe: Trajectory, shards: Path, execution: Execution) -> Training:
    """Return the trajectory of `recipe` before its first update: initial weights and the batches of `shards`."""
    device = choose_device(execution.device)
    make_reproducible(device)
    if device == "cpu":
        keep_freed_memory()
    model = build_model(recipe.model, recipe.seed)
    nn.Module.to(model, device)
    optimizer = build_optimizer(model, recipe.optimizer, recipe.peak_lr, recipe.precision)
    _LOG.info(describe_states(optimizer.stored_states()))
    sequences = recipe.batch_tokens // recipe.sequence_length
    stream = open_stream(shards, "train")
    if stream.vocabulary_size > model.config.vocab_size:
        raise CoolbitsError(
            f"{shards}: tokens of a vocabulary of {stream.vocabulary_size}, but the model embeds "
            f"{model.config.vocab_size}; raise data.tokenizer.vocabulary_size"
        )
    batches = Batches(stream, recipe.sequence_length, sequences, recipe.data_seed)
    widened = widens(device, getattr(torch, recipe.precision))
    compiled = execution.compile and can_compile(device) and not widened
    if widened:
        _LOG.info("no bfloat16 products on this processor: they are made in float32 and rounded; nothing is compiled")
    elif execution.compile and not compiled:
        _LOG.warning("not compiled, hence slower: there is no compiler, no header of Python, or, on a GPU, no Triton")
    loss = summed_loss(model, recipe.precision, compiled)
    return Training(
        recipe,
        model,
        optimizer,
        batches,
        loss,
        execution.micro_batch_sequences,
        read_late=device != "cpu",
        observer=observe(recipe, model, optimizer),
    )


def write_checkpoint(training: Training, tokenizer: Path, out: Path) -> dict[str, Any]:
    """Write the artifact of a checkpoint to `out`, metrics and telemetry alone if it diverged; return its summary."""
    memory = training.memory
    if memory.diverged_step is not None:
        write_metrics(training, out)
        return _diverged(memory.diverged_step)
    write_training(training, tokenizer, out)
    return {
        "step": memory.step,
        "tokens": memory.step * training.recipe.batch_tokens,
        "loss": None if memory.last is None else memory.last.loss,
        "data_digest": memory.data_digest,
    }


@dataclass
class _Trainer:
    """Makes checkpoints in rising order; the training is opened for the first one that must really be trained for.

    `stack` outlives all checkpoints of the trajectory; `done` counts the updates done, -1 before anything was read.
    """

    sources: Sources
    execution: Execution
    heard: Heard
    stack: ExitStack
    done: int = -1

    def make(self, node: Node, out: Path) -> dict[str, Any]:
        """Build the artifact of one checkpoint in `out`; return its summary."""
        store, until = self.sources.store, _step(node)
        if "start" in node.parents and (start := store.manifest(node, "start")).diverged:
            return _diverged(start.summary["diverged_step"])
        source = self.sources.newest(self.done, until)
        if source is not None and source.diverged_step is not None:
            copy_metrics(source.directory, out)
            return _diverged(source.diverged_step)
        if source is not None:
            read_training(self.training, source.directory)
        elif self.done < 0 and "start" in node.parents:
            read_start(self.training, node.parent_directory(store.root, "start"))
        if self.done < 0:
            self.done = self.training.memory.step
        self._train(until)
        return write_checkpoint(self.training, self.sources.tokenizer, out)

    @cached_property
    def training(self) -> Training:
        """The trajectory, opened at its first use."""
        node = self.sources.node
        recipe = Checkpoint.read(node.recipe).trajectory
        return start_training(recipe, node.parent_directory(self.sources.store.root, "shards"), self.execution)

    @cached_property
    def progress(self) -> Progress:
        """Counts the updates up to the job's last checkpoint, from where training goes on."""
        step, label = self.training.memory.step, self.sources.name
        if self.sources.has_stale_state():
            label += f" (from step {step:,}: the state saved later is of other code)"
        elif step:
            label += f" (from step {step:,})"
        return self.stack.enter_context(Progress(label, _step(self.sources.node), "step", step))

    @cached_property
    def pace(self) -> Throughput:
        """Measures tokens a second over all of the job."""
        return Throughput(self.training.recipe.batch_tokens, self.training.recipe.log_steps)

    def _train(self, until: int) -> None:
        training, progress = self.training, self.progress
        self.pace.pause()
        for step in guarded(training.train(until), self.heard, self._save, self.execution.state_every_seconds):
            if (row := self.pace.after(step)) is not None:
                training.memory.paces.append(row)
            loss = training.memory.last.loss if training.memory.last else math.nan
            progress.advance(step - self.done, f"loss {loss:.2f}, {self.pace.note}")
            self.done = step

    def _save(self) -> None:
        self.sources.save(self.training)
        self.pace.pause()


def _diverged(step: int) -> dict[str, Any]:
    return {"outcome": "diverged", "diverged_step": step}


def _step(node: Node) -> int:
    return Checkpoint.read(node.recipe).step
