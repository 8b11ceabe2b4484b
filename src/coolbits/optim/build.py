"""The optimizer of a recipe, for a model: which rule updates which parameters, and how its states are stored."""

from typing import assert_never

import torch
from transformers import PreTrainedModel

from coolbits.optim import newton_schulz
from coolbits.optim.adam import Adam
from coolbits.optim.codecs import NEVER_NEGATIVE, Blockwise, Float32, StateCodec
from coolbits.optim.groups import DECAYED, Role, parameter_roles, transposed_parameters
from coolbits.optim.muon import Muon
from coolbits.optim.newton_schulz import Gram
from coolbits.optim.optimizer import Group, Optimizer, Rule
from coolbits.optim.sgd import SGD
from coolbits.optim.steps import choose_steps
from coolbits.study.recipes import training as recipes

# Whose outputs a norm rescales.
_NORMALIZED: frozenset[Role] = frozenset({"matrix", "kernel"})


def build_optimizer(
    model: PreTrainedModel,
    recipe: recipes.Optimizer,
    peak_lr: float,
    precision: recipes.Precision = "bfloat16",
    compiled: bool = True,
) -> Optimizer:
    """Return the optimizer of `recipe` for all parameters of `model`; move the model to its device first.

    Matrices, kernels, embeddings and head are decayed; biases and norms are not. AdamC corrects the decay of kernels
    and of matrices inside the blocks, whose outputs a norm rescales (Defazio 2025); embeddings and head decay as under
    AdamW. (The code of arXiv 2510.06213 corrects those two as well, against that paper's argument.) `precision` is that
    of Newton-Schulz' matrix products: pass the trajectory's. Without `compiled` PyTorch updates 8-bit states on a CPU,
    to the same bits.

    A state with fewer elements than its `Storage.smallest` is stored as float32, and its label says so.

    Raises:
        CoolbitsError: if the model has a parameter without a role.
        ValueError: if a parameter is not float32.
    """
    narrow = [
        f"{name} is {parameter.dtype}"
        for name, parameter in model.named_parameters()
        if parameter.dtype != torch.float32
    ]
    if narrow:
        raise ValueError(f"{narrow[0]}; optimizers update float32 parameters (load the model with dtype=torch.float32)")
    transposed = transposed_parameters(model)
    parameters = dict(model.named_parameters())
    steps = choose_steps(next(model.parameters()).device.type, compiled)
    dtype = getattr(torch, precision)
    # The kernel saves work on tensor cores, which float32 does not use.
    gram = newton_schulz.gram if dtype == torch.float32 else steps.gram
    members: dict[tuple[Rule, tuple[StateCodec, ...]], dict[str, torch.nn.Parameter]] = {}
    for name, role in parameter_roles(model).items():
        rule = _rule(recipe, role, name in transposed, peak_lr, dtype, gram)
        codecs = tuple(_codec(getattr(recipe.states, state), state, parameters[name]) for state in rule.states)
        members.setdefault((rule, codecs), {})[name] = parameters[name]
    return Optimizer(
        [
            Group(rule, group, dict(zip(rule.states, codecs, strict=True)), steps)
            for (rule, codecs), group in members.items()
        ]
    )


def _rule(
    recipe: recipes.Optimizer, role: Role, transposed: bool, peak_lr: float, dtype: torch.dtype, gram: Gram
) -> Rule:
    decay = recipe.weight_decay if role in DECAYED else 0.0
    match recipe:
        case recipes.AdamW():
            return Adam(recipe.beta1, recipe.beta2, recipe.eps, decay)
        case recipes.AdamC():
            return Adam(recipe.beta1, recipe.beta2, recipe.eps, decay, peak_lr if role in _NORMALIZED else None)
        case recipes.SGD():
            return SGD(recipe.momentum, recipe.nesterov, decay)
        case recipes.Muon() if role == "matrix":
            momentum = recipe.momentum, recipe.nesterov
            return Muon(*momentum, recipe.newton_schulz_steps, recipe.scale, decay, transposed, dtype, gram)
        case recipes.Muon():
            return Adam(recipe.beta1, recipe.beta2, recipe.eps, decay)
        case _:
            assert_never(recipe)


def _codec(storage: recipes.Storage, state: str, parameter: torch.nn.Parameter) -> StateCodec:
    if storage.codec == "float32":
        return Float32()
    if parameter.numel() < storage.smallest:
        return Float32(below=storage.smallest)
    return Blockwise(storage.codec, state not in NEVER_NEGATIVE, storage.block_size)
