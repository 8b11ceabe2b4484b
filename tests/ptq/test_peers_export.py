"""Exported models opened by transformers, with compressed-tensors and with GPTQModel: logits and weights are ours.

vLLM, which needs a GPU, is not among the readers here.
"""

import os
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from coolbits.models.activations import TokenRounding
from coolbits.models.files import load_model
from coolbits.models.quantized import QuantizedModel, apply_quantized, read_quantized, weight_matrix, write_quantized
from coolbits.ptq.checkpoint import build_quantized
from coolbits.ptq.export.model import FORMATS, write_export
from coolbits.ptq.export.source import Source
from coolbits.ptq.gptq import gptq
from coolbits.ptq.head import quantized_linears
from coolbits.ptq.rtn import round_to_nearest
from coolbits.ptq.tokens import Tokens, write_tokens
from coolbits.study.recipes.methods import AWQ, GPTQ, Grid
from coolbits.study.recipes.ptq import Quantized

SIZES = {
    "vocab_size": 96,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "max_position_embeddings": 64,
    "bos_token_id": None,
    "eos_token_id": None,
}
TOKENS = torch.arange(48)[None] * 5 % 96


def build(architecture: str) -> PreTrainedModel:
    torch.manual_seed(0)
    if architecture == "neox":
        return GPTNeoXForCausalLM(GPTNeoXConfig(**SIZES))
    return LlamaForCausalLM(LlamaConfig(**SIZES, num_key_value_heads=2, tie_word_embeddings=True))


def export(
    form: str,
    architecture: str,
    grid: Grid,
    folder: Path,
    order: str = "natural",
    activations: TokenRounding | None = None,
    head: bool = False,
) -> Path:
    """Quantize a model with outliers, by GPTQ if in activation order, and export it."""
    model = save_outlying(architecture, folder)
    layers = {}
    for name, module in quantized_linears(model, head).items():
        weight = weight_matrix(module).float()
        inputs = weight.shape[1]
        vectors = torch.randn(4 * inputs, inputs, dtype=torch.float64) * torch.rand(inputs, dtype=torch.float64)
        recipe = GPTQ(grid=grid, order="activation", static_groups=order == "static")
        by_gptq = gptq(weight, 2 * vectors.T @ vectors / len(vectors), recipe).layer
        layers[name] = round_to_nearest(weight, grid) if order == "natural" else by_gptq
    (folder / "codes").mkdir()
    write_quantized(QuantizedModel(layers, activations=activations), folder / "codes")
    write_export(Source(folder / "codes", folder / "model", {}), FORMATS[form], folder / "out")
    return folder / "out"


def save_outlying(architecture: str, folder: Path) -> PreTrainedModel:
    model = build(architecture)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter) ** 3)
    model.save_pretrained(folder / "model")
    return model


def export_awq(form: str, architecture: str, folder: Path) -> Path:
    """Quantize a model with outliers by AWQ, which also changes norms and biases, and export it."""
    save_outlying(architecture, folder)
    for name in ("codes", "calibration"):
        (folder / name).mkdir()
    tokens = torch.randint(0, 96, (16, 32), generator=torch.Generator().manual_seed(0))
    write_tokens(Tokens.of_equal_length(tokens), folder / "calibration")
    recipe = Quantized(method=AWQ(grid=Grid(bits=4, group_size=32, symmetric=False)))
    build_quantized(recipe, folder / "model", folder / "calibration", folder / "codes")
    assert read_quantized(folder / "codes").replaced
    write_export(Source(folder / "codes", folder / "model", {}), FORMATS[form], folder / "out")
    return folder / "out"


def our_logits(folder: Path) -> torch.Tensor:
    model = load_model(folder / "model")
    apply_quantized(model, folder / "codes")
    with torch.inference_mode():
        return model(input_ids=TOKENS).logits


def their_logits(model: nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=TOKENS).logits.float()


