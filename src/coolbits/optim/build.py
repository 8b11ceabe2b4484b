"""The optimizer of a recipe, for a model: which rule updates which parameters, and how its states are stored."""

from typing import Literal, assert_never

import torch
from transformers import PreTrainedModel

from coolbits.optim.adam import Adam
from coolbits.optim.codecs import Float32, StateCodec
from coolbits.optim.groups import DECAYED, Role, parameter_roles, transposed_parameters
from coolbits.optim.muon import Muon
from coolbits.optim.optimizer import Group, Optimizer, Rule
from coolbits.optim.sgd import SGD
from coolbits.study.recipes import training as recipes

Precision = Literal["bfloat16", "float32"]


def build_optimizer(
    model: PreTrainedModel, recipe: recipes.Optimizer, peak_lr: float, precision: Precision = "bfloat16"
) -> Optimizer:
    """Return the optimizer of `recipe` for all parameters of `model`; move the model to its device first.

    Matrices, embeddings and head are decayed; biases and norms are not. AdamC corrects the decay of the matrices inside
    the blocks, whose outputs a norm rescales (Defazio 2025); embeddings and head decay as under AdamW. (The code of
    arXiv 2510.06213 corrects those two as well, against that paper's argument.) `precision` is that of Newton-Schulz'
    matrix products: pass the trajectory's.
    """
    transposed = transposed_parameters(model)
    members: dict[Rule, dict[str, torch.nn.Parameter]] = {}
    parameters = dict(model.named_parameters())
    for name, role in parameter_roles(model).items():
        rule = _rule(recipe, role, name in transposed, peak_lr, getattr(torch, precision))
        members.setdefault(rule, {})[name] = parameters[name]
    return Optimizer([Group(rule, group, _codecs(rule, group)) for rule, group in members.items()])


def _rule(recipe: recipes.Optimizer, role: Role, transposed: bool, peak_lr: float, dtype: torch.dtype) -> Rule:
    decay = recipe.weight_decay if role in DECAYED else 0.0
    match recipe:
        case recipes.AdamW():
            return Adam(recipe.beta1, recipe.beta2, recipe.eps, decay)
        case recipes.AdamC():
            return Adam(recipe.beta1, recipe.beta2, recipe.eps, decay, peak_lr if role == "matrix" else None)
        case recipes.SGD():
            return SGD(recipe.momentum, recipe.nesterov, decay)
        case recipes.Muon() if role == "matrix":
            return Muon(
                recipe.momentum, recipe.nesterov, recipe.newton_schulz_steps, recipe.scale, decay, transposed, dtype
            )
        case recipes.Muon():
            return Adam(recipe.beta1, recipe.beta2, recipe.eps, decay)
        case _:
            assert_never(recipe)


def _codecs(rule: Rule, group: dict[str, torch.nn.Parameter]) -> dict[tuple[str, str], StateCodec]:
    return {(name, state): Float32() for state in rule.states for name in group}
