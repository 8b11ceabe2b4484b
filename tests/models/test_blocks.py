import pytest
import torch

from coolbits.models.blocks import decoder_blocks, decoder_linears
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


def test_a_body_without_one_list_of_blocks_is_refused() -> None:
    model = build_model(preset("micro-llama", 96, 32), seed=0)
    model.model.others = torch.nn.ModuleList()
    with pytest.raises(ValueError, match=r"LlamaForCausalLM\.model holds 2 lists of modules"):
        decoder_blocks(model)
