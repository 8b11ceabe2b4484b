"""RTN and GPTQ against llm-compressor: the same model, tokens and settings give the same weights.

llm-compressor finds all scales before the sweep, from the weights as they are (our `static_groups`), and Hessians from
quantized blocks (our `sequential: block`). Its sweep is float32, ours float64: a weight that lies half way between two
levels may fall either way, and then moves the weights after it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from coolbits.ptq.checkpoint import Request, quantize_checkpoint
from coolbits.ptq.gptq import gptq
from coolbits.ptq.ledger import Result
from coolbits.ptq.presets import quantizer_preset
from coolbits.ptq.tokens import Tokens, write_tokens
from coolbits.study.recipes.methods import GPTQ, RTN, Grid, Method
from coolbits.study.recipes.ptq import Quantized

pytest.importorskip("llmcompressor", reason="llm-compressor is not installed: see envs/peers-ptq.txt")
pytest.importorskip("datasets", reason="datasets is not installed")

EQUAL_CODES = 0.99  # share of codes, at least
EQUAL_LOSS = 0.03  # difference of cross-entropies as a share of what quantization costs, at most
Ours = Callable[..., dict[str, Result]]


@pytest.fixture
def ours(sampled: Any, tmp_path: Path) -> Ours:
    def quantize(method: Method, head: bool = False) -> dict[str, Result]:
        write_tokens(Tokens.of_equal_length(sampled.calibration), tmp_path)
        (made,) = quantize_checkpoint([Request(Quantized(method=method, head=head), tmp_path)], sampled.directory)
        return dict(made.results)

    return quantize


def theirs(
    sampled: Any, bits: int, symmetric: bool, order: str | None = None, nearest: bool = False, head: bool = False
) -> dict[str, torch.Tensor]:
    """Return the quantized weights of llm-compressor by module name, float32."""
    from compressed_tensors.quantization import fake_quantize
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.quantization import QuantizationModifier

    weights = {"num_bits": bits, "type": "int", "symmetric": symmetric, "strategy": "group", "group_size": 64}
    ignored = [] if head else ["lm_head"]
    scheme = {"config_groups": {"group": {"targets": ["Linear"], "weights": weights}}, "ignore": ignored}
    rows = {"input_ids": sampled.calibration.tolist(), "attention_mask": torch.ones_like(sampled.calibration).tolist()}
    model = LlamaForCausalLM.from_pretrained(sampled.directory)
    if nearest:
        oneshot(model=model, recipe=QuantizationModifier(**scheme))
    else:
        oneshot(
            model=model,
            dataset=Dataset.from_dict(rows),
            recipe=GPTQModifier(**scheme, actorder=order),
            processor=PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"?": 0})), pad_token="?"),
            max_seq_length=sampled.calibration.shape[1],
            num_calibration_samples=len(sampled.calibration),
        )
    with torch.no_grad():
        return {
            name: fake_quantize(
                module.weight, module.weight_scale, module.weight_zero_point, module.quantization_scheme.weights
            ).float()
            for name, module in model.named_modules()
            if hasattr(module, "quantization_scheme")
        }


def equal_codes(results: dict[str, Result], weights: dict[str, torch.Tensor]) -> float:
    """Return the share of weights that lie on the same level."""
    assert set(results) == set(weights)
    same, all_weights = 0, 0
    for name, result in results.items():
        scale = result.layer.scales[:, result.layer.group_index.long()]
        same += int(((result.layer.weight() - weights[name]).abs() < scale / 2).sum())
        all_weights += scale.numel()
    return same / all_weights


@pytest.mark.parametrize(("bits", "symmetric"), [(4, True), (3, True), (3, False), (8, True)])
def test_rounding_to_nearest_is_equal(sampled: Any, ours: Ours, bits: int, symmetric: bool) -> None:
    results = ours(RTN(grid=Grid(bits=bits, group_size=64, symmetric=symmetric)))
    weights = theirs(sampled, bits, symmetric, nearest=True)
    for name, result in results.items():
        torch.testing.assert_close(result.layer.weight(), weights[name], rtol=1e-6, atol=1e-7)


def test_rounding_the_head_is_equal(sampled: Any, ours: Ours) -> None:
    result = ours(RTN(grid=Grid(bits=3, group_size=64)), head=True)["lm_head"]
    weights = theirs(sampled, 3, True, nearest=True, head=True)
    torch.testing.assert_close(result.layer.weight(), weights["lm_head"], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("order", ["static", None])
def test_gptq_counts_the_head_into_the_last_block_there(sampled: Any, ours: Ours, order: str | None) -> None:
    """Its Hessian there comes through the last block as it was, here through that block quantized.

    With the Hessian that is made there its codes are equal.
    """
    recipe = GPTQ(
        grid=Grid(bits=4, group_size=64),
        order="activation" if order else "natural",
        static_groups=True,
        sequential="block",
    )
    results, weights = ours(recipe, head=True), theirs(sampled, 4, True, order, head=True)
    model = LlamaForCausalLM.from_pretrained(sampled.directory)
    read: list[torch.Tensor] = []
    model.lm_head.register_forward_pre_hook(lambda _head, inputs: read.append(inputs[0].flatten(0, 1).double()))
    with torch.no_grad():
        for name in (name for name in results if name.startswith("model.layers.0.")):
            model.get_submodule(name).weight.copy_(results[name].layer.weight())
        model(input_ids=sampled.calibration)
    hessian = 2 * read[0].T @ read[0] / len(read[0])
    head = gptq(model.lm_head.weight.detach(), hessian, recipe)
    assert equal_codes(results | {"lm_head": head}, weights) > EQUAL_CODES
    assert 0.8 < equal_codes({"lm_head": results["lm_head"]}, {"lm_head": weights["lm_head"]}) < EQUAL_CODES


@pytest.mark.parametrize(
    ("bits", "symmetric", "order"), [(4, True, "static"), (3, True, "static"), (3, False, "weight"), (4, True, None)]
)
def test_gptq_gives_the_same_codes_and_cross_entropy(
    sampled: Any, ours: Ours, bits: int, symmetric: bool, order: str | None
) -> None:
    recipe = GPTQ(
        grid=Grid(bits=bits, group_size=64, symmetric=symmetric),
        order="activation" if order else "natural",
        static_groups=True,
        sequential="block",
    )
    results, weights = ours(recipe), theirs(sampled, bits, symmetric, order)
    assert equal_codes(results, weights) > EQUAL_CODES
    full, own = sampled.loss({}), sampled.loss({name: result.layer.weight() for name, result in results.items()})
    assert own > full
    assert abs(sampled.loss(weights) - own) < EQUAL_LOSS * (own - full)


def test_the_preset_is_the_librarys_default(sampled: Any, ours: Ours) -> None:
    from llmcompressor.modifiers.gptq import GPTQModifier

    method = quantizer_preset("gptq-llmcompressor-w4-g64").method
    assert isinstance(method, GPTQ)
    assert GPTQModifier().dampening_frac == method.damping
    assert GPTQModifier().block_size == method.block_size
    assert str(GPTQModifier().actorder) == "static"
    assert equal_codes(ours(method), theirs(sampled, 4, True, "static")) > EQUAL_CODES


def test_dynamic_groups_in_activation_order_no_longer_exist_there(sampled: Any) -> None:
    with pytest.raises(ValueError, match="Invalid activation ordering group"):
        theirs(sampled, 4, True, "group")
