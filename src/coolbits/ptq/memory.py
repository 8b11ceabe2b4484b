"""How much memory quantizing takes, for any architecture: the sizes of a model that is never given memory."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from coolbits.models.blocks import decoder_blocks, decoder_linears
from coolbits.models.head import output_head
from coolbits.models.quantized import weight_matrix
from coolbits.ptq.hooks import Hook, Stop, hooked
from coolbits.study.quantization_memory import Peak, Sizes, peak_bytes
from coolbits.study.recipes.ptq import Quantized

_PROBE_TOKENS = 2


def estimate_peak(
    config: PretrainedConfig, recipe: Quantized, dtype: torch.dtype = torch.bfloat16, device: str = "cuda"
) -> Peak:
    """Estimate the memory of host and device that quantizing a model takes whose files are of `dtype`.

    The calibration's shape is the recipe's.
    """
    return peak_bytes(model_sizes(config), [recipe], dtype.itemsize, device != "cpu")


def model_sizes(config: PretrainedConfig) -> Sizes:
    """Return the sizes of the model that `config` describes, from one whose tensors have shapes alone."""
    with FakeTensorMode():
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
        blocks, linears = decoder_blocks(model), decoder_linears(model)
        place, (name, largest) = max(enumerate(blocks), key=lambda block: _count(block[1][1]))
        own = [module for path, module in linears.items() if path.startswith(f"{name}.")]
        groups = _groups(model, own, [block for _, block in blocks[place + 1 :]])
    head = output_head(model)
    inside = {id(parameter) for _, block in blocks for parameter in block.parameters()}
    return Sizes(
        parameters=_count(model),
        outside=sum(each.numel() for each in model.base_model.parameters() if id(each) not in inside),
        block=_count(largest),
        matrix=max(weight_matrix(module).numel() for module in linears.values()),
        quantized=sum(weight_matrix(module).numel() for module in linears.values()),
        head=head[1].weight.numel() if head else 0,
        groups=groups,
        width=model.get_input_embeddings().embedding_dim,
        inner_width=max(inputs for _, inputs in groups),
    )


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _groups(
    model: PreTrainedModel, linears: Sequence[nn.Module], following: Sequence[nn.Module]
) -> tuple[tuple[int, int], ...]:
    """Return outputs, together, and inputs of the layers that read the same tensor, in the order in which they run.

    They belong to one block; the blocks `following` it do not run.
    """
    readers: dict[int, list[nn.Module]] = {}
    read: list[torch.Tensor] = []  # held, so that no other tensor gets the identity of one

    def watching(module: nn.Module) -> Hook:
        def hook(arguments: tuple[torch.Tensor, ...], _keywords: dict[str, Any]) -> None:
            read.append(arguments[0])
            readers.setdefault(id(arguments[0]), []).append(module)

        return hook

    def stop(_arguments: tuple[Any, ...], _keywords: dict[str, Any]) -> None:
        raise Stop

    hooks = {module: watching(module) for module in linears} | dict.fromkeys(following, stop)
    with torch.inference_mode(), hooked(hooks):
        model.base_model(input_ids=torch.zeros(1, _PROBE_TOKENS, dtype=torch.int64), use_cache=False)
    shapes = ([weight_matrix(module).shape for module in modules] for modules in readers.values())
    return tuple((sum(outputs for outputs, _ in each), each[0][1]) for each in shapes)
