"""A model that computes from packed codes gives the logits of its dequantized twin."""

import copy
from collections.abc import Callable

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPTNeoXConfig, LlamaConfig, PreTrainedModel

pytest.importorskip("triton")

from coolbits.artifacts.errors import CoolbitsError
from coolbits.models import kernels
from coolbits.models.activations import TokenRounding
from coolbits.models.blocks import decoder_linears
from coolbits.models.layers import Layer
from coolbits.models.quantized import QuantizedModel, apply_model, weight_matrix
from coolbits.models.quantized_linear import QuantizedLinear, use_kernels
from coolbits.ptq.rtn import round_to_nearest
from coolbits.study.recipes.methods import Grid

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
TOKENS = torch.arange(2 * 5).reshape(2, 5).to(DEVICE)
CONFIGS = [
    LlamaConfig(
        vocab_size=32,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        pad_token_id=None,
    ),
    GPTNeoXConfig(vocab_size=32, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2),
    GPT2Config(vocab_size=32, n_embd=32, n_layer=2, n_head=2),
]


def model_of(config: object) -> PreTrainedModel:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).to(DEVICE).eval()


def layers_of(model: PreTrainedModel, grid: Callable[[str], Grid]) -> dict[str, Layer]:
    return {
        name: round_to_nearest(weight_matrix(module), grid(name)) for name, module in decoder_linears(model).items()
    }


@torch.inference_mode()
def logits_of(model: PreTrainedModel) -> torch.Tensor:
    return model(input_ids=TOKENS).logits


@pytest.mark.parametrize("grid", [Grid(bits=4, group_size=32), Grid(bits=3, symmetric=False)], ids=["w4", "w3"])
@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.model_type)
def test_logits_are_those_of_dequantized_weights(config: object, grid: Grid) -> None:
    plain, fast = model_of(config), model_of(config)
    quantized = QuantizedModel(layers_of(plain, lambda _name: grid))
    apply_model(plain, quantized)
    assert use_kernels(fast, quantized) == list(quantized.layers)
    assert all(isinstance(fast.get_submodule(name), QuantizedLinear) for name in quantized.layers)
    torch.testing.assert_close(logits_of(fast), logits_of(plain), rtol=1e-5, atol=1e-5)


def test_layers_that_do_not_fit_keep_dequantized_weights() -> None:
    plain, fast = model_of(CONFIGS[0]), model_of(CONFIGS[0])
    quantized = QuantizedModel(layers_of(plain, lambda name: Grid(bits=8 if "down" in name else 4)))
    apply_model(plain, quantized)
    taken = use_kernels(fast, quantized)
    assert taken == [name for name in quantized.layers if "down" not in name]
    down = "model.layers.0.mlp.down_proj"
    assert torch.equal(fast.get_submodule(down).weight, quantized.layers[down].weight())
    torch.testing.assert_close(logits_of(fast), logits_of(plain), rtol=1e-5, atol=1e-5)


def test_inputs_are_rounded_as_the_quantized_model_says() -> None:
    plain, fast = model_of(CONFIGS[0]), model_of(CONFIGS[0])
    layers = layers_of(plain, lambda _name: Grid(bits=4))
    unrounded = copy.deepcopy(plain)
    apply_model(unrounded, QuantizedModel(layers))
    quantized = QuantizedModel(layers, activations=TokenRounding(8, True))
    apply_model(plain, quantized)
    use_kernels(fast, quantized)
    torch.testing.assert_close(logits_of(fast), logits_of(plain), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(logits_of(fast), logits_of(unrounded), rtol=1e-4, atol=1e-4)


def test_codes_take_the_place_of_weights() -> None:
    model = model_of(CONFIGS[0])
    use_kernels(model, QuantizedModel(layers_of(model, lambda _name: Grid(bits=4, group_size=32))))
    layer = model.get_submodule("model.layers.0.mlp.up_proj")
    assert not list(layer.parameters())
    assert sum(buffer.nbytes for buffer in layer.buffers()) == 64 * 32 // 2 + 4 * 64
    assert str(layer) == "QuantizedLinear(in_features=32, out_features=64, bits=4)"


def test_another_model_is_refused() -> None:
    layers = layers_of(model_of(CONFIGS[0]), lambda _name: Grid(bits=4))
    with pytest.raises(CoolbitsError, match="has no module"):
        use_kernels(model_of(CONFIGS[1]), QuantizedModel(layers))


def test_without_a_gpu_or_triton_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "available", lambda: False)
    with pytest.raises(RuntimeError, match="needs Triton and a GPU"):
        use_kernels(model_of(CONFIGS[0]), QuantizedModel({}))
