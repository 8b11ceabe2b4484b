"""NF4 and FP4 as bitsandbytes quantizes (version 0.50): blocks of the flattened matrix, the nearest value of a table.

Where a weight, over its block's magnitude, lies half way between two values, the lower is taken, as by the library on a
CPU. Its CUDA kernels give an FP4 tie to the smaller magnitude, which for a negative weight is the upper.
"""

import torch
from torch.nn import functional

from coolbits.models.codebooks import SCALES_A_BLOCK, TABLES, CodebookLayer, DoubleScales, Table
from coolbits.optim.codebook import nearest
from coolbits.study.recipes.methods import Codebook

_SMALLEST = 1e-38  # the library's: magnitudes below it count as it


def quantize_by_codebook(weight: torch.Tensor, method: Codebook) -> CodebookLayer:
    """Quantize a weight [outputs, inputs], float32, each value to the nearest of the table times its block's magnitude.

    The library quantizes what it is given, mostly float16 or bfloat16; here weights are rounded to neither before.
    """
    ratios, scales = _ratios(weight.reshape(-1), method.block_size)
    codes = _nearest_codes(ratios, method.kind).view(weight.shape)
    return CodebookLayer(method.kind, method.block_size, codes, _double(scales) if method.double else scales)


def _ratios(values: torch.Tensor, block_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return values [size] over the largest magnitude of their blocks, in [-1, 1], and those, [ceil(size / block)].

    The last block may be short. Values meet the inverse of the magnitude: a quotient can fall on another code.
    """
    blocks = functional.pad(values, (0, -len(values) % block_size)).view(-1, block_size)
    largest = blocks.abs().amax(1)
    ratios = (blocks * (1 / largest.clamp(min=_SMALLEST))[:, None]).clamp_(-1, 1)
    return ratios.view(-1)[: len(values)], largest


def _nearest_codes(ratios: torch.Tensor, table: Table) -> torch.Tensor:
    """Return codes, uint8, of the values nearest to `ratios`; of FP4's two zeros, positive ratios get the second."""
    values, codes = TABLES[table].to(ratios.device).sort(stable=True)
    middles = (values[:-1] + values[1:]) / 2
    return codes.to(torch.uint8)[torch.bucketize(ratios, middles, out_int32=True)]


def _double(scales: torch.Tensor) -> DoubleScales:
    """Round scales to the dynamic codebook, exactly nearest, as the library does on CUDA.

    Its kernel for the CPU finds the entry by a coarser rule and misses the nearest once in a thousand times.
    """
    offset = scales.mean()
    ratios, largest = _ratios(scales - offset, SCALES_A_BLOCK)
    return DoubleScales(nearest(ratios, signed=True), largest, offset)
