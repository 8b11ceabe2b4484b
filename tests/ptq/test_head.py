"""The output head as one more layer: its Hessian, its codes, and what else stays as it was."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import ValidationError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    GraniteConfig,
    LlamaConfig,
    OPTConfig,
    PreTrainedModel,
    Qwen3Config,
)

from coolbits.artifacts.errors import CoolbitsError
from coolbits.models.blocks import decoder_blocks, decoder_linears
from coolbits.models.files import load_model
from coolbits.models.head import is_tied
from coolbits.models.quantized import QuantizedModel, apply_model, apply_quantized, read_quantized
from coolbits.ptq.calibration import gather_hessian, gather_hessians
from coolbits.ptq.checkpoint import Quantization, Request, build_quantized, quantize_model
from coolbits.ptq.head import quantized_linears, with_head
from coolbits.ptq.tokens import Tokens, write_tokens
from coolbits.ptq.tracing import trace_model
from coolbits.ptq.weights import quantize_weight
from coolbits.study.recipes.methods import AWQ, GPTQ, HQQ, RTN, Codebook, Grid, Int8, Method
from coolbits.study.recipes.ptq import Activations, Quantized, Rotation

HEAD = "lm_head"
GRID = Grid(bits=3, group_size=16)
SIZES = {
    "vocab_size": 96,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
}
GROUPED = SIZES | {"num_key_value_heads": 1}
CONFIGS = {
    "llama": LlamaConfig(**GROUPED),
    "tied llama": LlamaConfig(**GROUPED, tie_word_embeddings=True),
    "neox": GPTNeoXConfig(**SIZES),
    "gpt2": GPT2Config(vocab_size=96, n_embd=32, n_layer=2, n_head=2),
    "qwen3": Qwen3Config(**GROUPED, head_dim=16),
    "opt": OPTConfig(**SIZES, word_embed_proj_dim=16, ffn_dim=48),
    "gemma2": Gemma2Config(**GROUPED, head_dim=16),
    "granite": GraniteConfig(**GROUPED, embedding_multiplier=2.0, logits_scaling=3.0),
}
UNCALIBRATED = {
    "rtn": RTN(grid=GRID),
    "hqq": HQQ(grid=Grid(bits=3, group_size=16, symmetric=False)),
    "nf4": Codebook(kind="nf4"),
    "fp4": Codebook(kind="fp4"),
    "int8": Int8(),
}
SEQUENTIAL = ["layer", "block", "none"]


def calibration_tokens(padded: bool = False) -> Tokens:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 96, (16, 32), generator=generator)
    lengths = torch.randint(9, 33, (16,), generator=generator) if padded else torch.full((16,), 32)
    return Tokens(tokens, lengths)


def built(name: str) -> PreTrainedModel:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[name]).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def gptq(**knobs: Any) -> GPTQ:
    return GPTQ(grid=GRID, **knobs)


def quantized(model: PreTrainedModel, method: Method, folder: Path, **keys: Any) -> Quantization:
    write_tokens(calibration_tokens(), folder)
    (made,) = quantize_model([Request(Quantized(method=method, **{"head": True} | keys), folder)], model)
    return made


def layers_of(made: Quantization) -> Mapping[str, Any]:
    return {name: result.layer for name, result in made.results.items()}


def read_by_head(model: nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """Return what the head of a model reads, by the plain forward pass of all of it: [sequences, length, width]."""
    read: list[torch.Tensor] = []
    handle = model.get_output_embeddings().register_forward_pre_hook(lambda _head, inputs: read.append(inputs[0]))
    with torch.inference_mode():
        model(input_ids=tokens)
    handle.remove()
    return read[0]


def hessian_of(vectors: torch.Tensor) -> torch.Tensor:
    rows = vectors.reshape(-1, vectors.shape[-1]).double()
    return 2 * rows.T @ rows / len(rows)


@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
@pytest.mark.parametrize("name", CONFIGS)
def test_the_hessian_is_that_of_what_the_head_reads_in_every_architecture(name: str, padded: bool) -> None:
    model, (calibration,) = built(name), calibration_tokens(padded).longest_first(16)
    trace = trace_model(model, decoder_blocks(model), quantized_linears(model, True), calibration)
    *blocks, last = with_head(trace, model).blocks
    inputs = trace.inputs
    for block in blocks:
        _, inputs = gather_hessians(block, inputs, {})
    read = read_by_head(model, calibration.tokens)
    expected = hessian_of(read if calibration.whole else read[calibration.real])
    torch.testing.assert_close(gather_hessian(last, inputs, model.lm_head), expected, rtol=1e-5, atol=1e-7)
    found, outputs = gather_hessians(last, inputs, {HEAD: model.lm_head})
    torch.testing.assert_close(found[HEAD], expected, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(outputs[0].hidden, read)
    assert last.groups == ((HEAD,),)


@pytest.mark.parametrize(
    ("name", "norm"),
    [
        ("tied llama", ("model.norm.weight",)),
        ("neox", ("gpt_neox.final_layer_norm.weight", "gpt_neox.final_layer_norm.bias")),
    ],
)
def test_blocks_and_embedding_stay_where_they_are_while_the_head_is_at_work(name: str, norm: tuple[str, ...]) -> None:
    """What is placed is in float32: of a model in bfloat16 that is the head and the norm before it."""
    model, calibration = built(name), calibration_tokens()
    last = with_head(trace_model(model, decoder_blocks(model), quantized_linears(model, True), calibration), model)
    model.bfloat16()
    with last.blocks[-1].placed():
        moved = {key for key, each in model.named_parameters() if each.dtype == torch.float32}
    assert moved == {f"{HEAD}.weight", *norm}


def test_the_head_is_quantized_only_where_it_is_asked_for() -> None:
    model = built("llama")
    blocks = quantized_linears(model, False)
    assert blocks == decoder_linears(model)
    assert quantized_linears(model, True) == blocks | {HEAD: model.lm_head}


def float64_gptq(weight: np.ndarray, hessian: np.ndarray, bits: int, size: int, damping: float) -> np.ndarray:
    """Return the weight that GPTQ makes in natural order, by explicit updates of the inverse Hessian, in float64.

    Scales are stored in float32, and decide in float32 which way the largest of a group falls: it is half way.
    """
    w, top, half = weight.astype(np.float64), np.float32(2**bits - 1), 2 ** (bits - 1)
    inverse = np.linalg.inv(hessian + damping * hessian.diagonal().mean() * np.eye(len(hessian)))
    result = np.empty_like(w)
    for column in range(w.shape[1]):
        if column % size == 0:
            scale = 2 * abs(w[:, column : column + size].astype(np.float32)).max(1) / top
        code = np.clip(np.round(w[:, column].astype(np.float32) / scale) + half, 0, top)
        result[:, column] = scale.astype(np.float64) * (code - half)
        w -= np.outer((w[:, column] - result[:, column]) / inverse[column, column], inverse[column])
        inverse = inverse - np.outer(inverse[:, column], inverse[column]) / inverse[column, column]
    return result


@pytest.mark.parametrize("sequential", SEQUENTIAL)
@pytest.mark.parametrize("name", ["llama", "tied llama", "neox", "gpt2"])
def test_gptq_gives_the_head_the_weight_of_a_float64_oracle(name: str, sequential: str, tmp_path: Path) -> None:
    """The oracle has the whole model in float64, its blocks quantized unless Hessians are of the unquantized model."""
    method = gptq(order="natural", sequential=sequential)
    made = quantized(built(name), method, tmp_path)
    oracle = built(name).double()
    weight = oracle.lm_head.weight.detach().numpy().copy()
    if sequential != "none":
        apply_model(oracle, QuantizedModel({key: layer for key, layer in layers_of(made).items() if key != HEAD}))
    hessian = hessian_of(read_by_head(oracle, calibration_tokens().tokens)).numpy()
    expected = float64_gptq(weight, hessian, 3, 16, method.damping)
    layer = made.results[HEAD].layer
    found = layer.weight().numpy()
    assert (abs(found - expected) < 1e-4 * abs(expected).max()).mean() > 0.999  # a tie may fall either way
    error = expected - weight
    assert made.results[HEAD].entry.proxy_loss == pytest.approx(np.einsum("oi,ij,oj", error, hessian, error), rel=1e-2)
    assert made.results[HEAD].entry.proxy_loss < made.results[HEAD].entry.rtn_proxy_loss


@pytest.mark.parametrize("method", UNCALIBRATED.values(), ids=UNCALIBRATED)
@pytest.mark.parametrize("name", ["llama", "tied llama"])
def test_methods_without_calibration_quantize_its_weight(name: str, method: Method, tmp_path: Path) -> None:
    model = built(name)
    made = quantized(model, method, tmp_path)
    assert list(made.results) == [*decoder_linears(model), HEAD]
    expected = quantize_weight(model.lm_head.weight.detach(), method)
    assert torch.equal(made.results[HEAD].layer.weight(), expected.weight())
    assert (made.results[HEAD].entry.requested, made.results[HEAD].entry.method) == (method.kind, method.kind)


@pytest.mark.parametrize("sequential", SEQUENTIAL)
def test_blocks_are_quantized_as_without_it_also_beside_such_a_request(sequential: str, tmp_path: Path) -> None:
    write_tokens(calibration_tokens(), tmp_path)
    method = gptq(sequential=sequential)
    requests = [Request(Quantized(method=method, head=head), tmp_path) for head in (True, False)]
    with_it, without = quantize_model(requests, built("tied llama"))
    assert with_it.results.keys() - without.results.keys() == {HEAD}
    for name, result in without.results.items():
        assert result.entry == with_it.results[name].entry
        assert torch.equal(result.layer.weight(), with_it.results[name].layer.weight())


@pytest.mark.parametrize("sequential", SEQUENTIAL)
@pytest.mark.parametrize("name", ["llama", "tied llama", "gpt2"])
def test_the_model_stays_as_it_was_and_half_precision_gives_the_same(
    name: str, sequential: str, tmp_path: Path
) -> None:
    narrow = built(name).to(torch.bfloat16)
    before = {key: (id(tensor), tensor.clone()) for key, tensor in narrow.named_parameters(remove_duplicate=False)}
    made = quantized(narrow, gptq(sequential=sequential), tmp_path)
    after = dict(narrow.named_parameters(remove_duplicate=False))
    assert all(id(after[key]) == own and torch.equal(after[key], value) for key, (own, value) in before.items())
    assert not any(module._forward_pre_hooks or "forward" in vars(module) for module in narrow.modules())
    wide = quantized(narrow.float(), gptq(sequential=sequential), tmp_path)
    assert made.results[HEAD].entry == wide.results[HEAD].entry


@pytest.mark.parametrize("sequential", SEQUENTIAL)
def test_no_logits_are_made(sequential: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a chunk of tokens and a large vocabulary they would be the largest of all tensors."""
    model = built("llama")
    widest = []
    multiply = nn.functional.linear

    def watching(inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        widest.append(len(weight))
        return multiply(inputs, weight, bias)

    monkeypatch.setattr(nn.functional, "linear", watching)
    quantized(model, gptq(sequential=sequential), tmp_path)
    assert max(widest) == 48 < model.config.vocab_size


@pytest.mark.parametrize(
    "keys", [{"rotation": Rotation()}, {"activations": Activations()}], ids=["rotated", "activations"]
)
@pytest.mark.parametrize("method", [RTN(grid=GRID), gptq()], ids=["rtn", "gptq"])
def test_its_inputs_are_rotated_and_rounded_like_those_of_other_layers(
    method: Method, keys: dict[str, Any], tmp_path: Path
) -> None:
    model = built("llama")
    eight = method.model_copy(update={"grid": Grid(bits=8, group_size=16)})
    model.save_pretrained(tmp_path / "model")
    write_tokens(calibration_tokens(), tmp_path)
    build_quantized(Quantized(method=eight, head=True, **keys), tmp_path / "model", tmp_path, tmp_path)
    applied = load_model(tmp_path / "model")
    apply_quantized(applied, tmp_path)
    assert bool(applied.lm_head._forward_pre_hooks) == ("activations" in keys)
    tokens = calibration_tokens().tokens
    with torch.inference_mode():
        expected, found = model(input_ids=tokens).logits, applied(input_ids=tokens).logits
    assert 0 < float((found - expected).norm()) < 0.03 * float(expected.norm())


@pytest.mark.parametrize("name", ["llama", "tied llama", "gpt2"])
def test_the_artifact_and_the_saved_model_have_a_head_of_their_own(name: str, tmp_path: Path) -> None:
    model = built(name)
    model.save_pretrained(tmp_path / "parent")
    (tmp_path / "parent" / "tokenizer.json").write_text("{}")
    write_tokens(calibration_tokens(), tmp_path)
    recipe = Quantized(method=gptq(), head=True, save_model=True)
    summary = build_quantized(recipe, tmp_path / "parent", tmp_path, tmp_path)
    layers = read_quantized(tmp_path).layers
    assert summary.get("untied", False) is is_tied(model)
    assert summary["modules"] == len(layers) == len(decoder_linears(model)) + 1
    weights = sum(outputs * inputs for outputs, inputs in (layer.shape for layer in layers.values()))
    assert summary["mean_bits"] == pytest.approx(8 * summary["bytes"] / weights)
    ledger = pd.read_parquet(tmp_path / "ledger.parquet").set_index("module")
    assert ledger.loc[HEAD, "method"] == "gptq"
    assert ledger.loc[HEAD, "proxy_loss"] < ledger.loc[HEAD, "rtn_proxy_loss"]
    assert AutoConfig.from_pretrained(tmp_path / "model").tie_word_embeddings is False
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert torch.equal(saved.lm_head.weight, layers[HEAD].weight())
    assert torch.equal(saved.get_input_embeddings().weight, model.get_input_embeddings().weight)


def test_without_the_key_nothing_is_said_of_the_head(tmp_path: Path) -> None:
    built("tied llama").save_pretrained(tmp_path / "parent")
    write_tokens(calibration_tokens(), tmp_path)
    summary = build_quantized(Quantized(method=gptq()), tmp_path / "parent", tmp_path, tmp_path)
    assert "untied" not in summary
    assert HEAD not in read_quantized(tmp_path).layers


def test_awq_has_nothing_to_scale_the_heads_inputs_by() -> None:
    with pytest.raises(ValidationError, match="head: awq takes its scales from what stands before a layer"):
        Quantized(method=AWQ(grid=GRID), head=True)


def test_a_head_that_is_no_linear_layer_is_refused_before_any_work() -> None:
    model = built("llama")
    model.lm_head = nn.Sequential(model.lm_head)
    with pytest.raises(CoolbitsError, match=r"^a model: head: the output head is Sequential, no linear layer"):
        quantize_model([Request(Quantized(method=RTN(grid=GRID), head=True))], model, "a model")


def test_groups_must_divide_its_inputs_too() -> None:
    model = built("llama")
    model.lm_head = nn.Linear(24, 96, bias=False)
    with pytest.raises(CoolbitsError, match="16 does not divide the 24 inputs of lm_head"):
        quantize_model([Request(Quantized(method=RTN(grid=GRID), head=True))], model)
