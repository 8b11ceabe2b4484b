from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import (
    ApertusConfig,
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    Olmo2Config,
    OlmoConfig,
    OpenAIGPTConfig,
    OPTConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen3Config,
    RwkvConfig,
    SmolLM3Config,
)

from coolbits.artifacts.errors import CoolbitsError
from coolbits.models.blocks import decoder_blocks, decoder_linears
from coolbits.models.quantized import QuantizedModel, apply_model
from coolbits.ptq import tracing
from coolbits.ptq.calibration import gather_hessian, gather_hessians
from coolbits.ptq.checkpoint import Request, quantize_model
from coolbits.ptq.hooks import full_precision
from coolbits.ptq.observation import observe
from coolbits.ptq.tokens import Tokens
from coolbits.ptq.tracing import Trace, trace_model
from coolbits.study.recipes.methods import GPTQ, Grid
from coolbits.study.recipes.ptq import Quantized

TOKENS = torch.arange(5 * 16).reshape(5, 16) % 96
SIZES = {
    "vocab_size": 96,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 48,
    "pad_token_id": None,
}
ATTENTION = [["q_proj", "k_proj", "v_proj"], ["o_proj"]]
GATED = [*ATTENTION, ["gate_proj", "up_proj"], ["down_proj"]]
ROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}
# Each architecture's groups, in the order of use.
ARCHITECTURES = {
    "llama": (LlamaConfig(**SIZES), GATED),
    "olmo": (OlmoConfig(**SIZES), GATED),
    "olmo2": (Olmo2Config(**SIZES), GATED),
    "qwen3": (Qwen3Config(**SIZES, head_dim=16), GATED),
    "smollm3": (SmolLM3Config(**SIZES), GATED),
    "apertus": (ApertusConfig(**SIZES, **ROPE), [*ATTENTION, ["up_proj"], ["down_proj"]]),
    "opt": (
        OPTConfig(word_embed_proj_dim=32, ffn_dim=48, **SIZES),
        [["k_proj", "v_proj", "q_proj"], ["out_proj"], ["fc1"], ["fc2"]],
    ),
    "gpt2": (
        GPT2Config(vocab_size=96, n_embd=32, n_layer=2, n_head=2),
        [["c_attn"], ["c_proj"], ["c_fc"], ["c_proj"]],
    ),
    "openai-gpt": (  # its blocks give lists
        OpenAIGPTConfig(vocab_size=96, n_embd=32, n_layer=2, n_head=2),
        [["c_attn"], ["c_proj"], ["c_fc"], ["c_proj"]],
    ),
}


def trace_of(model: nn.Module) -> Trace:
    return trace_model(model, decoder_blocks(model), decoder_linears(model), Tokens.of_equal_length(TOKENS))


def short_names(trace: Trace) -> list[list[list[str]]]:
    return [[[name.rpartition(".")[2] for name in group] for group in block.groups] for block in trace.blocks]


def test_gpt_neox_runs_attention_then_mlp_though_its_residual_is_parallel(model: PreTrainedModel) -> None:
    expected = [["query_key_value"], ["dense"], ["dense_h_to_4h"], ["dense_4h_to_h"]]
    assert short_names(trace_of(model)) == [expected, expected]


