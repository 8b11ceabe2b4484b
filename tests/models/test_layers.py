"""Packed layers: every kind comes back bit for bit."""

from collections.abc import Callable

import pytest
import torch

from coolbits.models.layers import Layer, PackedLayer, RotatedLayer
from coolbits.ptq.codebooks import quantize_by_codebook
from coolbits.ptq.hqq import quantize_half_quadratic
from coolbits.ptq.rtn import round_to_nearest
from coolbits.study.recipes.methods import HQQ, Codebook, Grid

WEIGHT = torch.randn(6, 40, generator=torch.Generator().manual_seed(0))
GRID = Grid(bits=3, group_size=8, symmetric=False)
KINDS: dict[str, Callable[[], Layer]] = {
    "integer": lambda: round_to_nearest(WEIGHT, GRID),
    "real zeros": lambda: quantize_half_quadratic(WEIGHT, HQQ(grid=GRID)),
    "rotated": lambda: RotatedLayer(round_to_nearest(WEIGHT, GRID), 1),
    "codebook": lambda: quantize_by_codebook(WEIGHT, Codebook(kind="nf4")),
    "double": lambda: quantize_by_codebook(WEIGHT, Codebook(kind="fp4", double=True)),
}


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_a_packed_layer_is_the_layer(make: Callable[[], Layer]) -> None:
    layer = make()
    packed = PackedLayer.of(layer)
    assert torch.equal(packed.layer().weight(), layer.weight())
    assert packed.shape == layer.shape
    assert packed.parts["codes"].numel() == 6 * 40 * layer.bits // 8


def test_it_holds_no_memory_but_its_own() -> None:
    """Scales cut out of a larger tensor would keep that alive, and safetensors refuses tensors that share memory."""
    layer = KINDS["integer"]()
    packed = PackedLayer.of(layer)
    assert all(part.untyped_storage().nbytes() == part.nbytes for part in packed.parts.values())
    assert packed.parts["scales"].data_ptr() != layer.scales.data_ptr()
