"""Small models with outliers in their weights, quantized in the ways that decide how a format stores them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    NemotronHConfig,
    NemotronHForCausalLM,
    PreTrainedModel,
)

from coolbits.models.activations import TokenRounding
from coolbits.models.files import load_model
from coolbits.models.layers import IntegerLayer
from coolbits.models.quantized import QuantizedModel, weight_matrix, write_quantized
from coolbits.ptq.gptq import gptq
from coolbits.ptq.head import quantized_linears
from coolbits.ptq.rtn import round_to_nearest
from coolbits.study.recipes.methods import GPTQ, Grid

_SIZES = {
    "vocab_size": 96,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "max_position_embeddings": 64,
    "bos_token_id": None,
    "eos_token_id": None,
}


_MAMBA = {"mamba_num_heads": 32, "mamba_head_dim": 4, "ssm_state_size": 16, "n_groups": 1, "head_dim": 16}
_BUILD: dict[str, Callable[[], PreTrainedModel]] = {
    "neox": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**_SIZES)),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**_SIZES, num_key_value_heads=2, tie_word_embeddings=True)),
    "nemotron": lambda: NemotronHForCausalLM(NemotronHConfig(**_SIZES, **_MAMBA, hybrid_override_pattern="M*")),
}


@pytest.fixture
def models(tmp_path: Path) -> Callable[[str], Path]:
    """Save a model of the given architecture: `neox`, `llama` (its embeddings tied to the head) or `nemotron`."""

    def save(architecture: str) -> Path:
        torch.manual_seed(0)
        built = _BUILD[architecture]()
        with torch.no_grad():
            for parameter in built.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        directory = tmp_path / architecture
        built.save_pretrained(directory)
        (directory / "tokenizer.json").write_text("{}")
        return directory

    return save


def quantized_layer(weight: torch.Tensor, grid: Grid, activation_order: bool) -> IntegerLayer:
    """Round to nearest, or run GPTQ in activation order under a Hessian of unequal variances."""
    if not activation_order:
        return round_to_nearest(weight, grid)
    inputs = weight.shape[1]
    vectors = torch.randn(4 * inputs, inputs, generator=torch.Generator().manual_seed(inputs), dtype=torch.float64)
    vectors *= torch.linspace(0.1, 3, inputs)[torch.randperm(inputs, generator=torch.Generator().manual_seed(1))]
    layer = gptq(weight, 2 * vectors.T @ vectors / len(vectors), GPTQ(grid=grid, order="activation")).layer
    assert isinstance(layer, IntegerLayer)
    return layer


@pytest.fixture
def quantized(tmp_path: Path) -> Callable[..., Path]:
    """Quantize the model in a directory, and write codes and layout to another."""

    def quantize(
        model: Path,
        grid: Grid,
        activation_order: bool = False,
        activations: TokenRounding | None = None,
        head: bool = False,
    ) -> Path:
        layers = {
            name: quantized_layer(weight_matrix(module).float(), grid, activation_order)
            for name, module in quantized_linears(load_model(model), head).items()
        }
        out = tmp_path / "codes"
        out.mkdir()
        write_quantized(QuantizedModel(layers, activations=activations), out)
        return out

    return quantize
