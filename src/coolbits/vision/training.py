"""The training loop of a classifier: updates, an evaluation on the held-out images after each epoch."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from coolbits.loops.divergence import LossHistory, diverged_since
from coolbits.loops.norms import clip_gradients
from coolbits.optim.optimizer import Optimizer
from coolbits.optim.schedules import learning_rate
from coolbits.products import products_of
from coolbits.study.recipes.training import Constant, Cosine, Linear, Schedule
from coolbits.study.recipes.vision import Classifier
from coolbits.vision.batches import ImageBatches

METRICS_TYPES = {"step": "int64", "images": "int64", "loss": "float64", "lr": "float64", "grad_norm": "float64"}
EVALUATION_TYPES = {"step": "int64", "epoch": "int64", "split": "str", "loss": "float64", "accuracy": "float64"}


@dataclass
class Memory:
    """Where a training stands, beside weights and optimizer: updates done, losses, rows of metrics and evaluations.

    `diverged_step` is the update since which the training has diverged, if it has.
    """

    step: int = 0
    history: LossHistory = field(default_factory=LossHistory)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    diverged_step: int | None = None


@dataclass
class Training:
    """A classifier in training: fixed parts, and `memory`, which says where it stands."""

    recipe: Classifier
    model: PreTrainedModel
    optimizer: Optimizer
    train: ImageBatches
    test: ImageBatches
    memory: Memory = field(default_factory=Memory)

    @property
    def total_steps(self) -> int:
        """The updates of the whole run."""
        return self.train.steps_in(self.recipe.epochs)

    def run(self) -> Iterator[int]:
        """Make updates to the end, or until one diverges; yield the number of updates after each.

        A loss and its gradient are judged before the update they belong to is made. After the last update of each
        epoch the held-out images are scored; a loss of theirs that is no number says that training diverged.
        """
        recipe, memory, parameters = self.recipe, self.memory, list(self.model.parameters())
        schedule = steps_of(recipe, self.train)
        ends = {self.train.steps_in(epoch): epoch for epoch in range(1, recipe.epochs + 1)}
        for number, batch in enumerate(self.train.stream(memory.step, self.total_steps), start=memory.step + 1):
            self.optimizer.zero_grad()
            with products_of(self.model, recipe.precision):
                loss = self._loss(*batch)
                loss.backward()
            clip = torch.inf if recipe.clip_norm is None else recipe.clip_norm
            grad_norm = clip_gradients(parameters, clip).item()
            memory.history = memory.history.after(loss.item(), recipe.divergence)
            lr = learning_rate(schedule, recipe.peak_lr, memory.step)
            memory.diverged_step = diverged_since(recipe.divergence, memory.history, grad_norm, number)
            lost = memory.diverged_step is not None
            if lost or number % recipe.log_steps == 0 or number == self.total_steps:
                images = number * recipe.batch_images
                row = {"step": number, "images": images, "loss": loss.item(), "lr": lr, "grad_norm": grad_norm}
                memory.metrics.append(row)
            if lost:
                return
            self.optimizer.step(lr)
            memory.step = number
            if number in ends:
                scores = self.evaluate()
                memory.evaluations.append({"step": number, "epoch": ends[number], "split": "test"} | scores)
                if not math.isfinite(scores["loss"]):
                    memory.diverged_step = number
                    return
            yield number

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Return the mean cross-entropy (nats an image) and the accuracy on the held-out images."""
        self.model.eval()
        count, batch = len(self.test.images), self.recipe.batch_images
        losses, hits = 0.0, 0
        for start in range(0, count, batch):
            images, labels = self.test.held_out(start, batch)
            with products_of(self.model, self.recipe.precision):
                logits = self._logits(images)  # [images, classes]
            losses += functional.cross_entropy(logits, labels, reduction="sum").item()
            hits += int((logits.argmax(1) == labels).sum())
        self.model.train()
        return {"loss": losses / count, "accuracy": hits / count}

    def _loss(self, images: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(self._logits(images), labels, label_smoothing=self.recipe.label_smoothing)

    def _logits(self, images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.recipe.precision == "bfloat16"):
            logits: Tensor = self.model(pixel_values=images).logits
        return logits.float()


def steps_of(recipe: Classifier, batches: ImageBatches) -> Schedule:
    """Return the schedule in steps."""
    warmup, total = batches.steps_in(recipe.schedule.warmup_epochs), batches.steps_in(recipe.epochs)
    final = recipe.schedule.final_fraction
    match recipe.schedule.kind:
        case "constant":
            return Constant(warmup_steps=warmup)
        case "cosine":
            return Cosine(warmup_steps=warmup, total_steps=total, final_fraction=final)
        case "linear":
            return Linear(warmup_steps=warmup, total_steps=total, final_fraction=final)
