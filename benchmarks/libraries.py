"""The libraries that agreement.py and ptq.py compare with, each quantizing a model to 4 bits (or 8) as a name says.

Their imports are inside: each lives in an environment of its own, with coolbits beside it (envs/peers-*.txt).
"""

import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForCausalLM

from coolbits.models.blocks import decoder_linears
from coolbits.models.files import load_model
from coolbits.ptq.export.model import FORMATS
from coolbits.ptq.tokens import read_tokens

GROUP, DAMPING, BLOCK = 64, 0.01, 128

Weights = dict[str, torch.Tensor]
Theirs = tuple[Weights, nn.Module | None]  # parameters by name, and the model if it runs as it is


def llmcompressor(calibration: Path, name: str) -> Callable[[nn.Module], None]:
    """Return what quantizes a model in place by llm-compressor, which leaves the rounding to whoever saves it."""
    from compressed_tensors.quantization import fake_quantize
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from llmcompressor.modifiers.transform.awq import AWQModifier
    from llmcompressor.pipelines.cache import IntermediatesCache

    # Without an accelerator its cache fails to pin memory.
    IntermediatesCache.pin_memory = lambda self, *arguments, **keywords: None
    rows = read_tokens(calibration).tokens
    columns = {"input_ids": rows.tolist(), "attention_mask": torch.ones_like(rows).tolist()}
    weights = {"num_bits": 4, "type": "int", "symmetric": name != "awq", "strategy": "group", "group_size": GROUP}
    scheme = {"config_groups": {"all": {"targets": ["Linear"], "weights": weights}}, "ignore": ["lm_head", "embed_out"]}
    recipes: dict[str, Callable[[], Any]] = {
        "rtn": lambda: QuantizationModifier(**scheme),
        "awq": lambda: [AWQModifier(duo_scaling=True), QuantizationModifier(**scheme)],
        "natural": lambda: GPTQModifier(**scheme, actorder=None, block_size=BLOCK, dampening_frac=DAMPING),
        "static": lambda: GPTQModifier(**scheme, actorder="static", block_size=BLOCK, dampening_frac=DAMPING),
    }
    shown = {"dataset": Dataset.from_dict(columns), "num_calibration_samples": len(rows)}
    shown |= {"shuffle_calibration_samples": False}

    @torch.no_grad()
    def round_weights(loaded: nn.Module) -> None:
        for module in loaded.modules():
            if hasattr(module, "quantization_scheme"):
                grid = module.weight_scale, module.weight_zero_point, module.quantization_scheme.weights
                module.weight.copy_(fake_quantize(module.weight, *grid))

    def quantize(loaded: nn.Module) -> None:
        oneshot(model=loaded, recipe=recipes[name](), max_seq_length=rows.shape[1], **({} if name == "rtn" else shown))
        round_weights(loaded)

    return quantize


def gptqmodel(model: Path, calibration: Path, name: str) -> tuple[Any, Callable[[], None]]:
    """Return a model loaded by GPTQModel, and what quantizes it."""
    from gptqmodel import GPTQModel, QuantizeConfig
    from gptqmodel.models._const import DEVICE
    from gptqmodel.nn_modules.qlinear.gemm_awq import AwqGEMMLinear
    from gptqmodel.quantization import FORMAT, METHOD

    rows = [{"input_ids": row, "attention_mask": torch.ones_like(row)} for row in read_tokens(calibration).tokens]
    if name == "awq":
        # Its search and its packing run on a CPU; only the kernel that it packs for says no, there and to float32.
        AwqGEMMLinear.validate_once = classmethod(lambda _class: (True, None))
        AwqGEMMLinear.SUPPORTS_DEVICES = [DEVICE.CPU]
        AwqGEMMLinear.SUPPORTS_DTYPES = [torch.float32]
        settings: dict[str, Any] = {"method": METHOD.AWQ, "format": FORMAT.GEMM, "sym": False}
    else:
        settings = {"desc_act": name != "group-aware", "act_group_aware": name == "group-aware"}
        settings |= {"sym": True, "damp_percent": DAMPING}
    config = QuantizeConfig(bits=4, group_size=-1 if name == "row" else GROUP, **settings)
    loaded = GPTQModel.load(str(model), config, device="cpu", dtype=torch.float32)
    return loaded, lambda: loaded.quantize(rows, batch_size=8)


def by_llmcompressor(model: Path, calibration: Path, name: str) -> Theirs:
    """Quantize by llm-compressor."""
    loaded = load_model(model)
    llmcompressor(calibration, name)(loaded)
    own = dict(load_model(model).named_parameters())
    return {key: tensor.detach() for key, tensor in loaded.named_parameters() if key in own}, None


