"""Triton kernels for optimizers with 8-bit states: fused updates of whole lists of tensors, and X Xᵀ at half the work.

Triton is optional. Where it is missing, only `available` is here; ask it before touching anything else.
"""

import os
import shutil
from importlib.util import find_spec

import torch

from coolbits.native import has_headers

if find_spec("triton") is not None:
    from coolbits.optim.kernels.launch import INTERPRETED
    from coolbits.optim.kernels.product import gram
    from coolbits.optim.kernels.steps import adam_step, momentum_step, sgd_step

    __all__ = ["adam_step", "available", "gram", "momentum_step", "sgd_step"]
else:
    INTERPRETED = False
    __all__ = ["available"]


def available() -> bool:
    """Return whether the kernels run here: there are Triton and a GPU, or Triton's interpreter is on.

    On a GPU Triton also takes a C compiler and Python's headers, with which it makes launchers, once a machine.

    The interpreter (TRITON_INTERPRET=1 when Triton is first imported) runs them on CPU tensors, for tests: slowly.
    """
    return INTERPRETED or (find_spec("triton") is not None and torch.cuda.is_available() and _makes_launchers())


def _makes_launchers() -> bool:
    compilers = [os.environ["CC"]] if "CC" in os.environ else ["gcc", "clang"]
    return any(map(shutil.which, compilers)) and has_headers()
