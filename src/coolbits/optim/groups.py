"""Roles of a model's parameters, by what module holds them and where it stands."""

from collections.abc import Callable
from typing import Literal

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from coolbits.artifacts.errors import CoolbitsError
from coolbits.models.blocks import decoder_blocks

Role = Literal["matrix", "kernel", "embedding", "head", "vector"]
DECAYED: frozenset[Role] = frozenset({"matrix", "kernel", "embedding", "head"})
# From a parameter of two dimensions or more to its role, None if it has none.
_RoleOf = Callable[[nn.Parameter], Role | None]


def parameter_roles(model: PreTrainedModel) -> dict[str, Role]:
    """Return the role of each parameter, by its name in `model.named_parameters()`, in that order.

    `matrix`: two-dimensional, inside a decoder block. `embedding`: the weight of an `nn.Embedding`, of tokens or of
    positions. `head`: the weight of the output layer; tied to an embedding, it is that embedding and is listed once.
    `vector`: biases, weights of norms, anything of one dimension. `kernel`: the weight of a convolution; in a network
    of convolutions the weight of a linear layer is the `head`.

    Names decide nothing: the input embedding is `embed_in` in one architecture and `embed_tokens` in another, and a
    grouping that looks for one name sends the other's embedding to Muon.

    Raises:
        CoolbitsError: if a parameter has no role here, as a stack of expert matrices has none.
    """
    kernels = {id(module.weight) for module in model.modules() if isinstance(module, nn.Conv2d)}
    role = _image_role(kernels) if kernels else _text_role(model)
    roles: dict[str, Role] = {}
    for name, parameter in model.named_parameters():
        found: Role | None = "vector" if parameter.ndim < 2 else role(parameter)
        if found is None:
            raise CoolbitsError(
                f"{type(model).__name__}: no optimizer here updates {name} of shape {list(parameter.shape)}; allowed "
                "are vectors, embeddings, heads, matrices in decoder blocks and kernels of convolutions"
            )
        roles[name] = found
    return roles


def _image_role(kernels: set[int]) -> _RoleOf:
    def role(parameter: nn.Parameter) -> Role | None:
        if id(parameter) in kernels:
            return "kernel"
        return "head" if parameter.ndim == 2 else None

    return role


def _text_role(model: PreTrainedModel) -> _RoleOf:
    in_blocks = {id(parameter) for _, block in decoder_blocks(model) for parameter in block.parameters()}
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    head = id(getattr(model.get_output_embeddings(), "weight", None))

    def role(parameter: nn.Parameter) -> Role | None:
        if id(parameter) in embeddings:
            return "embedding"
        if id(parameter) == head:
            return "head"
        return "matrix" if id(parameter) in in_blocks and parameter.ndim == 2 else None

    return role


def transposed_parameters(model: nn.Module) -> set[str]:
    """Return the names of the weights stored as [inputs, outputs]: those of GPT-2's `Conv1D`; all others are the
    transpose of that."""
    return {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, Conv1D)}
