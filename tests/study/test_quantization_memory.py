"""What quantization is said to take: the model once, whatever the recipes; a block and Hessians at a time."""

import pytest

from coolbits.models.presets import preset
from coolbits.study.quantization_memory import Sizes, peak_bytes, sizes_of
from coolbits.study.recipes.calibration import Windows
from coolbits.study.recipes.methods import AWQ, GPTQ, RTN, Grid, Method, ScaleSearch
from coolbits.study.recipes.ptq import Quantized, Rotation

WINDOWS = Windows(sequences=128, sequence_length=2048)
SIZES = sizes_of(preset("llama-1.1b", 32000, 2048))


def gptq(bits: int = 4, calibration: Windows = WINDOWS, **knobs: object) -> GPTQ:
    return GPTQ(grid=Grid(bits=bits, group_size=64), calibration=calibration, **knobs)


def device_bytes(method: Method, sizes: Sizes = SIZES, **knobs: object) -> int:
    return peak_bytes(sizes, [Quantized(method=method, **knobs)], 2, accelerator=True).device


def test_the_host_keeps_model_and_codes_and_hidden_states_of_a_block() -> None:
    rtn = RTN(grid=Grid(bits=4, group_size=64))
    codes = round(SIZES.quantized * 5 / 8)  # a code of 4 bits and a share of two numbers of 32 bits
    hidden = 4 * 128 * 2048 * SIZES.width
    for accelerated in (rtn, gptq()):
        peak = peak_bytes(SIZES, [Quantized(method=accelerated)], 2, accelerator=True)
        kept = 2 * SIZES.parameters + codes
        assert peak.host == kept + (2 * hidden if accelerated is not rtn else 0)
        alone = peak_bytes(SIZES, [Quantized(method=accelerated)], 2, accelerator=False)
        assert alone.device == 0 and alone.host > peak.host


def test_a_deeper_model_takes_no_more_of_the_device() -> None:
    deeper = Sizes(**vars(SIZES) | {"parameters": 10 * SIZES.parameters, "quantized": 10 * SIZES.quantized})
    for method in (RTN(grid=Grid(bits=4)), gptq(), AWQ(grid=Grid(bits=4), calibration=WINDOWS)):
        assert device_bytes(method, deeper) == device_bytes(method)


def test_a_factorization_is_four_matrices_of_the_widest_layer() -> None:
    wide = Sizes(**vars(SIZES) | {"groups": ((64, 32), (32, 10_000)), "block": 32 * 10_064})
    work = device_bytes(gptq(), wide) - 8 * wide.block
    assert work == 4 * 8 * 10_000**2


def test_what_takes_more() -> None:
    plain = Grid(bits=4, group_size=64)
    searching = Grid(bits=4, group_size=64, search=ScaleSearch())
    assert device_bytes(RTN(grid=searching)) > device_bytes(RTN(grid=plain))
    few = gptq(calibration=Windows(sequences=4, sequence_length=2048))  # of many, the activations take most
    assert device_bytes(few, rotation=Rotation()) > device_bytes(few)
    assert device_bytes(gptq(sequential="block")) >= device_bytes(gptq())
    assert device_bytes(gptq(), SIZES) < device_bytes(AWQ(grid=plain, calibration=WINDOWS))


def test_recipes_that_are_made_at_once_share_all_but_codes_and_the_sweep() -> None:
    recipes = [Quantized(method=gptq(bits, sequential="none")) for bits in (2, 3, 4)]
    together = peak_bytes(SIZES, recipes, 2, accelerator=True)
    alone = [peak_bytes(SIZES, [recipe], 2, accelerator=True) for recipe in recipes]
    codes = [round(SIZES.quantized * (bits + 1) / 8) for bits in (2, 3, 4)]
    assert together.host == alone[0].host + codes[1] + codes[2]
    assert alone[0].device <= together.device < sum(peak.device for peak in alone)


@pytest.mark.parametrize("stored", [2, 4])
def test_on_the_host_float32_is_not_copied(stored: int) -> None:
    peak = peak_bytes(SIZES, [Quantized(method=gptq())], stored, accelerator=False)
    other = peak_bytes(SIZES, [Quantized(method=gptq())], 6 - stored, accelerator=False)
    wider = 2 * SIZES.parameters - 4 * SIZES.block
    assert abs(peak.host - other.host) == wider


def test_the_head_adds_its_codes_and_its_own_turn() -> None:
    rtn = RTN(grid=Grid(bits=4, group_size=64))
    plain, headed = (peak_bytes(SIZES, [Quantized(method=rtn, head=head)], 2, True) for head in (False, True))
    assert headed.host - plain.host == pytest.approx(SIZES.head * 5 / 8, abs=1)
    assert headed.device == plain.device * SIZES.head // SIZES.matrix
    large = Sizes(**vars(SIZES) | {"head": 100 * SIZES.head})
    for sequential in ("layer", "block", "none"):
        method = gptq(sequential=sequential)
        assert device_bytes(method, large, head=True) > 35 * large.head > device_bytes(method, large)


def test_a_small_head_takes_no_more_than_the_blocks() -> None:
    small = Sizes(**vars(SIZES) | {"head": SIZES.width})
    for method in (RTN(grid=Grid(bits=4)), gptq(), gptq(sequential="none")):
        assert device_bytes(method, small, head=True) == device_bytes(method, small)
