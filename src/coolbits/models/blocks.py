"""Where things are in a Hugging Face causal language model: decoder blocks and the linear layers inside them."""

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D


def decoder_blocks(model: PreTrainedModel) -> list[tuple[str, nn.Module]]:
    """Return the decoder blocks with their qualified names, first to last.

    They are the one list of modules directly below the model's body (`gpt_neox.layers`, `model.layers`, ...).

    Raises:
        ValueError: if the body holds no such list, or several.
    """
    prefix = model.base_model_prefix
    lists = [(name, child) for name, child in model.base_model.named_children() if isinstance(child, nn.ModuleList)]
    if len(lists) != 1:
        raise ValueError(f"{type(model).__name__}.{prefix} holds {len(lists)} lists of modules; one was expected")
    name, blocks = lists[0]
    return [(f"{prefix}.{name}.{index}", block) for index, block in enumerate(blocks)]


def decoder_linears(model: PreTrainedModel) -> dict[str, nn.Module]:
    """Return the linear layers inside the decoder blocks by qualified name, in the order the forward pass uses them.

    `nn.Linear` has a weight of shape [outputs, inputs], GPT-2's `Conv1D` the transpose of that. The order is that of
    registration, which in all architectures supported here is that of use: attention's inputs, its output, the MLP's
    inputs, its output.
    """
    return {
        f"{block_name}.{name}": module
        for block_name, block in decoder_blocks(model)
        for name, module in block.named_modules()
        if isinstance(module, nn.Linear | Conv1D)
    }
