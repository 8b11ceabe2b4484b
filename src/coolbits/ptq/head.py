"""The output head, quantized as if it were one more block behind the last."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from coolbits.artifacts.errors import CoolbitsError
from coolbits.models.blocks import decoder_linears
from coolbits.models.forwards import standing_in
from coolbits.models.head import output_head
from coolbits.models.quantized import weight_matrix
from coolbits.ptq.hooks import Stop
from coolbits.ptq.placement import placed
from coolbits.ptq.tracing import Block, Trace


def quantized_linears(model: PreTrainedModel, head: bool, name: str = "the model") -> dict[str, nn.Module]:
    """Return the linear layers to quantize by qualified name: those of the decoder blocks, with `head` that one, too.

    Raises:
        CoolbitsError: if the head is asked for and is no linear layer; `name` says of which model.
    """
    linears = decoder_linears(model)
    if not head:
        return linears
    last = output_head(model)
    if last is None:
        found = type(model.get_output_embeddings()).__name__
        raise CoolbitsError(f"{name}: head: the output head is {found}, no linear layer, and cannot be quantized")
    return linears | dict([last])


@dataclass(frozen=True)
class HeadBlock(Block):
    """What lies behind the decoder `blocks`, as a block whose one linear layer, `module`, is the head.

    The library's own code of the whole `model` runs, so that whatever there is between the last block and the head has
    its effect. `parts` are the modules that it needs: neither blocks nor the embedding of tokens, whose width is
    `embedding_width`.
    """

    model: nn.Module
    blocks: tuple[Block, ...]
    parts: tuple[nn.Module, ...]
    embedding_width: int

    def placed(self) -> AbstractContextManager[None]:
        """Hold head and norm on the device, in float32."""
        return placed(self.parts, self.device)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return what the head reads where the last block gives `hidden` [sequences, length, width].

        It makes no logits: of a large vocabulary those would be the largest of all tensors.
        """
        last = hidden.to(self.device)
        read: list[torch.Tensor] = []

        def stop(vectors: torch.Tensor) -> None:
            read.append(vectors)
            raise Stop

        forwards = {block.module: _giving(block, last) for block in self.blocks}
        blank = last.new_zeros(*last.shape[:2], self.embedding_width)
        with standing_in(forwards | {self.module: stop}):
            try:
                self.model(inputs_embeds=blank, use_cache=False)
            except Stop:
                if not read:  # a hook before the head has seen enough
                    raise
        return read[0].to(hidden.device)


def with_head(trace: Trace, model: PreTrainedModel) -> Trace:
    """Return the trace of a model with its output head, a linear layer, as one more block."""
    head = output_head(model)
    assert head is not None, "`quantized_linears` has found one"
    inside = {module for block in trace.blocks for module in block.module.modules()}
    embedding = model.get_input_embeddings()
    block = HeadBlock(
        module=head[1],
        arguments=(),
        keywords={},
        others=None,
        groups=((head[0],),),
        device=trace.blocks[0].device,
        model=model,
        blocks=trace.blocks,
        parts=tuple(module for module in model.modules() if module not in inside and module is not embedding),
        embedding_width=weight_matrix(embedding).shape[1],
    )
    return replace(trace, blocks=(*trace.blocks, block))


def _giving(block: Block, hidden: torch.Tensor) -> Callable[..., Any]:
    return lambda *_, **__: block.given(hidden)
