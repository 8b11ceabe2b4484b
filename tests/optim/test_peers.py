"""The codes against those of bitsandbytes and torchao, where they are installed (envs/peers-optimizers.txt)."""

import pytest
import torch
from torch import Tensor

from coolbits.optim.codebook import dynamic_codebook
from coolbits.optim.codecs import Blockwise

BLOCK = 256
SIGNS = pytest.mark.parametrize("signed", [True, False], ids=["signed", "unsigned"])


@pytest.fixture
def state(signed: bool) -> Tensor:
    """Numbers of ten decades, in whole blocks."""
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randn(64 * BLOCK, generator=generator) * 10 ** (-10 * torch.rand(64 * BLOCK, generator=generator))
    return numbers if signed else numbers.square()


def assert_nearest(codes: Tensor, state: Tensor, signed: bool) -> None:
    """A peer may divide less exactly; then, of two entries that are almost equally near, it may take the other."""
    own = Blockwise("dynamic", signed, BLOCK).encode(state)
    different = codes.int() != own["codes"].int()
    ratios = (state.view(-1, BLOCK) / own["scales"][:, None]).flatten()[different]
    entries = dynamic_codebook(signed)
    theirs, ours = (entries[found[different].int()] for found in (codes, own["codes"]))
    torch.testing.assert_close((ratios - theirs).abs(), (ratios - ours).abs(), rtol=1e-4, atol=1e-9)
    assert different.float().mean() < 1e-3


@SIGNS
def test_bitsandbytes_has_the_same_codebook_and_codes(state: Tensor, signed: bool) -> None:
    functional = pytest.importorskip("bitsandbytes.functional", reason="bitsandbytes is not installed")
    book = functional.create_dynamic_map(signed=signed)
    assert torch.equal(book, dynamic_codebook(signed))
    # Its operator for float32 on CPUs is off by up to 2.8e-5 of the scale; that for float64 compares all entries.
    codes, scales = torch.ops.bitsandbytes.quantize_blockwise(state.double(), book, BLOCK)
    assert torch.equal(scales, Blockwise("dynamic", signed, BLOCK).encode(state)["scales"])
    assert_nearest(codes, state, signed)


@SIGNS
def test_torchao_has_the_same_codebook_and_codes(state: Tensor, signed: bool) -> None:
    utilities = pytest.importorskip("torchao.optim.quant_utils", reason="torchao is not installed")
    book = torch.tensor(utilities.create_dynamic_map(signed))
    torch.testing.assert_close(book, dynamic_codebook(signed), rtol=1e-6, atol=0)
    scaled, scales = utilities.scale_tensor(state, BLOCK)
    assert torch.equal(scales, Blockwise("dynamic", signed, BLOCK).encode(state)["scales"])
    codes = utilities.quantize_8bit_with_qmap(scaled, book)
    assert_nearest(codes.flatten(), state, signed)
