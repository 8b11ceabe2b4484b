"""Methods that look at a weight alone."""

import torch

from coolbits.models.layers import Layer
from coolbits.ptq.codebooks import quantize_by_codebook
from coolbits.ptq.hqq import quantize_half_quadratic
from coolbits.ptq.int8 import quantize_rows
from coolbits.ptq.rtn import round_to_nearest
from coolbits.study.recipes.methods import HQQ, RTN, Codebook, Int8

Uncalibrated = RTN | HQQ | Codebook | Int8


def quantize_weight(weight: torch.Tensor, method: Uncalibrated) -> Layer:
    """Quantize a weight [outputs, inputs], float32, as `method` says.

    Raises:
        CoolbitsError: if a group size does not divide the inputs.
    """
    match method:
        case RTN():
            return round_to_nearest(weight, method.grid)
        case HQQ():
            return quantize_half_quadratic(weight, method)
        case Codebook():
            return quantize_by_codebook(weight, method)
        case Int8():
            return quantize_rows(weight, method)
