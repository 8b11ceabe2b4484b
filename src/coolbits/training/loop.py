"""The loop: batch, gradient, clipping, rate, update, metrics."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor
from transformers import PreTrainedModel

from coolbits.data.batches import Batches, roll_digest
from coolbits.loops.divergence import diverged_since
from coolbits.loops.norms import clip_gradients, l2_norm
from coolbits.optim.optimizer import Optimizer
from coolbits.optim.schedules import learning_rate
from coolbits.products import products_of
from coolbits.study.recipes.training import Trajectory
from coolbits.training.gradient import SummedLoss, accumulate_gradient
from coolbits.training.memory import Memory, Update, metrics_row
from coolbits.training.telemetry import Observer


@dataclass
class Training:
    """A trajectory in memory: fixed parts, `memory`, which says where it stands, and `observer`, which only looks on.

    With `read_late` losses and gradient norms stay on the device until metrics are logged or telemetry is gathered, to
    keep an accelerator busy. A divergence is then found late, but at the same step: what was trained after it is
    dropped with its weights.
    """

    recipe: Trajectory
    model: PreTrainedModel
    optimizer: Optimizer
    batches: Batches
    loss: SummedLoss
    micro_batch_sequences: int | None = None
    read_late: bool = False
    memory: Memory = field(default_factory=Memory)
    observer: Observer = field(default_factory=Observer)
    _unread: list[tuple[Callable[..., Update], Tensor]] = field(default_factory=list)

    def train(self, until: int) -> Iterator[int]:
        """Make updates until there are `until`, or one diverges; yield the number of updates after each.

        A loss and its gradient are judged before the update they belong to is made.
        """
        recipe, memory, parameters = self.recipe, self.memory, list(self.model.parameters())
        device = parameters[0].device
        while memory.step < until and memory.diverged_step is None:
            batch = self.batches.batch(memory.step)  # [sequences, sequence_length + 1]
            self.optimizer.zero_grad()
            with products_of(self.model, recipe.precision):
                loss = accumulate_gradient(self.loss, torch.from_numpy(batch).to(device), self.micro_batch_sequences)
            grad_norm = clip_gradients(parameters, recipe.clip_norm)
            lr = learning_rate(recipe.schedule, recipe.peak_lr, memory.step)
            number = memory.step + 1
            memory.data_digest = roll_digest(memory.data_digest, batch)
            update = partial(Update, step=number, lr=lr, data_digest=memory.data_digest)
            self._unread.append((update, torch.stack([loss, grad_norm])))
            logged = number % recipe.log_steps == 0
            if logged or self.observer.is_due(number) or not self.read_late:
                self.read()
            if memory.diverged_step is None:
                with self.observer.around(number):
                    self.optimizer.step(lr)
                memory.step = number
                if logged:
                    memory.rows.append(self.last_row())
                yield number
        self.read()

    def read(self) -> None:
        """Fetch the losses and gradient norms not yet read, and judge them in order, up to the first that diverged."""
        if not self._unread:
            return
        memory, rule = self.memory, self.recipe.divergence
        values = torch.stack([pair for _, pair in self._unread]).tolist()  # [updates, 2]
        for (update, _), (loss, grad_norm) in zip(self._unread, values, strict=True):
            memory.last = update(loss=loss, grad_norm=grad_norm)
            memory.history = memory.history.after(loss, rule)
            memory.diverged_step = diverged_since(rule, memory.history, grad_norm, memory.last.step)
            if memory.diverged_step is not None:
                break
        self._unread.clear()

    def last_row(self) -> dict[str, object]:
        """Return the metrics of the last update that was judged, with the norm of the weights as they are now.

        If it diverged, these are the weights before it; where that was read late they are lost, and their norm is NaN.
        """
        last, step = self.memory.last, self.memory.step
        if last is None:
            raise ValueError("no update was made yet")
        lost = self.memory.diverged_step is not None and step >= last.step
        weight_norm = math.nan if lost else l2_norm(self.model.parameters()).item()
        return metrics_row(last, self.recipe.batch_tokens, weight_norm)
