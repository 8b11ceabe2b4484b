"""GPTQ against GPTQModel 7.6.0: layer by layer on the same inputs, and a whole model by its defaults.

GPTQModel sweeps in float32 and blocks of 128 inputs; here it is float64. Where groups are smaller than a block, it
finds their scales from weights that lack the errors of the open block, as `scales: block` says.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import nn
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from coolbits.models.blocks import decoder_linears
from coolbits.ptq.checkpoint import Request, quantize_checkpoint
from coolbits.ptq.gptq import gptq
from coolbits.ptq.ledger import Result
from coolbits.ptq.presets import quantizer_preset
from coolbits.ptq.tokens import Tokens, write_tokens
from coolbits.study.recipes.methods import GPTQ, Grid, ScaleSearch

os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")  # on two cores it dies without
pytest.importorskip("gptqmodel", reason="GPTQModel is not installed: see envs/peers-gptqmodel.txt")

EQUAL_CODES = 0.999
Inputs = dict[str, torch.Tensor]
ACTIVATION = {"desc_act": True, "act_group_aware": False}
GROUP_AWARE = {"desc_act": False, "act_group_aware": True}
NATURAL = {"desc_act": False, "act_group_aware": False}


@pytest.fixture(scope="module")
def layers(sampled: Any) -> dict[str, tuple[nn.Module, torch.Tensor]]:
    """Each linear layer, and what it reads of the calibration [tokens, inputs]."""
    model = LlamaForCausalLM.from_pretrained(sampled.directory)
    caught: Inputs = {}

    def catch(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            caught[name] = inputs[0].flatten(0, 1)

        return hook

    linears = decoder_linears(model)
    for name, module in linears.items():
        module.register_forward_pre_hook(catch(name))
    with torch.no_grad():
        model(input_ids=sampled.calibration)
    return {name: (module, caught[name]) for name, module in linears.items()}


def theirs(module: nn.Module, inputs: torch.Tensor, block_size: int, **knobs: Any) -> torch.Tensor:
    """Return the quantized weight of a layer by GPTQModel."""
    from gptqmodel import QuantizeConfig
    from gptqmodel.quantization.gptq import GPTQ as TheirGPTQ  # noqa: N811

    task = TheirGPTQ(module, QuantizeConfig(**knobs))
    task.quantizer.configure(perchannel=True)
    for chunk in inputs.split(512):
        task.add_batch(chunk[None], module(chunk[None]))
    quantized: torch.Tensor = task.quantize(blocksize=block_size)[0]
    return quantized


def ours(module: nn.Module, inputs: torch.Tensor, recipe: GPTQ) -> tuple[Result, torch.Tensor]:
    vectors = inputs.double()
    hessian = 2 * vectors.T @ vectors / len(vectors)
    return gptq(module.weight.detach(), hessian, recipe), hessian


def compared(
    layers: dict[str, tuple[nn.Module, torch.Tensor]], recipe: GPTQ, block_size: int, **knobs: Any
) -> Iterator[tuple[float, float]]:
    """Yield, of each layer, the share of equal codes and their proxy loss over ours."""
    for module, inputs in layers.values():
        weight = theirs(module, inputs, block_size, **knobs)
        result, hessian = ours(module, inputs, recipe)
        scale = result.layer.scales[:, result.layer.group_index.long()]
        error = module.weight.detach().double() - weight.double()
        equal = float(((result.layer.weight() - weight).abs() < scale / 2).float().mean())
        yield equal, float(((error @ hessian) * error).sum()) / result.entry.proxy_loss


@pytest.mark.parametrize(
    ("bits", "group_size", "symmetric", "order", "static_groups", "search"),
    [
        (4, 128, True, "activation", False, None),
        (3, 128, True, "group-aware", False, None),
        (3, 128, True, "group-aware", False, ScaleSearch()),
        (3, 64, True, "activation", False, None),
        (4, 64, False, "group-aware", False, None),
        (3, 64, False, "natural", True, None),
        (4, 64, True, "activation", True, None),
    ],
)
def test_codes_are_equal_where_a_block_is_a_group(
    layers: dict[str, tuple[nn.Module, torch.Tensor]],
    bits: int,
    group_size: int,
    symmetric: bool,
    order: str,
    static_groups: bool,
    search: ScaleSearch | None,
) -> None:
    grid = Grid(bits=bits, group_size=group_size, symmetric=symmetric, search=search)
    knobs = {"activation": ACTIVATION, "group-aware": GROUP_AWARE, "natural": NATURAL}[order] | {
        "bits": bits,
        "group_size": group_size,
        "sym": symmetric,
        "static_groups": static_groups,
        "mse": search.norm if search else 0.0,
        "damp_percent": 0.05,
    }
    recipe = GPTQ(grid=grid, order=order, static_groups=static_groups, damping=0.05, damping_step=0.01)
    for equal, ratio in compared(layers, recipe, group_size, **knobs):
        assert equal > EQUAL_CODES
        assert ratio == pytest.approx(1, rel=2e-3)


@pytest.mark.parametrize("order", ["activation", "group-aware", "natural"])
def test_groups_within_a_block_are_scaled_from_weights_that_lack_its_errors(
    layers: dict[str, tuple[nn.Module, torch.Tensor]], order: str
) -> None:
    knobs = {"activation": ACTIVATION, "group-aware": GROUP_AWARE, "natural": NATURAL}[order]
    theirs = {"bits": 4, "group_size": 64, "damp_percent": 0.05} | knobs
    recipe = GPTQ(grid=Grid(bits=4, group_size=64), order=order, damping=0.05, damping_step=0.01, scales="block")
    for equal, ratio in compared(layers, recipe, 128, **theirs):
        assert equal > EQUAL_CODES
        assert ratio == pytest.approx(1, rel=2e-3)
    ours = recipe.model_copy(update={"scales": "current"})
    equal, ratios = zip(*compared(layers, ours, 128, **theirs), strict=True)
    assert 0.8 < min(equal) < max(equal) < EQUAL_CODES
    # Neither is better: the mean proxy losses are within 3%.
    assert sum(ratios) / len(ratios) == pytest.approx(1, abs=0.03)


def test_dead_inputs_enter_the_mean_diagonal_there_with_one(
    layers: dict[str, tuple[nn.Module, torch.Tensor]],
) -> None:
    module, inputs = layers["model.layers.0.mlp.up_proj"]
    inputs = inputs.clone()
    inputs[:, [3, 77]] = 0
    weight = theirs(module, inputs, 128, bits=4, group_size=128, **NATURAL)
    diagonal = 2 * (inputs.double() ** 2).mean(0)
    live = diagonal[diagonal > 0]
    damping = 0.05 * float((live.sum() + 2) / len(diagonal) / live.mean())
    result, _ = ours(module, inputs, GPTQ(grid=Grid(bits=4, group_size=128), order="natural", damping=damping))
    assert result.entry.dead_columns == 2
    assert torch.equal(weight[:, [3, 77]], torch.zeros(256, 2))
    scale = result.layer.scales[:, result.layer.group_index.long()]
    assert float(((result.layer.weight() - weight).abs() < scale / 2).float().mean()) > EQUAL_CODES


def test_the_preset_gives_the_model_that_the_library_gives_by_default(sampled: Any, tmp_path: Path) -> None:
    """A first run compiles an extension, which takes a minute."""
    from gptqmodel import GPTQModel, QuantizeConfig

    config = QuantizeConfig(bits=4, group_size=128)
    method = quantizer_preset("gptq-gptqmodel-head-w4-g128").method
    assert isinstance(method, GPTQ)
    assert (config.damp_percent, config.damp_auto_increment) == (method.damping, method.damping_step)
    directory = tmp_path / "model"
    copytree(sampled.directory, directory)
    words = {f"w{token}": token for token in range(512)}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words)), pad_token="w0", unk_token="w0", bos_token="w1", eos_token="w2"
    )
    tokenizer.save_pretrained(directory)
    model = GPTQModel.load(str(directory), config, device="cpu", dtype=torch.float32)
    rows = [{"input_ids": row, "attention_mask": torch.ones_like(row)} for row in sampled.calibration]
    model.quantize(rows, batch_size=8)
    model.save(str(tmp_path / "theirs"))
    stored = {}
    for file in (tmp_path / "theirs").glob("*.safetensors"):
        stored |= load_file(file)

    write_tokens(Tokens.of_equal_length(sampled.calibration), tmp_path)
    request = Request(quantizer_preset("gptq-gptqmodel-head-w4-g128"), tmp_path)
    (made,) = quantize_checkpoint([request], sampled.directory)
    same, weights, total = 0, {}, 0
    for name, result in made.results.items():
        words = stored[f"{name}.qweight"]  # int32 [inputs / 8, outputs]
        codes = (words[:, None] >> torch.arange(0, 32, 4)[:, None] & 15).flatten(0, 1).T  # [outputs, inputs]
        same, total = same + int((codes == result.layer.codes).sum()), total + codes.numel()
        scales = stored[f"{name}.scales"].T.float()[:, stored[f"{name}.g_idx"].long()]
        weights[name] = scales * (codes - 8)
    assert same / total > EQUAL_CODES
    own = sampled.loss({name: result.layer.weight() for name, result in made.results.items()})
    # Theirs are float16 scales.
    assert abs(sampled.loss(weights) - own) < 0.01 * (own - sampled.loss({}))