def by_gptqmodel(model: Path, calibration: Path, name: str) -> Theirs:
    """Quantize by GPTQModel, and read what it saves."""
    loaded, quantize = gptqmodel(model, calibration, name)
    quantize()
    stored: Weights = {}
    with TemporaryDirectory() as folder:
        loaded.save(folder)
        for file in Path(folder).glob("*.safetensors"):
            stored |= load_file(file)
        saved = json.loads((Path(folder) / "config.json").read_text())["quantization_config"]
    weights = {key: tensor for key, tensor in stored.items() if key.endswith("weight") and "qweight" not in key}
    for key in (key.removesuffix("qweight") for key in stored if key.endswith("qweight")):
        parts = {part: stored[f"{key}{part}"] for part in ("qweight", "qzeros", "scales")}
        if name == "awq":
            weights[f"{key}weight"] = _awq_weight(**parts)
        else:
            weights[f"{key}weight"] = FORMATS["gptq"].weight(parts | {"g_idx": stored[f"{key}g_idx"]}, saved)
    return weights, None


def _awq_weight(qweight: torch.Tensor, qzeros: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Return a weight [outputs, inputs] from AWQ's GEMM format: eight codes an int32, the even outputs before the odd.

    qweight is [inputs, outputs / 8], qzeros [groups, outputs / 8], scales are float16 [groups, outputs].
    """
    places = torch.tensor([0, 4, 1, 5, 2, 6, 3, 7]) * 4  # bits, of each of eight outputs
    codes, zeros = ((packed[..., None] >> places & 15).flatten(1) for packed in (qweight, qzeros))
    size = len(codes) // len(zeros)
    return ((codes - zeros.repeat_interleave(size, 0)) * scales.float().repeat_interleave(size, 0)).T


def by_bitsandbytes(model: Path, _calibration: Path, name: str) -> Theirs:
    """Load in 4 or 8 bits by bitsandbytes."""
    from bitsandbytes import functional
    from bitsandbytes.nn import Linear4bit, Linear8bitLt
    from transformers import BitsAndBytesConfig

    bits = {"load_in_8bit": True} if name == "int8" else {"load_in_4bit": True, "bnb_4bit_quant_type": name}
    config = BitsAndBytesConfig(**bits)
    loaded = AutoModelForCausalLM.from_pretrained(
        model, quantization_config=config, dtype=torch.float32, device_map="cpu"
    )
    weights = {}
    for key, module in loaded.named_modules():
        if isinstance(module, Linear4bit):
            weights[f"{key}.weight"] = functional.dequantize_4bit(module.weight.data, module.weight.quant_state)
        elif isinstance(module, Linear8bitLt):
            weights[f"{key}.weight"] = functional.int8_vectorwise_dequant(module.weight.data, module.weight.SCB)
    # In evaluation mode it repacks 4-bit weights for some CPUs, and rounds their scales to bfloat16.
    return weights, loaded.train(name != "int8")


def by_hqq(model: Path, _calibration: Path, _name: str) -> Theirs:
    """Quantize by hqq."""
    from hqq.core.quantize import BaseQuantizeConfig, HQQLinear

    loaded, weights = load_model(model), {}
    config = BaseQuantizeConfig(nbits=4, group_size=GROUP, axis=1)
    for key, module in decoder_linears(loaded).items():
        layer = HQQLinear(module, config, compute_dtype=torch.float32, device="cpu", del_orig=False)
        weights[f"{key}.weight"] = layer.dequantize()
        loaded.set_submodule(key, layer)
    return weights, loaded


def by_torchao(model: Path, _calibration: Path, name: str) -> Theirs:
    """Quantize by torchao: integers of 4 bits in groups, or of 8 bits a row with tokens of 8 bits."""
    from torchao.quantization import (
        Int8DynamicActivationInt8WeightConfig,
        IntxWeightOnlyConfig,
        MappingType,
        PerGroup,
        quantize_,
    )

    mapping = MappingType.ASYMMETRIC if name == "asymmetric" else MappingType.SYMMETRIC
    config = IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(GROUP), mapping_type=mapping)
    if name == "w8a8":
        config = Int8DynamicActivationInt8WeightConfig(version=2)
    loaded = load_model(model)
    linears = decoder_linears(loaded)
    quantize_(loaded, config, lambda module, _name: module in linears.values())
    return {f"{key}.weight": module.weight.dequantize() for key, module in linears.items()}, loaded


WORKERS = {
    "llmcompressor": by_llmcompressor,
    "gptqmodel": by_gptqmodel,
    "bitsandbytes": by_bitsandbytes,
    "hqq": by_hqq,
    "torchao": by_torchao,
}
