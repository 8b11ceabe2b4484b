"""Quantization in a rotated basis: codes of W Q, under the Hessian Q^T H Q that rotated inputs have.

Nothing here changes anything where `rotation` is None.
"""

from dataclasses import replace

import torch

from coolbits.models.layers import IntegerLayer, RotatedLayer
from coolbits.models.rotation import rotate
from coolbits.ptq.ledger import Result
from coolbits.study.recipes.ptq import Rotation


def rotate_weight(weight: torch.Tensor, rotation: Rotation | None) -> torch.Tensor:
    """Return W Q, float32, for a weight W [outputs, inputs]; products are float64."""
    return weight if rotation is None else rotate(weight, rotation.seed).to(torch.float32)


def rotate_hessian(hessian: torch.Tensor, rotation: Rotation | None) -> torch.Tensor:
    """Return Q^T H Q in the dtype of H [inputs, inputs], a Hessian; products are float64."""
    if rotation is None:
        return hessian
    return rotate(rotate(hessian, rotation.seed).mT, rotation.seed).to(hessian.dtype)


def restore_basis(result: Result, rotation: Rotation | None) -> Result:
    """Return the result of a rotated weight as one whose layer stands for the weight itself.

    Its entry stays: neither a proxy loss nor a relative error depends on the basis.
    """
    if rotation is None:
        return result
    assert isinstance(result.held, IntegerLayer), "recipes allow a rotation with integer grids alone"
    return replace(result, held=RotatedLayer(result.held, rotation.seed))
