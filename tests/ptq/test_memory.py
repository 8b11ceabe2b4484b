"""Sizes without memory, what 32 billion parameters take, and an estimate against a measurement."""

import copy
import gc
import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    NemotronHConfig,
    Olmo2Config,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2Config,
)

from coolbits.models.build import build_config
from coolbits.models.presets import preset
from coolbits.ptq.checkpoint import Request, quantize_model
from coolbits.ptq.memory import estimate_peak, model_sizes
from coolbits.study.quantization_memory import peak_bytes, sizes_of
from coolbits.study.recipes.calibration import Windows
from coolbits.study.recipes.methods import AWQ, GPTQ, HQQ, RTN, Grid, Method
from coolbits.study.recipes.ptq import Quantized

_spec = importlib.util.spec_from_file_location("ptq_memory", Path(__file__).parents[2] / "benchmarks" / "ptq_memory.py")
benchmark = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(benchmark)

WINDOWS = Windows(sequences=128, sequence_length=2048)
GRID = Grid(bits=4, group_size=128)
SHAPE = {
    "hidden_size": 5120,
    "intermediate_size": 27648,
    "num_hidden_layers": 64,
    "num_attention_heads": 40,
    "num_key_value_heads": 8,
}
LARGE = {
    "Qwen2.5-32B": (Qwen2Config(vocab_size=152064, **SHAPE), 32_763_876_352),
    "OLMo2-32B": (Olmo2Config(vocab_size=100352, **SHAPE), 32_234_279_936),
}
METHODS: dict[str, Method] = {
    "rtn": RTN(grid=GRID),
    "hqq": HQQ(grid=Grid(bits=4, group_size=128, symmetric=False)),
    "gptq-layer": GPTQ(grid=GRID, calibration=WINDOWS),
    "gptq-block": GPTQ(grid=GRID, sequential="block", calibration=WINDOWS),
    "gptq-none": GPTQ(grid=GRID, sequential="none", calibration=WINDOWS),
    "awq": AWQ(grid=GRID, calibration=WINDOWS),
}


@pytest.mark.parametrize("name", ["micro-neox", "micro-gpt2", "micro-olmo2", "micro-qwen3", "llama-130m"])
def test_sizes_of_a_recipe_are_those_of_its_model(name: str) -> None:
    model = preset(name, 2048, 512)
    assert model_sizes(build_config(model)) == sizes_of(model)


@pytest.mark.parametrize(
    ("name", "narrow", "matrix"),
    [
        ("micro-neox", {"intermediate_size": 64}, 3),
        ("micro-gpt2", {"n_inner": 64}, 3),
        ("micro-olmo2", {"intermediate_size": 64}, 1),
    ],
)
def test_beside_a_narrow_mlp_attention_has_the_largest_matrix(name: str, narrow: dict[str, int], matrix: int) -> None:
    """Queries, keys and values are one matrix in GPT-NeoX and GPT-2."""
    model = preset(name, 2048, 512, **narrow)
    sizes = sizes_of(model)
    assert model_sizes(build_config(model)) == sizes
    assert sizes.matrix == matrix * sizes.width**2


@pytest.mark.parametrize(("config", "parameters"), LARGE.values(), ids=LARGE)
def test_models_of_32_billion_parameters_fit_one_gpu_of_80_gb(config: PretrainedConfig, parameters: int) -> None:
    sizes = model_sizes(config)
    assert sizes.parameters == parameters
    for method in METHODS.values():
        peak = peak_bytes(sizes, [Quantized(method=method)], stored=2, accelerator=True)
        assert peak.device < 50e9  # libraries and fragments take some, too
        assert peak.host < 1.5 * 2 * parameters


@pytest.mark.parametrize("architecture", ["apertus", "falcon", "gemma2", "gemma3_text", "gpt_neo"])
def test_architectures_that_make_tensors_of_numbers_have_sizes_too(architecture: str) -> None:
    """They do it as they are built, or as they run: on the meta device such a tensor is none of those without data."""
    sizes = {"hidden_size": 32, "vocab_size": 96, "num_attention_heads": 4, "num_hidden_layers": 2}
    kinds = {"gpt_neo": {"num_layers": 2, "attention_types": [[["global", "local"], 1]]}}
    config = AutoConfig.for_model(architecture, **sizes, **kinds.get(architecture, {}))
    expected = sum(parameter.numel() for parameter in AutoModelForCausalLM.from_config(config).parameters())
    assert model_sizes(config).parameters == expected


def test_groups_are_of_the_largest_block_wherever_it_stands() -> None:
    """Behind an attention of 4 x 32² weights stands an MLP of 2 x 32 x 640, before a second attention."""
    sizes = {"hidden_size": 32, "vocab_size": 96, "num_attention_heads": 4, "head_dim": 8, "num_key_value_heads": 4}
    config = NemotronHConfig(**sizes, intermediate_size=640, num_hidden_layers=3, hybrid_override_pattern="*-*")
    found = model_sizes(config)
    assert found.groups == ((640, 32), (32, 640))
    assert found.inner_width == 640


def test_the_estimate_is_that_of_the_sizes() -> None:
    config, recipe = build_config(preset("micro-llama", 2048, 512)), Quantized(method=METHODS["gptq-layer"])
    for device in ("cpu", "cuda"):
        expected = peak_bytes(model_sizes(config), [recipe], stored=2, accelerator=device != "cpu")
        assert estimate_peak(config, recipe, torch.bfloat16, device) == expected


@pytest.mark.parametrize(("name", "head"), [("gptq-layer", True), ("gptq-none", True), ("awq", False)])
def test_nothing_waits_for_the_garbage_collector(
    name: str, head: bool, model: PreTrainedModel, calibration: Path
) -> None:
    """Hessians are few and large: a cycle around one is not found for long, and fills a GPU meanwhile."""
    method = METHODS[name].model_copy(update={"grid": Grid(bits=4, group_size=16)})
    request = Request(Quantized(method=method, head=head), calibration)
    gc.collect()
    gc.disable()
    try:
        quantize_model([request], model)
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        assert not [item for item in gc.garbage if isinstance(item, torch.Tensor)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the resident set as Linux has it")
def test_the_estimate_is_within_a_fifth_of_a_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random model of 61 million parameters in bfloat16, quantized layer by layer by GPTQ, on the CPU."""
    config = copy.deepcopy(benchmark.SHAPES["llama-67m"].config)
    config.intermediate_size = 3072
    shape = benchmark.Shape(config, Windows(sequences=8, sequence_length=512))
    monkeypatch.setitem(benchmark.SHAPES, "llama-61m", shape)
    line = benchmark.measure("llama-61m", "gptq-layer", threads=1)
    assert line.measured == pytest.approx(line.estimated, rel=0.2)