COMPRESSED = [
    *product(("neox", "llama"), (2, 3, 4, 8), (64, None), (True, False), ("natural",)),
    ("neox", 3, 64, True, "static"),
    ("llama", 4, 64, False, "static"),
    ("neox", 3, None, False, "activation"),
]


@pytest.mark.parametrize(("architecture", "bits", "group_size", "symmetric", "order"), COMPRESSED)
def test_transformers_opens_compressed_tensors(architecture, bits, group_size, symmetric, order, tmp_path):
    pytest.importorskip("llmcompressor", reason="llm-compressor is in the peers' environment")
    grid = Grid(bits=bits, group_size=group_size, symmetric=symmetric)
    out = export("compressed-tensors", architecture, grid, tmp_path, order)
    theirs = AutoModelForCausalLM.from_pretrained(out)
    torch.testing.assert_close(their_logits(theirs), our_logits(tmp_path), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("architecture", ["neox", "llama"])
def test_transformers_opens_what_awq_scaled_as_compressed_tensors(architecture, tmp_path):
    pytest.importorskip("llmcompressor", reason="llm-compressor is in the peers' environment")
    theirs = AutoModelForCausalLM.from_pretrained(export_awq("compressed-tensors", architecture, tmp_path))
    torch.testing.assert_close(their_logits(theirs), our_logits(tmp_path), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("bits", "group_size"), [(8, None), (4, 64)], ids=["w8a8", "w4a8"])
@pytest.mark.parametrize("symmetric", [True, False], ids=["symmetric", "asymmetric"])
def test_transformers_rounds_activations_as_we_do(bits, group_size, symmetric, tmp_path):
    pytest.importorskip("llmcompressor", reason="llm-compressor is in the peers' environment")
    rounding = TokenRounding(bits=8, symmetric=symmetric)
    grid = Grid(bits=bits, group_size=group_size, symmetric=symmetric)
    out = export("compressed-tensors", "llama", grid, tmp_path, activations=rounding)
    theirs = AutoModelForCausalLM.from_pretrained(out)
    torch.testing.assert_close(their_logits(theirs), our_logits(tmp_path), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("architecture", ["neox", "llama"])
@pytest.mark.parametrize(("bits", "symmetric"), [(3, True), (4, False)])
def test_transformers_opens_a_quantized_head_in_compressed_tensors(architecture, bits, symmetric, tmp_path):
    pytest.importorskip("llmcompressor", reason="llm-compressor is in the peers' environment")
    grid = Grid(bits=bits, group_size=64, symmetric=symmetric)
    out = export("compressed-tensors", architecture, grid, tmp_path, head=True)
    theirs = AutoModelForCausalLM.from_pretrained(out)
    assert "weight_scale" in dict(theirs.get_output_embeddings().named_parameters())
    torch.testing.assert_close(their_logits(theirs), our_logits(tmp_path), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("head", [False, True], ids=["blocks", "head"])
def test_the_config_is_the_one_that_llm_compressor_writes(head, tmp_path, monkeypatch):
    llmcompressor = pytest.importorskip("llmcompressor", reason="llm-compressor is in the peers' environment")
    from llmcompressor.modifiers.quantization import QuantizationModifier

    monkeypatch.chdir(tmp_path)  # it writes logs where it runs
    grid = Grid(bits=3, group_size=64, symmetric=False)
    out = export("compressed-tensors", "llama" if head else "neox", grid, tmp_path, head=head)
    weights = {"num_bits": 3, "type": "int", "symmetric": False, "strategy": "group", "group_size": 64}
    recipe = QuantizationModifier(
        config_groups={"group_0": {"targets": ["Linear"], "weights": weights}}, ignore=[] if head else ["lm_head"]
    )
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    llmcompressor.oneshot(model=model, recipe=recipe)
    model.save_pretrained(tmp_path / "theirs", save_compressed=True)
    whole = [AutoConfig.from_pretrained(folder) for folder in (tmp_path / "theirs", out)]
    theirs, ours = (config.quantization_config for config in whole)
    for config in (theirs, ours):
        config["config_groups"]["group_0"]["weights"].pop("observer")
        ignored = config.pop(
            "ignore"
        )  # theirs may have the head's name in the file, `embed_out`: no reader looks for it
        assert len(ignored) == (0 if head else 1)
    assert ours == theirs
    assert [config.tie_word_embeddings for config in whole] == [False, False]


@pytest.fixture
def eager() -> Iterator[None]:
    """Keep GPTQModel from compiling what runs once."""
    os.environ["GPTQMODEL_CPU_WORKERS"] = "2"
    compiled, torch.compile = torch.compile, lambda function, **_: function
    yield
    torch.compile = compiled


GPTQ_CASES = [
    ("neox", 3, 64, True, "activation"),
    ("llama", 4, 64, False, "activation"),
    ("llama", 2, 64, True, "natural"),
    ("neox", 8, None, False, "natural"),
]


@pytest.mark.parametrize(("architecture", "bits", "group_size", "symmetric", "order"), GPTQ_CASES)
def test_transformers_opens_the_gptq_format(architecture, bits, group_size, symmetric, order, tmp_path, eager):
    pytest.importorskip("gptqmodel", reason="GPTQModel is in an environment of its own")
    grid = Grid(bits=bits, group_size=group_size, symmetric=symmetric)
    check_gptq_format(export("gptq", architecture, grid, tmp_path, order), tmp_path, bits)


def test_transformers_opens_what_awq_scaled_in_the_gptq_format(tmp_path, eager):
    pytest.importorskip("gptqmodel", reason="GPTQModel is in an environment of its own")
    check_gptq_format(export_awq("gptq", "neox", tmp_path), tmp_path, 4)


def check_gptq_format(out: Path, folder: Path, bits: int) -> None:
    from transformers import GPTQConfig

    plain = GPTQConfig(bits=bits, backend="gptq_torch")
    theirs = AutoModelForCausalLM.from_pretrained(out, quantization_config=plain, dtype=torch.float32)
    for name, layer in read_quantized(folder / "codes").layers.items():
        module = theirs.get_submodule(name)
        weight = type(module).dequantize_weight(module).T.float()
        torch.testing.assert_close(
            weight, layer.weight(), rtol=2**-10, atol=1e-6, msg=name
        )  # it keeps scales in float16
    ours = our_logits(folder)
    assert (their_logits(theirs) - ours).abs().max() < 5e-3 * ours.abs().max()


@pytest.mark.parametrize(("bits", "symmetric", "order"), [(4, True, "natural"), (4, False, "activation")])
def test_gptqmodel_opens_a_quantized_head_in_the_gptq_format(bits, symmetric, order, tmp_path, eager):
    """By its own loader: that of transformers takes layers of blocks alone, and draws a head at random, with a warning.

    GPT-NeoX is not tried: GPTQModel 7.6 looks for its head, quantized or not, under a name that transformers 5 changed.
    """
    gptqmodel = pytest.importorskip("gptqmodel", reason="GPTQModel is in an environment of its own")
    grid = Grid(bits=bits, group_size=64, symmetric=symmetric)
    out = export("gptq", "llama", grid, tmp_path, order, head=True)
    words = Tokenizer(WordLevel({f"word{number}": number for number in range(96)}, unk_token="word0"))
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="word1", pad_token="word2").save_pretrained(out)
    backend = gptqmodel.BACKEND.GPTQ_TORCH
    theirs = gptqmodel.GPTQModel.load(str(out), backend=backend, device="cpu", dtype=torch.float16).model.float()
    head = theirs.get_output_embeddings()
    expected = read_quantized(tmp_path / "codes").layers["lm_head"].weight()
    weight = type(head).dequantize_weight(head).T.float()
    torch.testing.assert_close(weight, expected, rtol=2**-10, atol=1e-6)
    ours = our_logits(tmp_path)
    assert (their_logits(theirs) - ours).abs().max() < 5e-3 * ours.abs().max()
