"""The codes that the kernels write: momentum 0 makes a momentum step an encoder of its gradients."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

pytest.importorskip("triton")

from coolbits.optim import kernels
from coolbits.optim.codebook import dynamic_codebook
from coolbits.optim.codecs import Blockwise, Parts

CODECS = [
    pytest.param(Blockwise(kind, signed, block), id=f"{kind}-{'signed' if signed else 'unsigned'}-{block}")
    for kind in ("linear", "dynamic")
    for signed in (True, False)
    for block in (256, 2048)
]


def encode(values: Tensor, codec: Blockwise, device: torch.device) -> Parts:
    parts = {name: part.to(device) for name, part in codec.encode(torch.zeros_like(values)).items()}
    kernels.momentum_step([values.to(device)], [parts], codec, momentum=0.0, nesterov=False)
    return {name: part.cpu() for name, part in parts.items()}


def levels(codec: Blockwise) -> np.ndarray:
    """All values that a code can stand for, by code (linear: shifted to start at zero), as parts of the scale."""
    if codec.kind == "dynamic":
        return dynamic_codebook(codec.signed).double().numpy()
    return np.arange(-127, 128) / 127 if codec.signed else np.arange(256) / 255


def distances(values: Tensor, parts: Parts, codec: Blockwise) -> tuple[np.ndarray, np.ndarray]:
    """How far each value is from the one of its code and from the nearest one, as parts of the scale, in float64."""
    scales = parts["scales"].double().repeat_interleave(codec.block_size)[: len(values)]
    ratios = (values.double() / torch.where(scales == 0, 1.0, scales)).numpy()
    table, codes = levels(codec), parts["codes"].long().numpy()
    first = -127 if codec.kind == "linear" and codec.signed else 0
    every = np.abs(ratios[:, None] - table[None, :])
    return every[np.arange(len(codes)), codes - first], every.min(1)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("spread", [1, 8], ids=["even", "over-decades"])
def test_a_code_stands_for_the_nearest_value(codec: Blockwise, spread: int, device: torch.device) -> None:
    generator = torch.Generator().manual_seed(spread)
    values = torch.randn(2 * codec.block_size + 77, generator=generator) ** spread
    values = values if codec.signed else values.abs()
    parts = encode(values, codec, device)
    expected = [block.abs().max().item() for block in values.split(codec.block_size)]
    assert parts["scales"].tolist() == expected
    own, nearest = distances(values, parts, codec)
    assert (own <= nearest + 3e-7).all()  # two roundings of a float32 near 1


@pytest.mark.parametrize("signed", [True, False])
def test_between_dynamic_entries_the_middle_decides_and_belongs_to_the_lower_one(
    signed: bool, device: torch.device
) -> None:
    codec = Blockwise("dynamic", signed)
    entries = dynamic_codebook(signed)
    exact = (entries[1:].double() + entries[:-1].double()) / 2
    ends = torch.tensor([-torch.inf, torch.inf])
    beside = [around for m in exact.float() for around in (m.nextafter(ends[0]), m, m.nextafter(ends[1]))]
    # The scale 1 leaves the ratios as they are.
    values = torch.cat([torch.stack(beside), entries, torch.tensor([1.0])])
    parts = encode(values, codec, device)
    expected = torch.searchsorted(exact, values.double())  # as many middles are below, exactly
    assert parts["codes"].tolist() == expected.tolist()


def test_linear_codes_round_halves_to_even(device: torch.device) -> None:
    codec = Blockwise("linear", True)
    halves = torch.arange(-126.5, 127.0)
    parts = encode(torch.cat([halves / 127, torch.tensor([1.0])]), codec, device)
    exact = (torch.cat([halves, torch.tensor([127.0])]) / 127) * 127 == torch.cat([halves, torch.tensor([127.0])])
    assert exact.sum() > 100  # the others are no halves as float32
    expected = torch.cat([halves, torch.tensor([127.0])]).round()
    assert torch.equal(parts["codes"].float()[exact], expected[exact])


@pytest.mark.parametrize("codec", CODECS)
def test_zeros_have_the_scale_zero_and_decode_to_zeros(codec: Blockwise, device: torch.device) -> None:
    values = torch.zeros(codec.block_size + 3)
    values[: codec.block_size - 1] = 1.0
    parts = encode(values, codec, device)
    assert parts["scales"].tolist() == [1.0, 0.0]
    assert torch.equal(codec.decode(parts), values)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("factor", [2.0**-140, 2.0**-120, 2.0**120], ids=["denormal", "tiny", "huge"])
def test_codes_do_not_depend_on_the_scale(codec: Blockwise, factor: float, device: torch.device) -> None:
    values = torch.arange(300.0) / 256  # stay exact as denormals
    assert torch.equal(encode(values * factor, codec, device)["codes"], encode(values, codec, device)["codes"])


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_not_finite_makes_its_block_not_finite(codec: Blockwise, bad: float, device: torch.device) -> None:
    values = torch.ones(2 * codec.block_size)
    values[3] = bad
    parts = encode(values, codec, device)
    assert not parts["scales"][0].isfinite() and parts["scales"][1] == 1.0


@settings(max_examples=12)
@given(
    codec=st.builds(
        Blockwise, st.sampled_from(["linear", "dynamic"]), st.booleans(), st.sampled_from([100, 256, 2048])
    ),
    values=st.lists(st.floats(-(2.0**120), 2.0**120, width=32), min_size=1, max_size=300),
)
def test_decoding_errs_by_half_a_step_at_most(device: torch.device, codec: Blockwise, values: list[float]) -> None:
    state = torch.tensor(values) if codec.signed else torch.tensor(values).abs()
    parts = encode(state, codec, device)
    own, nearest = distances(state, parts, codec)
    assert (own <= nearest + 3e-7).all()
    decoded = codec.decode(parts).double()
    scales = parts["scales"].double().repeat_interleave(codec.block_size)[: len(state)]
    widest = np.diff(levels(codec)).max() / 2
    assert ((decoded - state.double()).abs() <= scales * (widest + 3e-7) + 1e-44).all()