@pytest.mark.parametrize(("config", "expected"), ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_layers_that_read_the_same_tensor_are_one_group(config: PreTrainedConfig, expected: list[list[str]]) -> None:
    model = AutoModelForCausalLM.from_config(config).eval()
    assert short_names(trace_of(model)) == [expected, expected]


@pytest.mark.parametrize(("config", "expected"), ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_every_group_of_every_architecture_is_quantized_by_gptq(
    config: PreTrainedConfig, expected: list[list[str]], calibration: Path
) -> None:
    """At eight bits the model answers as before, which it would not with weights in another layer's place."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    recipe = Quantized(method=GPTQ(grid=Grid(bits=8, group_size=16)))
    (made,) = quantize_model([Request(recipe, calibration)], model)
    assert {result.entry.method for result in made.results.values()} == {"gptq"}
    assert len(made.results) == 2 * sum(map(len, expected))
    with torch.inference_mode():
        before = model(input_ids=TOKENS).logits
        apply_model(model, QuantizedModel({name: result.layer for name, result in made.results.items()}))
        error = model(input_ids=TOKENS).logits - before
    assert 0 < float(error.norm()) < 0.02 * float(before.norm())


@pytest.mark.parametrize("sequences", [1, 5])
def test_the_first_block_reads_the_embedded_tokens(model: PreTrainedModel, sequences: int) -> None:
    tokens = TOKENS[:sequences]
    trace = trace_model(model, decoder_blocks(model), decoder_linears(model), Tokens.of_equal_length(tokens))
    torch.testing.assert_close(
        torch.cat([chunk.hidden for chunk in trace.inputs]), model.get_input_embeddings()(tokens)
    )


def test_chunks_are_of_equal_length(model: PreTrainedModel) -> None:
    tokens = torch.zeros(640, 64, dtype=torch.int64)
    trace = trace_model(model, decoder_blocks(model), decoder_linears(model), Tokens.of_equal_length(tokens))
    assert [len(chunk.hidden) for chunk in trace.inputs] == [160] * 4


def plain_hessian(model: PreTrainedModel, layer: nn.Module) -> torch.Tensor:
    """Return 2 * mean(x x^T) of what a layer reads in a plain forward pass of the whole model."""
    caught: list[torch.Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _module, inputs: caught.append(inputs[0].flatten(0, -2).double()))
    model(input_ids=TOKENS, use_cache=False)
    handle.remove()
    return 2 * caught[0].T @ caught[0] / len(caught[0])


@torch.inference_mode()
@pytest.mark.parametrize("shared", [0, 2], ids=["own keys", "keys of blocks before"])
def test_each_chunk_is_read_with_arguments_of_its_own(
    shared: int, gemma4: Callable[[int, int], PreTrainedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gemma 4 hands each block an embedding of the tokens, and some blocks the keys and values of others."""
    monkeypatch.setattr(tracing, "CHUNK_TOKENS", 16)
    model = gemma4(4, shared)
    linears, trace = decoder_linears(model), trace_of(model)
    inputs = trace.inputs
    assert [chunk.number for chunk in inputs] == [0, 1, 2, 3, 4]
    for block in trace.blocks:
        ran = {group[0]: linears[group[0]] for group in block.groups}
        seen = observe(block, inputs, linears, set())
        alone = {name: gather_hessian(block, inputs, layer) for name, layer in ran.items()}
        hessians, inputs = gather_hessians(block, inputs, ran)
        for name, layer in ran.items():
            expected = plain_hessian(model, layer)
            for found in (hessians[name], alone[name], seen.hessians[name]):
                torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_what_is_the_same_for_all_chunks_is_kept_once(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "CHUNK_TOKENS", 16)
    for block in trace_of(model).blocks:
        cosine, sine = block.keywords["position_embeddings"]
        assert len(block.later) == 4
        for _, keywords in block.later:
            assert keywords["position_embeddings"][0] is cosine and keywords["position_embeddings"][1] is sine


def test_chunks_of_shorter_sequences_have_views_of_what_the_first_has(
    model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracing, "CHUNK_TOKENS", 16)
    tokens = Tokens(TOKENS, torch.tensor([5, 16, 9, 16, 9]))
    trace = trace_model(model, decoder_blocks(model), decoder_linears(model), tokens)
    assert [chunk.hidden.shape[1] for chunk in trace.inputs] == [16, 16, 9, 9, 5]
    for block in trace.blocks:
        cosine, _ = block.keywords["position_embeddings"]
        for length, (_, keywords) in zip([16, 9, 9, 5], block.later, strict=True):
            own, _ = keywords["position_embeddings"]
            assert own.shape[-2] == length
            assert own.untyped_storage().data_ptr() == cosine.untyped_storage().data_ptr()


def test_a_layer_that_does_not_run_is_a_group_of_its_own_at_the_end(model: PreTrainedModel) -> None:
    model.gpt_neox.layers[1].attention.idle = nn.Linear(4, 4)
    assert short_names(trace_of(model))[1][-1] == ["idle"]


def test_blocks_that_do_not_read_each_others_outputs_are_refused() -> None:
    """RWKV halves what some blocks give: calibrated on the whole of it, Hessians were off by a third."""
    config = RwkvConfig(vocab_size=96, context_length=16, hidden_size=32, num_hidden_layers=4, rescale_every=2)
    model = AutoModelForCausalLM.from_config(config).eval()
    with pytest.raises(CoolbitsError, match=r"^rwkv\.blocks\.2: reads other hidden states than rwkv\.blocks\.1 gives"):
        trace_of(model)
    config.rescale_every = 0
    assert len(trace_of(AutoModelForCausalLM.from_config(config).eval()).blocks) == 4


def test_hidden_states_that_are_no_numbers_are_the_same_to_the_next_block(model: PreTrainedModel) -> None:
    model.gpt_neox.layers[0].mlp.dense_4h_to_h.bias.data[3] = torch.nan
    assert len(trace_of(model).blocks) == 2


def test_tracing_leaves_no_hooks(model: PreTrainedModel) -> None:
    trace_of(model)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_full_precision_ends_autocast_and_puts_settings_back() -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        with torch.autocast("cpu", torch.bfloat16):
            with full_precision(torch.device("cpu")):
                assert torch.get_float32_matmul_precision() == "highest"
                assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)
