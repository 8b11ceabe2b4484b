"""The stage of classifiers: each trained to its end, with a state saved on the way."""

import logging
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.files import replacing
from coolbits.artifacts.job import Job
from coolbits.artifacts.node import Node
from coolbits.artifacts.progress import Progress
from coolbits.artifacts.store import Store
from coolbits.loops.allocator import keep_freed_memory
from coolbits.loops.guards import Heard, guarded, hearing_signals, make_reproducible, stop_if_asked
from coolbits.loops.locks import alone_in
from coolbits.loops.ownership import Owner, mark, owner_of, usable
from coolbits.models.devices import choose_device
from coolbits.optim.build import build_optimizer
from coolbits.optim.optimizer import describe_states
from coolbits.study.execution import Execution
from coolbits.study.recipes.vision import Classifier
from coolbits.vision.arrays import open_images
from coolbits.vision.batches import ImageBatches
from coolbits.vision.model import build_classifier
from coolbits.vision.saved import read_state, write_classifier, write_state, write_tables
from coolbits.vision.training import Training

_LOG = logging.getLogger(__name__)
_STATE = "state"


def run(job: Job, store: Store) -> int:
    """Make the classifiers of the job that are missing; return how many were made.

    Training goes on from a saved state. SIGTERM and SIGINT end it after the step under way, with a state saved, or
    after the classifier that is being written; what kills it outright costs at most `state_every_seconds` of work. One
    that diverged keeps its metrics and no weights.

    Raises:
        CoolbitsError: if another process trains a classifier, or a saved state does not fit.
        SystemExit: after a signal, saying where training stopped.
    """
    execution, made = Execution.read(job.execution), 0
    with hearing_signals() as heard:
        for node in job.nodes:
            stop_if_asked(heard)
            state = _State(node, store)
            with alone_in(state.work):
                made += store.ensure(node, partial(_build, state, execution, heard))
                # Not before the classifier is stored: a kill while it is written must not cost the whole training.
                state.drop()
    return made


def start_training(recipe: Classifier, images: Path, device: str) -> Training:
    """Return the classifier of `recipe` before its first update, on the images in the directory `images`.

    Raises:
        CoolbitsError: if the images do not make up a batch.
    """
    make_reproducible(device)
    if device == "cpu":
        keep_freed_memory()
    train, test = (ImageBatches(open_images(images, split), recipe, device) for split in ("train", "test"))
    if not train.steps_in(recipe.epochs):
        raise CoolbitsError(
            f"batch_images: {recipe.batch_images} is too many, for {len(train.images)} images in {recipe.epochs} epochs"
        )
    model = build_classifier(recipe.model, train.images.pixels.shape[1], train.images.classes, recipe.seed)
    nn.Module.to(model, device)
    optimizer = build_optimizer(model, recipe.optimizer, recipe.peak_lr, recipe.precision)
    _LOG.info(describe_states(optimizer.stored_states()))
    return Training(recipe, model, optimizer, train, test)


def write_result(training: Training, out: Path) -> dict[str, Any]:
    """Write the artifact of a training that came to its end, or diverged, to `out`; return its summary."""
    memory, images = training.memory, training.train.images
    write_tables(memory, out)
    described = {
        "parameters": sum(parameter.numel() for parameter in training.model.parameters()),
        "train_images": len(images),
    }
    if memory.diverged_step is not None:
        return described | {"outcome": "diverged", "diverged_step": memory.diverged_step}
    write_classifier(training.model, out)
    last = memory.evaluations[-1]
    return described | {"step": memory.step, "loss": last["loss"], "accuracy": last["accuracy"]}


@dataclass(frozen=True)
class _State:
    """The state saved of a node's training; another code's, or one from other images, is not used."""

    node: Node
    store: Store

    @property
    def work(self) -> Path:
        return self.store.work_directory(self.node)

    def read(self, training: Training) -> None:
        if usable(self.work / _STATE, self._owner):
            read_state(training, self.work / _STATE)

    def save(self, training: Training) -> None:
        with replacing(self.work / _STATE) as directory:
            write_state(training, directory)
            mark(directory, self._owner)

    def drop(self) -> None:
        for left in self.work.glob(f"*{_STATE}*"):
            shutil.rmtree(left)

    @property
    def _owner(self) -> Owner:
        return owner_of(self.node, self.store, self.node.fingerprint)


def _build(state: _State, execution: Execution, heard: Heard, out: Path) -> dict[str, Any]:
    recipe, images = Classifier.read(state.node.recipe), state.node.parent_directory(state.store.root, "images")
    training = start_training(recipe, images, choose_device(execution.device))
    state.read(training)
    _train(training, state, heard, execution.state_every_seconds)
    return write_result(training, out)


def _train(training: Training, state: _State, heard: Heard, every_seconds: float) -> None:
    begun = training.memory.step
    label = state.node.name + (f" (from step {begun:,})" if begun else "")
    with Progress(label, training.total_steps, "step", begun) as progress:
        for _ in guarded(training.run(), heard, partial(state.save, training), every_seconds):
            evaluated = training.memory.evaluations
            progress.advance(note=f"accuracy {evaluated[-1]['accuracy']:.1%}" if evaluated else "")
