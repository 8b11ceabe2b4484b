from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from coolbits.artifacts.errors import CoolbitsError
from coolbits.models.blocks import decoder_blocks, decoder_linears, shared_weight, unreached_weights
from coolbits.models.build import build_model
from coolbits.models.presets import preset

LLAMA = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"] + [
    f"mlp.{name}_proj" for name in ("gate", "up", "down")
]
LAYERS = {
    "micro-neox": (
        "gpt_neox.layers",
        ["attention.query_key_value", "attention.dense", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h"],
    ),
    "micro-llama": ("model.layers", LLAMA),
    "micro-olmo2": ("model.layers", LLAMA),
    "micro-qwen3": ("model.layers", LLAMA),
    "micro-gpt2": ("transformer.h", ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]),
}
SIZES = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "pad_token_id": None,
}
GPT_OF = {"vocab_size": 96, "n_embd": 32, "n_layer": 1, "n_head": 2}
OPT = {"word_embed_proj_dim": 32, "ffn_dim": 48, "num_attention_heads": 2, "num_hidden_layers": 2, "hidden_size": 32}
EXPERTS = {"mlp.gate.weight": [4, 32], "mlp.experts.gate_up_proj": [4, 96, 32], "mlp.experts.down_proj": [4, 32, 48]}
# What `decoder_linears` leaves out of the first block.
UNREACHED: dict[str, tuple[dict[str, Any], dict[str, list[int]]]] = {
    "gpt_neox": (SIZES, {}),
    "gpt2": (GPT_OF, {}),
    "llama": (SIZES, {}),
    "qwen3": (SIZES, {}),
    "phi3": (SIZES, {}),
    "gemma2": (SIZES | {"head_dim": 16}, {}),
    "opt": (OPT, {}),
    "cohere": (SIZES | {"use_qk_norm": True}, {}),  # norms of a row of weights a head
    "olmo_hybrid": (SIZES | {"num_hidden_layers": 2, "layer_types": ["linear_attention", "full_attention"]}, {}),
    "mixtral": (SIZES | {"num_local_experts": 4}, EXPERTS),
    "olmoe": (SIZES | {"num_experts": 4}, EXPERTS),
    "qwen3_moe": (SIZES | {"num_experts": 4, "moe_intermediate_size": 48}, EXPERTS),
    # Experts are rows of embeddings.
    "doge": (
        SIZES | {"is_moe": True, "num_experts": 16, "num_experts_per_tok": 4},
        {"mlp.down_embed.weight": [16, 32], "mlp.up_embed.weight": [16, 32]},
    ),
}
EVERY_ARCHITECTURE = pytest.mark.parametrize("name", LAYERS)


@EVERY_ARCHITECTURE
def test_blocks_come_first_to_last_by_qualified_name(name: str) -> None:
    model = build_model(preset(name, 96, 32), seed=0)
    found = decoder_blocks(model)
    assert [block_name for block_name, _ in found] == [f"{LAYERS[name][0]}.{index}" for index in range(4)]
    assert all(model.get_submodule(block_name) is block for block_name, block in found)


@EVERY_ARCHITECTURE
def test_linear_layers_are_those_of_the_blocks_and_nothing_else(name: str) -> None:
    prefix, layers = LAYERS[name]
    model = build_model(preset(name, 96, 32), seed=0)
    assert list(decoder_linears(model)) == [f"{prefix}.{index}.{layer}" for index in range(4) for layer in layers]


@EVERY_ARCHITECTURE
def test_their_order_is_that_of_the_forward_pass(name: str) -> None:
    model = build_model(preset(name, 96, 32), seed=0)
    called: list[str] = []
    for layer_name, layer in decoder_linears(model).items():
        layer.register_forward_hook(lambda *_, layer_name=layer_name: called.append(layer_name))
    model(input_ids=torch.zeros(1, 4, dtype=torch.long))
    assert called == list(decoder_linears(model))


def random_model(architecture: str, config: dict[str, Any]) -> PreTrainedModel:
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture, **config))


@pytest.mark.parametrize(("architecture", "config", "left_out"), [(name, *case) for name, case in UNREACHED.items()])
def test_matrices_outside_of_linear_layers_are_told(
    architecture: str, config: dict[str, Any], left_out: dict[str, list[int]]
) -> None:
    model = random_model(architecture, config)
    first = f"{decoder_blocks(model)[0][0]}."
    unreached = {
        name: list(weight.shape) for name, weight in unreached_weights(model).items() if name.startswith(first)
    }
    assert unreached == {first + name: shape for name, shape in left_out.items()}


def test_a_convolution_that_mixes_channels_is_told_a_depthwise_one_is_not() -> None:
    model = random_model("llama", SIZES)
    (_, block) = decoder_blocks(model)[0]
    block.depthwise, block.mixing = torch.nn.Conv1d(8, 8, 4, groups=8), torch.nn.Conv1d(8, 8, 4, groups=2)
    assert list(unreached_weights(model)) == ["model.layers.0.mixing.weight"]


def test_a_table_of_tokens_or_of_positions_is_not_told() -> None:
    model = random_model("llama", SIZES)
    (_, block) = decoder_blocks(model)[0]
    block.of_tokens, block.of_distances = torch.nn.Embedding(96, 32), torch.nn.Embedding(16, 2)
    assert not unreached_weights(model)


def test_layers_with_one_weight_are_told() -> None:
    model = random_model("llama", SIZES | {"num_hidden_layers": 3})
    assert shared_weight(model) is None
    first, _, last = (block for _, block in decoder_blocks(model))
    last.mlp.up_proj.weight = first.mlp.up_proj.weight
    assert shared_weight(model) == ("model.layers.0.mlp.up_proj", "model.layers.2.mlp.up_proj")
    last.self_attn = first.self_attn
    assert shared_weight(model) == ("model.layers.0.self_attn.q_proj", "model.layers.2.self_attn.q_proj")


def test_blocks_may_lie_below_a_decoder() -> None:
    model = random_model("opt", OPT)
    assert [name for name, _ in decoder_blocks(model)] == ["model.decoder.layers.0", "model.decoder.layers.1"]


def test_a_body_without_one_list_of_blocks_is_refused() -> None:
    model = build_model(preset("micro-llama", 96, 32), seed=0)
    model.model.others = torch.nn.ModuleList()
    with pytest.raises(CoolbitsError, match=r"LlamaForCausalLM\.model holds 2 lists of modules; allowed are"):
        decoder_blocks(model)
