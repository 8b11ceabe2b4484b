"""Where things are in a Hugging Face causal language model: decoder blocks and the linear layers inside them."""

from typing import Any

from torch import nn
from transformers import MptConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from coolbits.artifacts.errors import CoolbitsError

_PADDING = 2  # positions that OPT has besides


def decoder_blocks(model: PreTrainedModel) -> list[tuple[str, nn.Module]]:
    """Return the decoder blocks with their qualified names, first to last.

    They are the one list of modules directly below the model's body (`gpt_neox.layers`, `model.layers`, ...) or, where
    the body has a decoder, below that (`model.decoder.layers` of OPT).

    Raises:
        CoolbitsError: if there is no such list, or several.
    """
    path, body = model.base_model_prefix, model.base_model
    if isinstance(decoder := getattr(body, "decoder", None), nn.Module):
        path, body = f"{path}.decoder", decoder
    lists = [(name, child) for name, child in body.named_children() if isinstance(child, nn.ModuleList)]
    if len(lists) != 1:
        raise CoolbitsError(
            f"{type(model).__name__}.{path} holds {len(lists)} lists of modules; allowed are models that have one "
            "there, that of their decoder blocks"
        )
    name, blocks = lists[0]
    return [(f"{path}.{name}.{index}", block) for index, block in enumerate(blocks)]


def longest_sequence(model: PreTrainedModel) -> int | None:
    """Return how many tokens a model reads at most, which the config of MPT calls otherwise; None if any number."""
    return getattr(model.config, "max_position_embeddings", getattr(model.config, "max_seq_len", None))


def most_positions(model: nn.Module) -> int | None:
    """Return how many positions a model has embeddings for; None if it has none: rotations and slopes never end.

    Some do, as they come from a table that ends: the rotations of GPT-J, and MPT's slopes.
    """
    config = getattr(model, "config", None)
    if isinstance(config, MptConfig):
        return int(config.max_seq_len)
    positions = getattr(config, "max_position_embeddings", None)
    if positions is None:
        return None
    tokens = model.get_input_embeddings()  # type: ignore[operator]
    sizes = {each.num_embeddings for each in model.modules() if isinstance(each, nn.Embedding) and each is not tokens}
    tables = {len(each) for each in model.buffers() if each.dim() == 2}
    return int(positions) if sizes & {positions, positions + _PADDING} or positions in tables else None


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


def unreached_weights(model: PreTrainedModel) -> dict[str, nn.Parameter]:
    """Return the weights inside the decoder blocks that `decoder_linears` leaves out, by qualified name.

    Weights have several dimensions: experts of a mixture that lie in one tensor, and their routers. What multiplies
    single channels is none: norms, of whatever shape, and depthwise convolutions; nor is a table to look things up in,
    unless it may hold the vectors of experts.
    """
    embedding: Any = model.get_input_embeddings()
    tokens, width = embedding.weight.shape
    return {
        f"{path}.{name}": parameter
        for block_name, block in decoder_blocks(model)
        for path, module in block.named_modules(prefix=block_name)
        if not (isinstance(module, nn.Linear | Conv1D) or _is_channelwise(module) or _is_look_up(module, tokens, width))
        for name, parameter in module.named_parameters(recurse=False)
        if sum(size > 1 for size in parameter.shape) > 1
    }


def shared_weight(model: PreTrainedModel) -> tuple[str, str] | None:
    """Return the qualified names of the first two linear layers in decoder blocks that have one weight, or None.

    They may be two modules with one parameter, or one module in several blocks.
    """
    owners: dict[int, str] = {}
    for name, module in decoder_linears(model).items():
        if (owner := owners.setdefault(id(module.weight), name)) != name:
            return owner, name
    return None


def _is_channelwise(module: nn.Module) -> bool:
    """Whether a module multiplies each channel by numbers of its own; a norm is known by the name of its class."""
    depthwise = isinstance(module, nn.Conv1d) and module.weight.shape[1] == 1
    return depthwise or "norm" in type(module).__name__.lower()


def _is_look_up(module: nn.Module, tokens: int, width: int) -> bool:
    """Whether a module is a table of so many tokens, or one of vectors that are not as wide as hidden states.

    Any other table may multiply these, as that of Doge's experts does.
    """
    return isinstance(module, nn.Embedding) and (module.embedding_dim != width or module.num_embeddings == tokens)
