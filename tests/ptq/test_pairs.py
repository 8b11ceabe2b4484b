"""Pairs are found where theory has them, and scaling every pair of a model leaves its logits as they were."""

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from coolbits.models.blocks import decoder_linears
from coolbits.models.quantized import weight_matrix
from coolbits.ptq.pairs import Links, find_pairs, substituted
from coolbits.ptq.tokens import Tokens

TOKENS = Tokens.of_equal_length(torch.randint(0, 96, (8, 16), generator=torch.Generator().manual_seed(0)))
SPECIAL = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
GPT2 = {"vocab_size": 96, "n_embd": 32, "n_layer": 2, "n_head": 4} | SPECIAL
SIZES = {
    "vocab_size": 96,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
} | SPECIAL
OPT = {"word_embed_proj_dim": 32, "ffn_dim": 48} | {
    key: size for key, size in SIZES.items() if key != "intermediate_size"
}
GROUPED = SIZES | {"num_key_value_heads": 2}

ATTENTION = ("q_proj", "k_proj", "v_proj")
VALUES = {"v_proj": ("o_proj",)}
GATED = {"up_proj": ("down_proj",)}
LLAMA = {"input_layernorm": ATTENTION, "post_attention_layernorm": ("gate_proj", "up_proj")} | VALUES | GATED
GPT_NEOX = {
    "input_layernorm": ("query_key_value",),
    "query_key_value": ("dense",),
    "post_attention_layernorm": ("dense_h_to_4h",),
}
GEMMA = {"input_layernorm": ATTENTION, "pre_feedforward_layernorm": ("gate_proj", "up_proj")} | VALUES | GATED
# Theory, by architecture. Absent are readers of a nonlinear function (the second layer of an MLP without a gate) and
# of the bare residual stream (OLMo2's norms come after attention and MLP).
EXPECTED = {
    "gpt_neox": (SIZES, GPT_NEOX),
    "gpt_neox-sequential": (SIZES | {"use_parallel_residual": False}, GPT_NEOX),
    "llama": (GROUPED, LLAMA),
    "llama-biased": (GROUPED | {"attention_bias": True, "mlp_bias": True}, LLAMA),
    "llama-relu": (GROUPED | {"hidden_act": "relu"}, LLAMA),
    "olmo": (GROUPED, VALUES | GATED),  # its norms have no weights that could be divided
    "olmo2": (GROUPED, VALUES | GATED),
    "qwen3": (GROUPED | {"head_dim": 8}, LLAMA),
    "smollm3": (GROUPED, LLAMA),
    "apertus": (
        GROUPED | {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
        {"attention_layernorm": ATTENTION, "feedforward_layernorm": ("up_proj",)} | VALUES,
    ),
    "phi": (SIZES, {"input_layernorm": (*ATTENTION, "fc1"), "v_proj": ("dense",)}),
    "phi3": (
        GROUPED,
        {
            "input_layernorm": ("qkv_proj",),
            "qkv_proj": ("o_proj",),
            "post_attention_layernorm": ("gate_up_proj",),
            "gate_up_proj": ("down_proj",),
        },
    ),
    "cohere": (GROUPED, {"input_layernorm": (*ATTENTION, "gate_proj", "up_proj")} | VALUES | GATED),
    "gemma2": (GROUPED | {"head_dim": 8}, GEMMA),
    "opt": (
        OPT,
        {
            "self_attn_layer_norm": ATTENTION,
            "v_proj": ("out_proj",),
            "final_layer_norm": ("fc1",),
            "fc1": ("fc2",),  # ReLU lets positive factors through
        },
    ),
    "gpt2": (GPT2, {"ln_1": ("c_attn",), "c_attn": ("c_proj",), "ln_2": ("c_fc",)}),
}


def build(name: str) -> PreTrainedModel:
    torch.manual_seed(0)
    config = AutoConfig.for_model(name.partition("-")[0], **EXPECTED[name][0])
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def short(name: str) -> str:
    return name.rpartition(".")[2]


def readers(links: Links) -> dict[str, set[str]]:
    return {short(pair.producer.name): {short(name) for name in pair.rows} for pair in links.pairs}


@pytest.fixture(params=EXPECTED)
def architecture(request: pytest.FixtureRequest) -> str:
    return request.param


def test_pairs_are_those_of_theory_and_leave_the_logits(architecture: str) -> None:
    model = build(architecture)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = find_pairs(model, TOKENS)
    expected = {producer: set(read) for producer, read in EXPECTED[architecture][1].items()}
    assert [readers(links) for links in found] == [expected, expected]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in model.modules())

    with torch.no_grad():
        wanted = model(TOKENS.tokens).logits
        scale_everything(model, found)
        scaled = model(TOKENS.tokens).logits
    torch.testing.assert_close(scaled, wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()))
    changed = sum(not torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert changed >= 2 * len(expected)


def scale_everything(model: PreTrainedModel, found: list[Links]) -> None:
    linears = decoder_linears(model)
    for pair in (pair for links in found for pair in links.pairs):
        scales = torch.ones(pair.producer.channels)
        scales[pair.used] = torch.rand(len(pair.used)) + 0.5
        divided = pair.producer.divided(scales)
        for name, parameter in pair.producer.parameters.items():
            parameter.copy_(divided[name])
        for reader in pair.rows:
            weight_matrix(linears[reader]).mul_(pair.columns(reader, scales))


def test_heads_that_share_values_read_one_channel_several_times() -> None:
    (pair,) = (pair for pair in find_pairs(build("llama"), TOKENS)[0].pairs if short(pair.producer.name) == "v_proj")
    (rows,) = pair.rows.values()
    head = torch.arange(8)
    assert pair.shared
    assert rows.tolist() == torch.cat([head, head, head + 8, head + 8]).tolist()


def test_of_a_fused_projection_only_the_values_are_read() -> None:
    (pair,) = (pair for pair in find_pairs(build("gpt_neox"), TOKENS)[0].pairs if "query" in pair.producer.name)
    values = torch.arange(96).reshape(4, 3, 8)[:, 2].flatten()  # [heads, (query, key, value), channels]
    assert next(iter(pair.rows.values())).tolist() == pair.used.tolist() == values.tolist()
    assert not pair.shared


def test_of_a_fused_projection_heads_may_share_the_values() -> None:
    """Channels that nobody reads, those of queries and keys, do not hide that the others are read several times."""
    (pair,) = (pair for pair in find_pairs(build("phi3"), TOKENS)[0].pairs if short(pair.producer.name) == "qkv_proj")
    assert pair.used.tolist() == list(range(48, 64))  # behind 32 of queries and 16 of keys
    assert pair.shared


def test_recurrent_layers_do_not_pad_what_is_tried_to_chunks_of_their_own() -> None:
    sizes = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 16, "attn_layer_indices": [1]}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("bamba", **GROUPED | sizes)).eval()
    mixer = model.model.layers[0].mamba
    tried: dict[torch.Size, set[int]] = {}
    mixer.register_forward_pre_hook(
        lambda module, _, read: tried.setdefault(read["hidden_states"].shape[:2], set()).add(module.chunk_size),
        with_kwargs=True,
    )
    assert readers(find_pairs(model, TOKENS)[0]) == {
        "input_layernorm": {"in_proj"},
        "norm": {"out_proj"},
        "pre_ff_layernorm": {"gate_proj", "up_proj"},
    } | {producer: set(read) for producer, read in GATED.items()}
    assert tried[TOKENS.tokens.reshape(-1, 1).shape] == tried[TOKENS.tokens.shape] == {16}
    assert mixer.chunk_size == model.config.mamba_chunk_size == 256


