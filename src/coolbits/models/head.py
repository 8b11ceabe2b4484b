"""The output head of a causal language model: which layer it is, and whose weight it has."""

from collections.abc import Container

from torch import nn
from transformers import PreTrainedModel


def output_head(model: PreTrainedModel) -> tuple[str, nn.Linear] | None:
    """Return the linear layer that makes logits of hidden states, with its qualified name; None if there is no such."""
    head = model.get_output_embeddings()
    named = ((name, module) for name, module in model.named_modules() if module is head)
    return next(((name, module) for name, module in named if isinstance(module, nn.Linear)), None)


def is_tied(model: PreTrainedModel) -> bool:
    """Whether the head's weight is that of the embedding, the very tensor."""
    head = output_head(model)
    return head is not None and head[1].weight is model.get_input_embeddings().weight


def untie_head(model: nn.Module, layers: Container[str]) -> None:
    """Give a tied head a weight of its own, in place, if `layers` are to change it; the config says so from then on.

    The embedding keeps the weight that they had in common.
    """
    if not isinstance(model, PreTrainedModel) or (head := output_head(model)) is None:
        return
    name, module = head
    if name in layers and is_tied(model):
        module.weight = nn.Parameter(module.weight.detach().clone(), module.weight.requires_grad)
        model.config.tie_word_embeddings = False  # else the library ties them again, when it loads or is asked to
