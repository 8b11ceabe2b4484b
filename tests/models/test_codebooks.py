from pathlib import Path

import pytest
import torch

from coolbits.models.codebooks import TABLES, CodebookLayer, DoubleScales, Table
from coolbits.models.quantized import QuantizedModel, read_quantized, write_quantized


def random_layer(table: Table, shape: tuple[int, int], block_size: int, double: bool) -> CodebookLayer:
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 16, shape, generator=generator, dtype=torch.uint8)
    blocks = -(-codes.numel() // block_size)
    scales: torch.Tensor | DoubleScales = torch.rand(blocks, generator=generator)
    if double:
        scale_codes = torch.randint(0, 256, (blocks,), generator=generator, dtype=torch.uint8)
        scales = DoubleScales(scale_codes, torch.rand(-(-blocks // 256), generator=generator), torch.tensor(0.7))
    return CodebookLayer(table, block_size, codes, scales)


def test_tables_are_those_of_the_papers() -> None:
    assert TABLES["nf4"].unique().tolist() == TABLES["nf4"].tolist()  # rising
    assert (TABLES["nf4"].min(), TABLES["nf4"].max(), TABLES["nf4"][7]) == (-1, 1, 0)
    exponents = {0: (0, 0.0625), 1: (8, 12), 2: (4, 6), 3: (2, 3)}
    for code, value in enumerate(TABLES["fp4"].tolist()):
        sign, exponent, mantissa = code >> 3, code >> 1 & 3, code & 1
        assert value == pytest.approx((-1) ** sign * exponents[exponent][mantissa] / 12, rel=1e-7)


@pytest.mark.parametrize("table", ["nf4", "fp4"])
def test_a_weight_is_its_value_times_the_scale_of_its_block_of_the_flattened_matrix(table: Table) -> None:
    layer = random_layer(table, (3, 7), 4, double=False)
    assert isinstance(layer.scales, torch.Tensor)
    for place, weight in enumerate(layer.weight().flatten()):
        assert weight == TABLES[table][int(layer.codes.flatten()[place])] * layer.scales[place // 4]


@pytest.mark.parametrize("table", ["nf4", "fp4"])
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("shape", [(6, 32), (5, 7), (70, 129)])
def test_what_is_written_gives_the_same_bits_when_read(
    tmp_path: Path, table: Table, double: bool, shape: tuple[int, int]
) -> None:
    layer = random_layer(table, shape, 16, double)
    size = write_quantized(QuantizedModel({"a": layer}), tmp_path)
    read = read_quantized(tmp_path).layers["a"]
    assert torch.equal(read.weight(), layer.weight())
    assert (read.bits, read.shape, read.group_size) == (4, shape, 16)
    blocks = -(-shape[0] * shape[1] // 16)
    packed = shape[0] * -(-shape[1] // 2)
    assert size == packed + (blocks + 4 * -(-blocks // 256) + 4 if double else 4 * blocks)
