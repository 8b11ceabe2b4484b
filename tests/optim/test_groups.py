import pytest
import torch
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

from coolbits.artifacts.errors import CoolbitsError
from coolbits.models.build import build_model
from coolbits.models.presets import preset
from coolbits.optim.groups import parameter_roles, transposed_parameters

ARCHITECTURES = ["micro-neox", "micro-llama", "micro-olmo2", "micro-qwen3", "micro-gpt2"]


def roles_of(name: str, **overrides: object) -> dict[str, str]:
    return parameter_roles(build_model(preset(name, 96, 32, **overrides), seed=0))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_parameter_has_one_role_in_the_models_order(name: str) -> None:
    model = build_model(preset(name, 96, 32), seed=0)
    assert list(parameter_roles(model)) == [name for name, _ in model.named_parameters()]


@pytest.mark.parametrize(
    ("name", "embeddings", "head", "matrices_a_block"),
    [
        ("micro-neox", {"gpt_neox.embed_in.weight"}, {"lm_head.weight"}, 4),
        ("micro-llama", {"model.embed_tokens.weight"}, {"lm_head.weight"}, 7),
        ("micro-olmo2", {"model.embed_tokens.weight"}, {"lm_head.weight"}, 7),
        ("micro-qwen3", {"model.embed_tokens.weight"}, {"lm_head.weight"}, 7),
        ("micro-gpt2", {"transformer.wte.weight", "transformer.wpe.weight"}, set(), 4),
    ],
)
def test_roles_of_each_architecture(name: str, embeddings: set[str], head: set[str], matrices_a_block: int) -> None:
    roles = roles_of(name)
    assert {parameter for parameter, role in roles.items() if role == "embedding"} == embeddings
    assert {parameter for parameter, role in roles.items() if role == "head"} == head
    assert sum(role == "matrix" for role in roles.values()) == 4 * matrices_a_block


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_all_one_dimensional_parameters_are_vectors_and_only_those(name: str) -> None:
    model = build_model(preset(name, 96, 32), seed=0)
    dimensions = {name: parameter.ndim for name, parameter in model.named_parameters()}
    assert {name for name, role in parameter_roles(model).items() if role == "vector"} == {
        name for name, ndim in dimensions.items() if ndim == 1
    }


def test_a_tied_head_is_the_embedding_and_counted_once() -> None:
    roles = roles_of("micro-llama", tie_word_embeddings=True)
    assert "lm_head.weight" not in roles and roles["model.embed_tokens.weight"] == "embedding"


def test_a_parameter_without_a_role_is_refused() -> None:
    model = build_model(preset("micro-llama", 96, 32), seed=0)
    model.register_parameter("stray", torch.nn.Parameter(torch.zeros(2, 2)))
    with pytest.raises(CoolbitsError, match=r"^LlamaForCausalLM: no optimizer here updates stray of shape \[2, 2\];"):
        parameter_roles(model)


def test_a_mixture_of_experts_is_refused_in_a_sentence() -> None:
    """Such a model of the hub, to be fine-tuned, is the user's input: no defect."""
    sizes = {"vocab_size": 96, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "head_dim": 8}
    sizes |= {"num_attention_heads": 2, "num_key_value_heads": 1, "moe_intermediate_size": 8, "num_experts": 4}
    model = Qwen3MoeForCausalLM(Qwen3MoeConfig(**sizes))
    with pytest.raises(CoolbitsError, match=r"experts\.gate_up_proj of shape \[4, 16, 16\]; allowed are"):
        parameter_roles(model)


def test_only_the_weights_of_gpt2_are_stored_transposed() -> None:
    gpt2 = build_model(preset("micro-gpt2", 96, 32), seed=0)
    matrices = {name for name, role in parameter_roles(gpt2).items() if role == "matrix"}
    assert transposed_parameters(gpt2) == matrices
    assert transposed_parameters(build_model(preset("micro-neox", 96, 32), seed=0)) == set()
