"""The loop: batch, gradient, clipping, rate, update, metrics, and the validation loss now and then."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Self

from transformers import PreTrainedModel

from coolbits.data.batches import NO_BATCHES, roll_digest
from coolbits.finetuning.examples import Examples
from coolbits.finetuning.loss import accumulate_gradient, validate
from coolbits.loops.divergence import LossHistory, diverged_since
from coolbits.loops.norms import clip_gradients, l2_norm
from coolbits.optim.optimizer import Optimizer
from coolbits.optim.schedules import learning_rate
from coolbits.products import products_of
from coolbits.study.recipes.finetuning import Finetuned

Row = dict[str, Any]


@dataclass
class Memory:
    """Where a fine-tuning stands.

    `step` counts updates done, `tokens` those of the conversations used, padding left out; `data_digest` rolls over the
    batches. `metrics` are the rows of logged updates, `validation` those of the validation losses taken.
    """

    step: int = 0
    tokens: int = 0
    data_digest: str = NO_BATCHES
    history: LossHistory = field(default_factory=LossHistory)
    metrics: list[Row] = field(default_factory=list)
    validation: list[Row] = field(default_factory=list)
    diverged_step: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return all of it as plain JSON values; one that diverged is not saved, so all numbers are finite."""
        return vars(self) | {"history": self.history.to_json()}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Read back what `to_json` gave."""
        return cls(**value | {"history": LossHistory.from_json(value["history"])})


@dataclass
class Finetuning:
    """A fine-tuning in memory: fixed parts, and `memory`, which says where it stands."""

    recipe: Finetuned
    model: PreTrainedModel
    optimizer: Optimizer
    train: Examples
    validation: Examples
    micro_batch: int | None = None
    memory: Memory = field(default_factory=Memory)

    def run(self) -> Iterator[int]:
        """Make all updates, or those up to the one that diverges; yield the number of updates after each."""
        while self._goes_on() and self.memory.step < self.recipe.steps:
            if self.memory.step % self.recipe.validate_steps == 0:
                self._validate()
            if self._goes_on():
                self._update()
                yield self.memory.step
        if self._goes_on():
            self._validate()

    def _goes_on(self) -> bool:
        return self.memory.diverged_step is None

    def _update(self) -> None:
        """Make one update, unless its loss or its gradient says that training diverged."""
        recipe, memory, parameters = self.recipe, self.memory, list(self.model.parameters())
        batch = self.train.batch(memory.step, recipe.batch_examples, recipe.seed)
        self.optimizer.zero_grad()
        with products_of(self.model, recipe.precision):
            loss = accumulate_gradient(self.model, batch, recipe.precision, self.micro_batch).item()
        grad_norm = clip_gradients(parameters, recipe.clip_norm).item()
        lr = learning_rate(recipe.schedule, recipe.peak_lr, memory.step)
        number = memory.step + 1
        memory.tokens += int(batch.attended.sum())
        memory.data_digest = roll_digest(memory.data_digest, batch.tokens)
        memory.history = memory.history.after(loss, recipe.divergence)
        memory.diverged_step = diverged_since(recipe.divergence, memory.history, grad_norm, number)
        if self._goes_on():
            self.optimizer.step(lr)
            memory.step = number
        if number % recipe.log_steps == 0 or number == recipe.steps or not self._goes_on():
            row = {"step": number, "tokens": memory.tokens, "loss": loss, "lr": lr, "grad_norm": grad_norm}
            weight_norm = l2_norm(parameters).item()
            memory.metrics.append(row | {"weight_norm": weight_norm, "data_digest": memory.data_digest})

    def _validate(self) -> None:
        """Take the validation loss; one that is no number says that training diverged.

        That of the start is the loss to which others are compared: the one of the first batch hangs on a few answers.
        """
        rows = self.micro_batch or self.recipe.batch_examples
        with products_of(self.model, self.recipe.precision):
            scores = validate(self.model, self.validation, self.recipe.precision, rows)
        self.memory.validation.append({"step": self.memory.step} | scores)
        if self.memory.step == 0:
            self.memory.history = LossHistory(first=scores["loss"])
        if not math.isfinite(scores["loss"]):
            self.memory.diverged_step = self.memory.step
