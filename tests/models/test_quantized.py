from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers.pytorch_utils import Conv1D

from coolbits.artifacts.errors import CoolbitsError
from coolbits.models.layers import IntegerLayer, neighbouring_groups
from coolbits.models.quantized import (
    QuantizedModel,
    apply_model,
    apply_quantized,
    read_quantized,
    weight_matrix,
    write_quantized,
)


def random_layer(outputs: int, inputs: int, group: int, bits: int, symmetric: bool, seed: int = 0) -> IntegerLayer:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 2**bits, (outputs, inputs), generator=generator, dtype=torch.uint8)
    scales = torch.rand(outputs, inputs // group, generator=generator)
    zeros = torch.full(scales.shape, 1 << (bits - 1), dtype=torch.uint8)
    if not symmetric:
        zeros = torch.randint(0, 2**bits, scales.shape, generator=generator, dtype=torch.uint8)
    return IntegerLayer(bits, symmetric, codes, scales, zeros, neighbouring_groups(inputs, group))


def shuffled(layer: IntegerLayer) -> IntegerLayer:
    order = torch.randperm(layer.codes.shape[1], generator=torch.Generator().manual_seed(1))
    return IntegerLayer(**vars(layer) | {"group_index": layer.group_index[order]})


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("symmetric", [True, False])
def test_what_is_written_gives_the_same_bits_when_read(tmp_path: Path, bits: int, symmetric: bool) -> None:
    layer = random_layer(6, 24, 8, bits, symmetric)
    layers = {"natural": layer, "ordered": shuffled(layer)}
    write_quantized(QuantizedModel(layers), tmp_path)
    for name, read in read_quantized(tmp_path).layers.items():
        assert torch.equal(read.weight(), layers[name].weight())
        assert (read.bits, read.symmetric, read.group_size) == (bits, symmetric, 8)


def test_the_size_counts_packed_codes_scales_zeros_and_a_group_index_that_is_needed(tmp_path: Path) -> None:
    symmetric, asymmetric = random_layer(6, 24, 8, 3, True), random_layer(6, 24, 8, 3, False)
    codes, scales, zeros, index = 6 * 9, 6 * 3 * 4, 6 * 2, 24 * 4
    assert write_quantized(QuantizedModel({"a": symmetric}), tmp_path) == codes + scales
    assert write_quantized(QuantizedModel({"a": asymmetric}), tmp_path) == codes + scales + zeros
    assert write_quantized(QuantizedModel({"a": shuffled(symmetric)}), tmp_path) == codes + scales + index
    assert set(load_file(tmp_path / "codes.safetensors")) == {"a.codes", "a.scales", "a.group_index"}


def test_equal_layers_give_equal_files(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        layers = {"a": random_layer(6, 24, 8, 3, False), "b": random_layer(4, 8, 8, 4, True)}
        write_quantized(QuantizedModel(layers), tmp_path / name)
    for file in ("codes.safetensors", "layout.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


@pytest.mark.parametrize("module", [nn.Linear(24, 6), Conv1D(6, 24)], ids=["Linear", "Conv1D"])
def test_applying_replaces_the_weight_of_both_kinds_of_linear_layer(tmp_path: Path, module: nn.Module) -> None:
    model = nn.Sequential(module)
    layer = random_layer(6, 24, 8, 3, True)
    bias = model[0].bias.clone()
    write_quantized(QuantizedModel({"0": layer}), tmp_path)
    apply_quantized(model, tmp_path)
    inputs = torch.randn(5, 24)
    assert torch.equal(weight_matrix(model[0]), layer.weight())
    torch.testing.assert_close(model(inputs), inputs @ layer.weight().T + bias)


def test_layers_of_another_model_are_refused_by_name() -> None:
    layers = {"0": random_layer(6, 24, 8, 3, True)}
    with pytest.raises(CoolbitsError, match=r"0 has the shape \[6, 24\], the model's is \[5, 24\]"):
        apply_model(nn.Sequential(nn.Linear(24, 5)), QuantizedModel(layers))
    with pytest.raises(CoolbitsError, match="no module 0"):
        apply_model(nn.Linear(24, 6), QuantizedModel(layers))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CoolbitsError, match=r"codes\.safetensors: no such file"):
        read_quantized(tmp_path)
