"""A Triton kernel for quantized layers: products with weights that are dequantized on their way.

Triton is optional. Where it is missing, only `available` is here; ask it before touching anything else.
"""

from importlib.util import find_spec

from coolbits.optim.kernels import available

if find_spec("triton") is not None:
    from coolbits.models.kernels.dequantize_matmul import dequantize_matmul, fits

    __all__ = ["available", "dequantize_matmul", "fits"]
else:
    __all__ = ["available"]
