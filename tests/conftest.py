"""Without a GPU, Triton's kernels run in its interpreter. Triton must know that before anything imports it, and
transformers does: hence here, not beside the tests of the kernels."""

import os

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
