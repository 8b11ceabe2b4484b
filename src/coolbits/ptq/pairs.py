"""Scale-equivalent pairs, found by trying instead of a table of architectures.

A pair is a *producer*, a norm or a linear layer, and all the linear layers that read its output channels one by one:
the producer's channel may be divided by a scale and the readers' columns multiplied by it, and the block's function
stays. Each candidate's channels are multiplied by factors that all differ; a layer whose inputs change by constant
ratios reads the channels with those factors. What is found this way is then tried on both sides at once, and taken
only if the block's output stays.

Candidates are tried on sequences of one token. There attention looks at one value alone: its weights are 1, queries
and keys drop out, and its output projection reads the values channel by channel, several from one channel where
heads share values.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn
from transformers import PreTrainedModel

from coolbits.models.blocks import decoder_blocks, decoder_linears
from coolbits.models.forwards import in_short_chunks
from coolbits.models.quantized import weight_matrix
from coolbits.ptq.hooks import Hook, full_precision, hooked
from coolbits.ptq.tokens import Tokens
from coolbits.ptq.tracing import Block, trace_model

Linears = Mapping[str, nn.Module]

_SEQUENCES, _LENGTH = 16, 16
_RATIO = 2e-5  # how far a ratio may lie from its factor: they are 2**(1/channels) apart
_CONSTANT = 1e-4  # and how far an input may stray from a constant ratio, as a share of the input
_EQUAL = 1e-4  # and the block's output from what it was, as a share of what the block adds to its input


@dataclass(frozen=True)
class Producer:
    """A module whose output channels its own parameters scale: a norm or a linear layer.

    `offset` is what it adds to its weight before it multiplies: 1 in norms of Gemma's kind.
    """

    name: str
    module: nn.Module
    offset: float = 0.0

    @property
    def parameters(self) -> dict[str, torch.Tensor]:
        """Weight [channels, ...] and, if there is one, bias [channels]: views, in place of which others can be put."""
        bias = getattr(self.module, "bias", None)
        return {"weight": weight_matrix(self.module)} | ({} if bias is None else {"bias": bias.detach()})

    @property
    def channels(self) -> int:
        """Output channels."""
        return len(self.parameters["weight"])

    def divided(self, scales: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the parameters with which each output channel is divided by its scale [channels]."""
        parameters = self.parameters
        weight = parameters["weight"] + self.offset
        weight = weight / scales.reshape(-1, *[1] * (weight.ndim - 1)) - self.offset
        return {"weight": weight} | ({"bias": parameters["bias"] / scales} if "bias" in parameters else {})


@dataclass(frozen=True)
class Pair:
    """A producer and its readers, each with the channel that each of its inputs is; -1: an input that is always 0."""

    producer: Producer
    rows: Mapping[str, torch.Tensor]  # int64 [inputs]

    @property
    def used(self) -> torch.Tensor:
        """The channels that are read, in order."""
        channels = torch.cat(list(self.rows.values())).unique()
        return channels[channels >= 0]

    @property
    def shared(self) -> bool:
        """Whether one reader reads a channel several times, as where heads share values."""
        return any(int(torch.bincount(rows[rows >= 0]).max()) > 1 for rows in self.rows.values())

    def columns(self, reader: str, scales: torch.Tensor) -> torch.Tensor:
        """Return what a reader's columns are multiplied by [inputs] if the channels are divided by `scales`."""
        rows = self.rows[reader]
        return torch.where(rows >= 0, scales[rows.clamp_min(0)], 1.0)


@dataclass(frozen=True)
class Links:
    """A block's verified pairs, no layer reading in two, and its layers that matter only to where attention looks."""

    pairs: tuple[Pair, ...]
    steering: frozenset[str]


class Pass(NamedTuple):
    """A block, what it read and what it gave: hidden states [sequences, length, width]."""

    block: Block
    read: torch.Tensor
    output: torch.Tensor