def test_queries_and_keys_only_steer_attention() -> None:
    steering = [{short(name) for name in links.steering} for links in find_pairs(build("qwen3"), TOKENS)]
    assert steering == [{"q_proj", "k_proj"}] * 2
    assert find_pairs(build("gpt2"), TOKENS)[0].steering == frozenset()


def test_a_norm_that_something_else_reads_makes_no_pair() -> None:
    model = build("llama")
    block = model.model.layers[0]

    class Leaking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = block.mlp

        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            return self.inner(hidden) + 0.01 * hidden

    block.mlp = Leaking()
    found = find_pairs(model, TOKENS)
    assert readers(found[0]) == {"input_layernorm": {*ATTENTION}, "v_proj": {"o_proj"}, "up_proj": {"down_proj"}}
    assert len(found[1].pairs) == 4


def test_a_dead_input_is_left_alone() -> None:
    model = build("llama")
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[5] = 0
    (pair,) = (pair for pair in find_pairs(model, TOKENS)[0].pairs if short(pair.producer.name) == "up_proj")
    (rows,) = pair.rows.values()
    assert rows[5] == -1
    assert 5 not in pair.used
    assert pair.columns(next(iter(pair.rows)), torch.full((48,), 2.0))[5] == 1


def test_substituted_values_are_put_back_whatever_happens() -> None:
    tensor = torch.zeros(3)
    with pytest.raises(RuntimeError, match="stop"), substituted([(tensor, torch.ones(3))]):
        assert tensor.tolist() == [1, 1, 1]
        raise RuntimeError("stop")
    assert tensor.tolist() == [0, 0, 0]
