"""A model taken apart into decoder blocks, by watching one forward pass instead of a table of architectures."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn

from coolbits.artifacts.errors import CoolbitsError
from coolbits.ptq.arguments import Taken, behind, moved_to, others_of, shared, watch_arguments
from coolbits.ptq.hooks import Hook, Stop, first_of, full_precision, hidden_of, hooked
from coolbits.ptq.placement import placed, placed_in_turn
from coolbits.ptq.tokens import Tokens
from coolbits.study.quantization_memory import CHUNK_TOKENS

Named = Sequence[tuple[str, nn.Module]]

_WATCHED_TOKENS = 128


@dataclass(frozen=True)
class Block:
    """A decoder block as one forward pass showed it.

    `groups` are the names of its linear layers in the order in which they ran; layers of one group read the same
    tensor. `arguments` and `keywords` are what the block gets besides the hidden states, `others` what it gives besides
    them; None if it gives a bare tensor. It runs on `device`, where it must be `placed` meanwhile; hidden states come
    from anywhere and go back there.

    Arguments are those of the first chunk, `later` has those of each one after it: masks and positions are alike, or
    the corners of the first one's where sequences are shorter, but some architectures hand every block an embedding of
    its own of the tokens, or that of the first block.
    """

    module: nn.Module
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    others: tuple[Any, ...] | None
    groups: tuple[tuple[str, ...], ...]
    device: torch.device
    later: tuple[Taken, ...] = field(default=(), kw_only=True)

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of its linear layers, in the order of their groups."""
        return tuple(name for group in self.groups for name in group)

    def placed(self) -> AbstractContextManager[None]:
        """Hold the block on its device, in float32."""
        return placed(self.module.modules(), self.device)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the block's output for hidden states [sequences, length, width]."""
        return first_of(self.module(hidden.to(self.device), *self.arguments, **self.keywords)).to(hidden.device)

    def run(self, chunk: "Chunk") -> "Chunk":
        """Return the block's output for a chunk, read with the arguments that belong to it."""
        return chunk._replace(hidden=self._reading(chunk.number).forward(chunk.hidden))

    def _reading(self, number: int) -> "Block":
        """Return the block with the arguments of a chunk as its own."""
        if number == 0 or not self.later:
            return self
        arguments, keywords = self.later[number - 1]
        moved = {key: moved_to(item, self.device) for key, item in keywords.items()}
        return replace(self, arguments=moved_to(arguments, self.device), keywords=moved, later=())

    def given(self, hidden: torch.Tensor) -> Any:
        """Return hidden states in the form in which the block gives them."""
        return behind(hidden, self.others)


class Chunk(NamedTuple):
    """What a block reads of a few sequences; `real` marks positions that hold tokens, None if all do.

    Padding is on the right, where causal attention keeps it from the tokens. Chunks differ in length: none is longer
    than the longest of its sequences.
    """

    hidden: torch.Tensor  # float32 [sequences, length, width], on the CPU
    real: torch.Tensor | None  # bool [sequences, length], on the block's device
    number: int = 0  # its place among the chunks


def real_rows(vectors: torch.Tensor, real: torch.Tensor | None) -> torch.Tensor:
    """Return the vectors [rows, width] of positions that hold tokens, of a chunk or a call with these `real` ones.

    Whether sequences are a dimension of their own or lie end to end, as OPT's MLP reads them, does not matter.
    """
    rows = vectors.flatten(0, -2)
    return rows if real is None else rows[real.flatten()]


@dataclass(frozen=True)
class Trace:
    """A model's blocks, and what the first of them reads."""

    blocks: tuple[Block, ...]
    embed: Callable[[], tuple[Chunk, ...]]

    @property
    def inputs(self) -> tuple[Chunk, ...]:
        """What the first block reads, made anew at each access: kept, it would wait in memory for every other pass."""
        return self.embed()


