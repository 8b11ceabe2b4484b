import pytest
import torch
from transformers import PreTrainedModel, ResNetConfig, ResNetForImageClassification

from coolbits.models.build import build_model
from coolbits.models.presets import preset
from coolbits.optim.adam import Adam
from coolbits.optim.build import build_optimizer
from coolbits.optim.groups import parameter_roles
from coolbits.optim.muon import Muon
from coolbits.optim.optimizer import Optimizer, Rule
from coolbits.optim.sgd import SGD
from coolbits.study.recipes import training as recipes

RECIPES = [recipes.AdamW(), recipes.AdamC(), recipes.SGD(), recipes.Muon()]


def tiny(name: str = "micro-neox") -> PreTrainedModel:
    return build_model(preset(name, 96, 32), seed=0)


def rules_by_role(model: PreTrainedModel, optimizer: Optimizer) -> dict[str, set[Rule]]:
    roles = parameter_roles(model)
    found: dict[str, set[Rule]] = {}
    for group in optimizer.groups:
        for name in group.parameters:
            found.setdefault(roles[name], set()).add(group.rule)
    return found


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.kind)
@pytest.mark.parametrize("name", ["micro-neox", "micro-gpt2"])
def test_every_parameter_is_in_exactly_one_group(name: str, recipe: recipes.Optimizer) -> None:
    model = tiny(name)
    grouped = [parameter for group in build_optimizer(model, recipe, 1e-3).groups for parameter in group.parameters]
    assert sorted(grouped) == sorted(name for name, _ in model.named_parameters())


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.kind)
def test_biases_and_norms_are_not_decayed_and_everything_else_is(recipe: recipes.Optimizer) -> None:
    model = tiny()
    decays = {
        role: {rule.weight_decay for rule in rules}
        for role, rules in rules_by_role(model, build_optimizer(model, recipe, 1e-3)).items()
    }
    assert decays == {"matrix": {0.1}, "embedding": {0.1}, "head": {0.1}, "vector": {0.0}}


def test_muon_takes_the_matrices_and_adamw_the_rest() -> None:
    model = tiny()
    rules = rules_by_role(model, build_optimizer(model, recipes.Muon(), 1e-3, precision="float32"))
    assert rules["matrix"] == {Muon(0.95, False, 5, "match_rms_adamw", 0.1, dtype=torch.float32)}
    assert rules["embedding"] == rules["head"] == {Adam(0.9, 0.95, 1e-8, 0.1)}
    assert rules["vector"] == {Adam(0.9, 0.95, 1e-8, 0.0)}


def test_muon_knows_that_gpt2_stores_its_weights_transposed() -> None:
    model = tiny("micro-gpt2")
    (rule,) = rules_by_role(model, build_optimizer(model, recipes.Muon(scale="spectral"), 1e-3))["matrix"]
    assert rule.transposed


def test_adamc_corrects_the_matrices_alone() -> None:
    model = tiny()
    rules = rules_by_role(model, build_optimizer(model, recipes.AdamC(), 1e-3))
    assert rules["matrix"] == {Adam(0.9, 0.95, 1e-8, 0.1, corrected_by=1e-3)}
    assert rules["embedding"] == rules["head"] == {Adam(0.9, 0.95, 1e-8, 0.1)}


def test_adamc_corrects_the_kernels_of_a_classifier_whose_outputs_are_normalized_too() -> None:
    sizes = {"embedding_size": 4, "hidden_sizes": [4, 8], "depths": [1, 1], "layer_type": "basic"}
    model = ResNetForImageClassification(ResNetConfig(**sizes))
    rules = rules_by_role(model, build_optimizer(model, recipes.AdamC(), 1e-3))
    assert rules == {
        "kernel": {Adam(0.9, 0.95, 1e-8, 0.1, corrected_by=1e-3)},
        "head": {Adam(0.9, 0.95, 1e-8, 0.1)},
        "vector": {Adam(0.9, 0.95, 1e-8, 0.0)},
    }


def test_sgd_takes_everything() -> None:
    model = tiny()
    rules = rules_by_role(model, build_optimizer(model, recipes.SGD(nesterov=True), 1e-3))
    assert set().union(*rules.values()) == {SGD(0.9, True, 0.1), SGD(0.9, True, 0.0)}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.kind)
def test_it_lowers_the_loss_of_a_real_model(recipe: recipes.Optimizer) -> None:
    model = tiny()
    optimizer = build_optimizer(model, recipe, 3e-3)
    tokens = torch.randint(0, 96, (4, 32), generator=torch.Generator().manual_seed(0))
    losses = []
    for _ in range(10):
        loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        optimizer.step(0.1 if recipe.kind == "sgd" else 3e-3)
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.2
