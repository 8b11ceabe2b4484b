"""The loss on fixed windows as a function of one flat vector of weights: value, gradient, Hessian times vector."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from coolbits.data.shards import TokenStream
from coolbits.evaluation.loss import demand_positions, window_starts
from coolbits.study.recipes.evaluation import OnWindows

Product = Callable[[Tensor], Tensor]
_CACHED, _LAUNCHED = 1 << 14, 1 << 20  # entries of a hundred rows whose float64 copies a CPU's cache, a GPU bears


@dataclass(frozen=True)
class Objective:
    """Mean cross-entropy (nats a token) of `model` on `batches` of int64 tokens [batch, length + 1].

    It is a function of w [n], the trainable parameters in the model's order, flattened, tied ones once. Nothing is
    cast: a float64 model gives float64 values. The model must be in evaluation mode.
    """

    model: nn.Module
    batches: tuple[Tensor, ...]

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """The parameters that w is made of, by name."""
        return trainable(self.model)

    def weights(self) -> Tensor:
        """Return a copy of w, where the model is now."""
        return flat_weights(self.model)

    def split(self, vector: Tensor) -> dict[str, Tensor]:
        """Return the pieces of a vector [n] that belong to each parameter, in its shape."""
        parameters = self.parameters
        pieces = vector.split([parameter.numel() for parameter in parameters.values()])
        return {name: piece.view_as(parameters[name]) for name, piece in zip(parameters, pieces, strict=True)}

    @torch.no_grad()
    def loss(self) -> float:
        """Return the loss at w, summed over batches in float64."""
        return sum(self._share(batch).double().item() for batch in self.batches)

    def gradient(self) -> Tensor:
        """Return the gradient at w, [n]."""
        return _sum(_flat(torch.autograd.grad(self._share(batch), self._leaves())) for batch in self.batches)

    def hessian(self) -> Product:
        """Return the function v -> H v at w, [n] -> [n], exact, by differentiating the gradient (Pearlmutter 1994).

        The function is of the weights that the model has now. Of a single batch the gradient is kept with its graph,
        which saves a third of each product.
        """
        kept = self._gradient_graph(self.batches[0]) if len(self.batches) == 1 else None

        def product(vector: Tensor) -> Tensor:
            along = list(self.split(vector).values())
            graphs = [kept] if kept else (self._gradient_graph(batch) for batch in self.batches)
            return _sum(
                _flat(torch.autograd.grad(graph, self._leaves(), along, retain_graph=kept is not None))
                for graph in graphs
            )

        return product

    @torch.no_grad()
    def move(self, weights: Tensor) -> None:
        """Make w equal to `weights` [n]."""
        for parameter, piece in zip(self._leaves(), self.split(weights).values(), strict=True):
            parameter.copy_(piece)

    @contextmanager
    def at(self, weights: Tensor) -> Iterator[None]:
        """Move to `weights` [n] inside a block, and back to the very same bits after it."""
        before = self.weights()
        self.move(weights)
        try:
            yield
        finally:
            self.move(before)

    def _leaves(self) -> list[nn.Parameter]:
        return list(self.parameters.values())

    def _gradient_graph(self, batch: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(self._share(batch), self._leaves(), create_graph=True)

    def _share(self, batch: Tensor) -> Tensor:
        """Return what a batch adds to the loss. Only this form of attention can be differentiated twice."""
        with sdpa_kernel(SDPBackend.MATH):
            logits = self.model(input_ids=batch[:, :-1], use_cache=False).logits
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten(), reduction="sum")
        return loss / sum(each[:, 1:].numel() for each in self.batches)


def objective_of(model: nn.Module, stream: TokenStream, recipe: OnWindows) -> Objective:
    """Return the loss of `model` on the windows of `recipe`, evenly spaced over the stream.

    Raises:
        CoolbitsError: as `window_starts` and `demand_positions`.
    """
    demand_positions(model, recipe.sequence_length)
    starts = window_starts(stream.tokens, recipe.windows, recipe.sequence_length)
    windows = np.stack([stream.read(int(start), int(start) + recipe.sequence_length + 1) for start in starts])
    tokens = torch.from_numpy(windows.astype(np.int64)).to(next(model.parameters()).device)
    return Objective(model, tokens.split(recipe.batch_size))


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the trainable parameters of a model by name, tied ones once."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


@torch.no_grad()
def flat_weights(model: nn.Module) -> Tensor:
    """Return a copy of a model's trainable parameters as one vector [n]."""
    return _flat(tuple(trainable(model).values())).clone()


def inner(rows: Tensor, vector: Tensor) -> Tensor:
    """Return the inner products of `rows` [k, n] with `vector` [n], float64 [k].

    Summed in float64: in float32 a BLAS on a CPU is off by a percent for ten million entries, by ten percent for a
    hundred million.
    """
    total = torch.zeros(len(rows), dtype=torch.float64, device=rows.device)
    size = _CACHED if rows.is_cpu else _LAUNCHED
    for own, piece in zip(rows.split(size, dim=1), vector.split(size), strict=True):
        total += own.double() @ piece.double()
    return total


def norm(vector: Tensor) -> float:
    """Return the Euclidean norm of a vector [n], summed in float64."""
    return math.sqrt(inner(vector[None], vector))


def rademacher(like: Tensor, generator: torch.Generator) -> Tensor:
    """Draw a vector of independent signs, +1 or -1, of the shape, dtype and device of `like`."""
    signs = torch.randint(0, 2, like.shape, generator=generator, dtype=torch.int8)
    return (2 * signs - 1).to(like)


def finite(summary: Mapping[str, float | None]) -> dict[str, float | None]:
    """Return a summary with None for each number that JSON cannot hold: of a model that quantization broke."""
    return {name: None if value is None or not math.isfinite(value) else value for name, value in summary.items()}


def _flat(tensors: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def _sum(vectors: Iterator[Tensor]) -> Tensor:
    total = next(vectors)
    for vector in vectors:
        total += vector
    return total