@torch.inference_mode()
def trace_model(
    model: nn.Module,
    blocks: Named,
    linears: Mapping[str, nn.Module],
    calibration: Tokens,
    device: torch.device | None = None,
) -> Trace:
    """Watch the model read the beginning of the calibration's longest sequence, and what its blocks get of each chunk.

    Chunks have the longest sequences first, and each ends with its own longest, so that short ones cost little. The
    model computes in float32 on `device` (None: where the model is), which never holds more than a block of it, or what
    lies outside of blocks. A linear layer that did not run makes a group of its own, at the end of its block.

    Raises:
        CoolbitsError: if a block reads something else than the block before it gives: run one by one they would not
            compute what the model does.
    """
    body = getattr(model, "base_model", model)
    device = device or next(model.parameters()).device
    trimmed = calibration.longest_first(_chunk_sequences(*calibration.tokens.shape))
    chunks = [chunk.tokens.to(device) for chunk in trimmed]
    inside = {module for _, block in blocks for module in block.modules()}
    outside = [module for module in body.modules() if module not in inside]
    modules = [block for _, block in blocks]
    few = chunks[0][:1, :_WATCHED_TOKENS]
    with full_precision(device), placed(outside, device):
        with placed_in_turn(modules, device):
            reads, outputs = _watch_layers(body, few, blocks, linears)
        others = {block: others_of(output) for block, output in outputs.items()}
        first = watch_arguments(body, chunks[0], others)
        later = [shared(watch_arguments(body, chunk, others), first) for chunk in chunks[1:]]
    watched = tuple(
        Block(
            block,
            *first[block],
            others[block],
            _groups(name, reads, linears),
            device,
            later=tuple(taken[block] for taken in later),
        )
        for name, block in blocks
    )
    real = [None if chunk.whole else chunk.real.to(device) for chunk in trimmed]
    return Trace(watched, partial(_block_inputs, body, modules[0], outside, list(zip(chunks, real, strict=True))))


def _chunk_sequences(sequences: int, length: int) -> int:
    """Return the largest divisor of `sequences` that fits a chunk: chunks of as many share masks and positions."""
    fitting = (size for size in range(1, sequences + 1) if sequences % size == 0 and size * length <= CHUNK_TOKENS)
    return max(fitting, default=1)


def _watch_layers(
    body: nn.Module, tokens: torch.Tensor, blocks: Named, linears: Mapping[str, nn.Module]
) -> tuple[dict[str, int], dict[nn.Module, Any]]:
    """Return the number of the input that each linear layer reads, in the order of first readings; and blocks' outputs.

    Layers that read the same tensor have the same number.
    """
    reads: dict[str, int] = {}
    outputs: dict[nn.Module, Any] = {}
    last = torch.empty(0)

    def watch_linear(name: str) -> Hook:
        def hook(arguments: tuple[torch.Tensor, ...], _keywords: dict[str, Any]) -> None:
            nonlocal last
            same = arguments[0].data_ptr() == last.data_ptr() and arguments[0].shape == last.shape
            reads.setdefault(name, max(reads.values(), default=0) + (not same))
            last = arguments[0]  # held, so that no other tensor gets its address meanwhile

        return hook

    def keep(block: nn.Module) -> Hook:
        return lambda _arguments, _keywords, output: outputs.update({block: output})

    before = {module: watch_linear(name) for name, module in linears.items()}
    with hooked(before), hooked({block: keep(block) for _, block in blocks}, after=True), _chained(blocks):
        body(input_ids=tokens, use_cache=False)
    return reads, outputs


@contextmanager
def _chained(blocks: Named) -> Iterator[None]:
    """See that each block that runs meanwhile reads what the block before it gave.

    Raises:
        CoolbitsError: naming the first that reads something else.
    """
    given: dict[str, torch.Tensor] = {}  # by the block before, whose name is the key: a copy, as it may be added to

    def comparing(name: str) -> Hook:
        def hook(arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            read = hidden_of(arguments, keywords)
            for other, hidden in given.items():
                if not torch.equal(read.nan_to_num(), hidden.nan_to_num()):
                    raise CoolbitsError(
                        f"{name}: reads other hidden states than {other} gives, the block before it; allowed are "
                        "models whose blocks read each other's outputs as they are"
                    )
            given.clear()

        return hook

    def copying(name: str) -> Hook:
        return lambda _arguments, _keywords, output: given.update({name: first_of(output).clone()})

    with (
        hooked({block: comparing(name) for name, block in blocks}),
        hooked({block: copying(name) for name, block in blocks}, after=True),
    ):
        yield


def _groups(block: str, reads: Mapping[str, int], linears: Mapping[str, nn.Module]) -> tuple[tuple[str, ...], ...]:
    own = [name for name in linears if name.startswith(f"{block}.")]
    numbers = sorted({reads[name] for name in own if name in reads})
    ran = [tuple(name for name in own if reads.get(name) == number) for number in numbers]
    return (*ran, *((name,) for name in own if name not in reads))


@torch.inference_mode()
def _block_inputs(
    body: nn.Module,
    block: nn.Module,
    outside: Sequence[nn.Module],
    chunks: Sequence[tuple[torch.Tensor, torch.Tensor | None]],
) -> tuple[Chunk, ...]:
    """Return what the first block reads of each chunk of tokens."""
    device, caught = chunks[0][0].device, []

    def hook(arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        caught.append(hidden_of(arguments, keywords).cpu())
        raise Stop

    with full_precision(device), placed(outside, device):
        for tokens, _ in chunks:
            with hooked({block: hook}):
                body(input_ids=tokens, use_cache=False)
    reals = [real for _, real in chunks]
    return tuple(Chunk(*read, number) for number, read in enumerate(zip(caught, reals, strict=True)))
