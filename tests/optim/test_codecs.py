"""Block-wise codes: what they are, how far they are from the state, and what they refuse."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from coolbits.optim.codebook import dynamic_codebook
from coolbits.optim.codecs import Blockwise, Float32

CODECS = [Blockwise(kind, signed, 7) for kind in ("linear", "dynamic") for signed in (True, False)]
EVERY_CODEC = pytest.mark.parametrize(
    "codec", CODECS, ids=lambda codec: f"{codec.kind}-{'signed' if codec.signed else 'unsigned'}"
)
# Below this, products are denormal numbers with fewer bits.
DENORMAL = 2**-126
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False, max_value=2.0**126, min_value=-(2.0**126))


def state_of(numbers: list[float], codec: Blockwise) -> Tensor:
    state = torch.tensor(numbers)
    return state if codec.signed else state.abs()


def by_hand(state: Tensor, codec: Blockwise) -> tuple[list[int], list[float]]:
    """Codes and scales, block by block and number by number."""
    codes, scales = [], []
    for block in state.flatten().split(codec.block_size):
        scale = block.abs().max()
        scales.append(scale.item())
        for ratio in block / scale if scale else torch.zeros_like(block):
            if codec.kind == "linear":
                codes.append(round((ratio * codec.levels).item()))
            else:
                codes.append(int((ratio.double() - dynamic_codebook(codec.signed).double()).abs().argmin()))
    return codes, scales


def blocks_of(state: Tensor, scales: Tensor, codec: Blockwise) -> Tensor:
    """The scale of each element."""
    return scales.repeat_interleave(codec.block_size)[: state.numel()].view(state.shape)


def test_float32_copies_nothing() -> None:
    state = torch.randn(3, 4)
    assert Float32().decode(Float32().encode(state)) is state


class TestLayout:
    @EVERY_CODEC
    @pytest.mark.parametrize("shape", [(), (1,), (16,), (5, 3), (2, 3, 2, 3), (0,)])
    def test_codes_have_the_states_shape_and_every_block_has_a_scale(
        self, codec: Blockwise, shape: tuple[int, ...]
    ) -> None:
        parts = codec.encode(torch.rand(shape))
        assert parts["codes"].shape == shape and parts["scales"].dtype == torch.float32
        assert parts["scales"].shape == (-(-torch.Size(shape).numel() // codec.block_size),)
        assert parts["codes"].dtype == (torch.int8 if codec.kind == "linear" and codec.signed else torch.uint8)
        assert codec.decode(parts).shape == shape and codec.decode(parts).dtype == torch.float32

    @EVERY_CODEC
    def test_the_short_last_block_is_as_if_filled_with_zeros(self, codec: Blockwise) -> None:
        state = torch.rand(19)
        filled = torch.cat([state, torch.zeros(-19 % codec.block_size)])
        short, whole = codec.encode(state), codec.encode(filled)
        assert torch.equal(short["scales"], whole["scales"]) and torch.equal(short["codes"], whole["codes"][:19])
        assert short["codes"][-1] != codec.encode(torch.zeros(1))["codes"][0], "its numbers are coded like any others"

    @EVERY_CODEC
    def test_a_state_that_is_not_contiguous_is_read_in_its_own_order(self, codec: Blockwise) -> None:
        state = torch.rand(6, 5).T
        parts, copied = codec.encode(state), codec.encode(state.contiguous())
        assert all(torch.equal(parts[name], copied[name]) for name in parts)

    @EVERY_CODEC
    def test_a_shard_of_whole_blocks_has_the_slices_of_codes_and_scales(self, codec: Blockwise) -> None:
        """What sharding along the leading dimension needs: 4 rows of 2 blocks each, two for each of two ranks."""
        state = torch.rand(4, 2 * codec.block_size)
        whole = codec.encode(state)
        for rank in range(2):
            shard = codec.encode(state[2 * rank : 2 * rank + 2])
            assert torch.equal(shard["codes"], whole["codes"][2 * rank : 2 * rank + 2])
            assert torch.equal(shard["scales"], whole["scales"][4 * rank : 4 * rank + 4])

    @EVERY_CODEC
    def test_on_the_meta_device_it_has_the_same_layout(self, codec: Blockwise) -> None:
        real, meta = codec.encode(torch.zeros(5, 3)), codec.encode(torch.zeros(5, 3, device="meta"))
        assert {name: (part.shape, part.dtype) for name, part in meta.items()} == {
            name: (part.shape, part.dtype) for name, part in real.items()
        }
        assert codec.decode(meta).shape == (5, 3)

    def test_its_label_says_what_it_is(self) -> None:
        assert Blockwise("dynamic", True).label == "8-bit dynamic (block 2,048)"
        assert Float32(below=4096).label == "float32 (under 4,096 elements)"


class TestCodes:
    @EVERY_CODEC
    @given(data=st.data())
    def test_they_are_those_found_by_hand(self, codec: Blockwise, data: st.DataObject) -> None:
        state = state_of(data.draw(st.lists(FLOATS, min_size=1, max_size=20)), codec)
        parts = codec.encode(state)
        assert (parts["codes"].tolist(), parts["scales"].tolist()) == by_hand(state, codec)

    @EVERY_CODEC
    def test_zeros_stay_zeros(self, codec: Blockwise) -> None:
        parts = codec.encode(torch.zeros(20))
        assert not parts["scales"].any() and not codec.decode(parts).any()

    @EVERY_CODEC
    @pytest.mark.parametrize("device", ["cpu", "meta"])
    def test_zeros_are_made_as_they_are_encoded(self, codec: Blockwise, device: str) -> None:
        like = torch.rand(5, 3, device=device)
        made, encoded = codec.zeros(like), codec.encode(torch.zeros_like(like))
        for name, part in encoded.items():
            assert (made[name].shape, made[name].dtype, made[name].device) == (part.shape, part.dtype, part.device)
            assert made[name].is_meta or torch.equal(made[name], part)

    @EVERY_CODEC
    def test_one_huge_value_is_kept_and_harms_its_own_block_alone(self, codec: Blockwise) -> None:
        state = torch.full((3 * codec.block_size,), 1e-3)
        state[0] = 1e30
        decoded = codec.decode(codec.encode(state))
        assert decoded[0] == pytest.approx(1e30) and not decoded[1 : codec.block_size].any()
        torch.testing.assert_close(decoded[codec.block_size :], state[codec.block_size :])

    @EVERY_CODEC
    def test_denormal_numbers_have_codes_too(self, codec: Blockwise) -> None:
        state = torch.tensor([3e-42, 2e-42, 0.0])
        parts = codec.encode(state)
        assert (parts["codes"].tolist(), parts["scales"].tolist()) == by_hand(state, codec)
        assert (codec.decode(parts) - state).abs().max() < 2e-43

    @pytest.mark.parametrize("kind", ["linear", "dynamic"])
    def test_the_largest_magnitude_is_kept_to_the_codes_end(self, kind: str) -> None:
        codec = Blockwise(kind, True, 4)
        assert codec.encode(torch.tensor([0.5, -2.0]))["codes"][1] == (-127 if kind == "linear" else 0)
        assert codec.encode(torch.tensor([0.5, 2.0]))["codes"][1] == (127 if kind == "linear" else 255)


class TestErrors:
    @EVERY_CODEC
    @given(data=st.data())
    def test_a_linear_code_is_within_half_a_step_a_dynamic_one_within_half_the_largest_gap(
        self, codec: Blockwise, data: st.DataObject
    ) -> None:
        state = state_of(data.draw(st.lists(FLOATS, min_size=1, max_size=20)), codec)
        parts = codec.encode(state)
        scales = blocks_of(state, parts["scales"], codec).double()
        gap = 1 / codec.levels if codec.kind == "linear" else dynamic_codebook(codec.signed).diff().max().item()
        rounding = 1e-6 * scales + 256 * DENORMAL * 2**-23
        assert ((codec.decode(parts).double() - state.double()).abs() <= gap / 2 * scales + rounding).all()

    @EVERY_CODEC
    @given(data=st.data())
    def test_encoding_what_was_decoded_gives_the_same_codes(self, codec: Blockwise, data: st.DataObject) -> None:
        state = state_of(data.draw(st.lists(FLOATS, min_size=1, max_size=20)), codec)
        state = torch.where(state.abs() < 512 * DENORMAL, 0.0, state)
        # Without a -1 in the codebook a block that has only that as its largest magnitude would come back smaller.
        scales = blocks_of(state, codec.encode(state)["scales"], codec)
        parts = codec.encode(torch.where(state == -scales, scales, state))
        assert torch.equal(codec.encode(codec.decode(parts))["codes"], parts["codes"])

    def test_a_largest_magnitude_that_is_negative_comes_back_smaller_from_signed_dynamic_codes(self) -> None:
        codec = Blockwise("dynamic", signed=True, block_size=2)
        parts = codec.encode(torch.tensor([0.996, -1.0]))
        assert parts["codes"].tolist() == [254, 0]
        assert codec.encode(codec.decode(parts))["codes"].tolist() == [255, 0]

    @EVERY_CODEC
    @pytest.mark.parametrize("bad", [torch.nan, torch.inf])
    def test_what_is_no_number_is_refused(self, codec: Blockwise, bad: float) -> None:
        state = torch.rand(20)
        state[13] = bad
        with pytest.raises(ValueError, match="NaN or infinity"):
            codec.encode(state)

    @EVERY_CODEC
    def test_unchecked_it_spoils_its_block_alone(self, codec: Blockwise) -> None:
        state = torch.rand(4 * codec.block_size)
        state[codec.block_size] = torch.nan
        decoded = codec.decode(codec.round(state)).view(4, -1)
        assert not decoded[1].isfinite().any() and decoded[[0, 2, 3]].isfinite().all()

    @pytest.mark.parametrize("kind", ["linear", "dynamic"])
    def test_an_unsigned_code_refuses_negative_numbers(self, kind: str) -> None:
        with pytest.raises(ValueError, match="negative"):
            Blockwise(kind, False).encode(torch.tensor([1.0, -1e-9]))
