import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from coolbits.models.build import build_config
from coolbits.models.counts import flops_per_token, parameter_counts
from coolbits.models.presets import PRESETS, preset
from coolbits.optim.groups import parameter_roles
from coolbits.study.recipes.training import Model

VARIANTS = [
    ("micro-neox", {"attention_bias": False}),
    ("micro-neox", {"tie_word_embeddings": True}),
    ("micro-llama", {"attention_bias": True}),
    ("micro-llama", {"mlp_bias": True}),
    ("micro-llama", {"head_dim": 32}),
    ("micro-olmo2", {"attention_bias": True}),
    ("micro-qwen3", {"head_dim": 128, "attention_bias": True}),
    ("micro-gpt2", {"n_inner": None, "tie_word_embeddings": False}),
]


def on_meta(model: Model) -> PreTrainedModel:
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(build_config(model))


def counted(model: PreTrainedModel) -> dict[str, int]:
    totals = {"embedding": 0, "head": 0, "matrix": 0, "vector": 0}
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    for name, role in parameter_roles(model).items():
        totals[role] += sizes[name]
    return totals


@pytest.mark.parametrize(("name", "overrides"), [*((name, {}) for name in PRESETS), *VARIANTS])
def test_arithmetic_equals_the_real_model_role_by_role(name: str, overrides: dict[str, object]) -> None:
    recipe = preset(name, 503, 64, **overrides)
    counts = parameter_counts(recipe)
    assert counted(on_meta(recipe)) == {
        "embedding": counts.embedding,
        "head": counts.head,
        "matrix": counts.matrices,
        "vector": counts.vectors,
    }
    assert counts.total == counts.embedding + counts.head + counts.matrices + counts.vectors


def test_flops_of_a_model_by_hand() -> None:
    recipe = preset("micro-neox", 512, 128)
    matrices = 4 * (64 * 192 + 64 * 64 + 2 * 64 * 256)
    assert flops_per_token(recipe, 128) == 6 * (matrices + 512 * 64) + 12 * 4 * 64 * 128


@pytest.mark.parametrize("name", ["micro-neox", "micro-llama", "micro-qwen3"])
def test_flops_equal_those_that_torch_counts(name: str) -> None:
    """torch counts matrix products of forward and backward; with eager attention it sees those of attention, too."""
    from torch.utils.flop_counter import FlopCounterMode

    recipe = preset(name, 96, 32)
    model = AutoModelForCausalLM.from_config(build_config(recipe), attn_implementation="eager")
    tokens = torch.zeros(2, 32, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        model(input_ids=tokens, labels=tokens).loss.backward()
    assert counter.get_total_flops() / tokens.numel() == pytest.approx(flops_per_token(recipe, 32), rel=2e-3)


def test_a_tied_head_costs_what_an_untied_one_costs() -> None:
    tied = preset("micro-llama", 96, 32, tie_word_embeddings=True)
    assert flops_per_token(tied, 32) == flops_per_token(preset("micro-llama", 96, 32), 32)