@contextmanager
def substituted(changes: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> Iterator[None]:
    """Put other values, the second of each two, into tensors, and in the end the old ones back."""
    before = [tensor.clone() for tensor, _ in changes]
    try:
        for tensor, value in changes:
            tensor.copy_(value)
        yield
    finally:
        for (tensor, _), value in zip(changes, before, strict=True):
            tensor.copy_(value)


@torch.inference_mode()
def find_pairs(model: PreTrainedModel, calibration: Tokens, device: torch.device | None = None) -> list[Links]:
    """Return the pairs of each decoder block; the model is left as it was. `device` is as in `trace_model`.

    Calibration gives the tokens to try with, of which a few hundred are taken.
    """
    blocks, linears = decoder_blocks(model), decoder_linears(model)
    tokens = calibration.tokens[:_SEQUENCES, :_LENGTH]
    shapes = (tokens.reshape(-1, 1), tokens)
    traces = [trace_model(model, blocks, linears, Tokens.of_equal_length(shape), device) for shape in shapes]
    one, many = (trace.inputs[0].hidden for trace in traces)
    found = []
    for (name, _), single, whole in zip(blocks, *(trace.blocks for trace in traces), strict=True):
        with single.placed(), full_precision(single.device), in_short_chunks(single.module, _LENGTH):
            inputs, output = _watch(single, one, linears)
            tried, checked = Pass(single, one, output), Pass(whole, many, whole.forward(many))
            found.append(_find_links(name, tried, inputs, checked, linears))
        one, many = tried.output, checked.output
    return found


def _find_links(name: str, tried: Pass, inputs: Mapping[str, torch.Tensor], checked: Pass, linears: Linears) -> Links:
    """Try every candidate of a block, the last first: where gate and value both scale a product, the value is taken."""
    block, one, output = tried
    pairs: list[Pair] = []
    steering, settled = set(), set()  # settled: nothing is left to try
    for producer, factors in _candidates(name, block.module, linears):
        if producer.name in settled:
            continue
        with substituted(_changes(producer, 1 / factors)):
            changed, changed_output = _watch(block, one, linears)
        if torch.equal(changed_output, output) and bool((factors != 1).all()):
            steering.add(producer.name)
        if all(torch.equal(changed[first], inputs[first]) for first in inputs):
            settled.add(producer.name)
        rows = {first: _channels(inputs[first], changed[first], factors) for first in inputs}
        readers = {
            layer: found for group in block.groups if (found := rows.get(group[0])) is not None for layer in group
        }
        taken = {reader for pair in pairs for reader in pair.rows}
        if readers and not taken & readers.keys() and _holds(pair := Pair(producer, readers), checked, linears):
            pairs.append(pair)
            settled.add(producer.name)
    return Links(tuple(pairs), frozenset(steering & linears.keys()))


def _candidates(name: str, block: nn.Module, linears: Linears) -> Iterator[tuple[Producer, torch.Tensor]]:
    """Yield what may be a producer, and the factors to try; 1 for channels left alone.

    A linear layer is tried whole and by halves: of gate and value in one layer, only the value's half scales products.
    """
    for path, module in reversed(list(block.named_modules(prefix=name))):
        weight = getattr(module, "weight", None)
        if path in linears:
            factors = _distinct_factors(len(weight_matrix(module)), module.weight.device)
            upper = torch.arange(len(factors), device=factors.device) >= len(factors) // 2
            for part in (torch.ones_like(upper), upper, ~upper):
                yield Producer(path, module), torch.where(part, factors, 1.0)
        elif isinstance(weight, nn.Parameter) and weight.ndim == 1:
            for offset in (0.0, 1.0):
                yield Producer(path, module, offset), _distinct_factors(len(weight), weight.device)


def _watch(block: Block, hidden: torch.Tensor, linears: Linears) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Return what the first layer of each group reads [tokens, inputs], and the block's output."""
    seen: dict[str, torch.Tensor] = {}

    def watching(name: str) -> Hook:
        return lambda arguments, _keywords: seen.update({name: arguments[0].flatten(0, -2)})

    with hooked({linears[group[0]]: watching(group[0]) for group in block.groups}):
        output = block.forward(hidden)
    return seen, output


def _changes(producer: Producer, scales: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    divided = producer.divided(scales)
    return [(tensor, divided[name]) for name, tensor in producer.parameters.items()]


def _distinct_factors(count: int, device: torch.device) -> torch.Tensor:
    """Return factors that all differ by as much as can be, in no order, and never 1: from 2**0.25 to 2**1.25."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(count))
    return (2 ** (0.25 + order.double() / count)).float().to(device)


def _channels(before: torch.Tensor, after: torch.Tensor, factors: torch.Tensor) -> torch.Tensor | None:
    """Return the channel whose factor turned each input of `before` into that of `after` [tokens, inputs].

    None if an input changed by no constant ratio, or by that of no channel.
    """
    before, after = before.double(), after.double()
    energy = before.square().sum(0)
    live = energy > 0
    if not live.any():
        return None
    ratio = (before * after).sum(0) / torch.where(live, energy, 1)
    strayed = torch.linalg.vector_norm(after - ratio * before, dim=0) > _CONSTANT * energy.sqrt()
    ordered, order = factors.double().sort()
    above = torch.searchsorted(ordered, ratio).clamp_max(len(order) - 1)
    below = (above - 1).clamp_min(0)
    nearest = torch.where((ordered[above] - ratio).abs() < (ordered[below] - ratio).abs(), above, below)
    strayed |= ((ratio / ordered[nearest] - 1).abs() > _RATIO) | (ordered[nearest] == 1)
    return None if (strayed & live).any() else torch.where(live, order[nearest], -1)


def _holds(pair: Pair, checked: Pass, linears: Linears) -> bool:
    """Say whether a block's output stays under random scales."""
    block, hidden, wanted = checked
    random = torch.rand(pair.producer.channels, generator=torch.Generator().manual_seed(0)).to(pair.used.device)
    scales = torch.ones_like(random)
    scales[pair.used] = 2 ** (2 * random[pair.used] - 1)  # from 1/2 to 2
    changes = _changes(pair.producer, scales)
    for reader in pair.rows:
        weight = weight_matrix(linears[reader])
        changes.append((weight, weight * pair.columns(reader, scales)))
    with substituted(changes):
        found = block.forward(hidden)
    error, added = (torch.linalg.vector_norm(each, dtype=torch.float64) for each in (found - wanted, wanted - hidden))
    return bool(error <= _EQUAL * added)
