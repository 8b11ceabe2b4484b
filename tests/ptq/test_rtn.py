import torch

from coolbits.ptq.rtn import round_to_nearest
from coolbits.study.recipes.methods import Grid


def test_each_group_has_its_own_scale() -> None:
    weight = torch.tensor([[-3.5, 1.2, 7.0, 2.1], [0.0, 0.0, 3.5, 3.4]])
    layer = round_to_nearest(weight, Grid(bits=3, group_size=2))
    assert layer.scales.tolist() == [[1.0, 2.0], [1.0, 1.0]]
    assert layer.weight().tolist() == [[-4.0, 1.0, 6.0, 2.0], [0.0, 0.0, 3.0, 3.0]]
    assert layer.group_index.tolist() == [0, 0, 1, 1]


def test_without_a_group_size_a_row_shares_one_scale() -> None:
    layer = round_to_nearest(torch.randn(3, 10), Grid(bits=4, group_size=None))
    assert layer.scales.shape == (3, 1)
    assert layer.group_size == 10


def test_more_bits_give_less_error() -> None:
    weight = torch.randn(8, 32)
    errors = [
        float((weight - round_to_nearest(weight, Grid(bits=bits, group_size=8)).weight()).norm())
        for bits in range(2, 9)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.01 * float(weight.norm())
