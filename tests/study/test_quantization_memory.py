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


# Three layers that read 8 numbers, one that reads 32.
SMALL = Sizes(
    parameters=5000,
    outside=100,
    block=1024,
    matrix=512,
    quantized=1024,
    head=800,
    groups=((24, 8), (8, 8), (64, 8), (8, 32)),
    width=8,
    inner_width=32,
)
FEW, MANY = Windows(sequences=1, sequence_length=16), Windows(sequences=4, sequence_length=16)
LONG = Windows(sequences=1, sequence_length=20_000)
CHUNK = Windows(sequences=1024, sequence_length=16)  # 16,384 tokens
AWQ_FEW = AWQ(grid=Grid(bits=4, group_size=64), calibration=FEW)
# Float32 numbers that a block of `SMALL` holds of a token, three of its width and four of the MLP's; and while GPTQ
# quantizes the last layer of an MLP.
BUSY, PAUSED = 3 * 8 + 4 * 32, 3 * 8 + 32
BLOCK = 4 * 1024
AT_THE_WORST = {
    "attention outweighs the MLP": (
        {"groups": ((100, 8),)},
        {"method": gptq(calibration=LONG, sequential="none")},
        BLOCK + 4 * 20_000 * (3 * 8 + 2 * 100 + 2 * 8) + (8 + 4) * 8**2,
    ),
    "the embedding is there": ({"outside": 50_000}, {"method": AWQ_FEW}, BLOCK + 4 * 50_000 + 4 * 16 * BUSY),
    "a Hessian is summed": (
        {},
        {"method": gptq(calibration=MANY)},
        BLOCK + 4 * 1024 + (8 + 4) * 32**2 + 4 * 64 * BUSY,
    ),
    "a block's Hessians are summed": (
        {},
        {"method": gptq(calibration=MANY, sequential="block")},
        BLOCK + 4 * 1024 + (8 + 4) * (3 * 8**2 + 32**2) + 4 * 64 * BUSY,
    ),
    "one sequence is longer than a chunk": (
        {},
        {"method": gptq(calibration=LONG)},
        BLOCK + 4 * 1024 + (8 + 4) * 32**2 + 4 * 20_000 * BUSY,
    ),
    "a Hessian is factored while the only chunk waits": (
        {},
        {"method": gptq(calibration=FEW)},
        BLOCK + 4 * 1024 + 4 * 16 * PAUSED + 4 * 8 * 32**2,
    ),
    "the only chunk is a full one": (
        {"groups": ((8, 10_000),)},
        {"method": gptq(calibration=CHUNK)},
        BLOCK + 4 * 80_000 + 4 * 16_384 * PAUSED + 4 * 8 * 10_000**2,
    ),
    "a rotated one": (
        {},
        {"method": gptq(calibration=FEW), "rotation": Rotation()},
        BLOCK + 4 * 1024 + 4 * 16 * PAUSED + 6 * 8 * 32**2,
    ),
    "one in float32": (
        {"inner_width": 8},
        {"method": gptq(calibration=FEW, precision="float32")},
        BLOCK + 4 * 1024 + 4 * 16 * (3 * 8 + 8) + 4 * 4 * 32**2,
    ),
    "layers are swept": (
        {"groups": ((6400, 8), (8, 32))},
        {"method": gptq(calibration=FEW)},
        BLOCK + 4 * (51_200 + 256) + 4 * 16 * PAUSED + 2 * 8 * 8**2 + (16 + 2 * 8) * 51_200,
    ),
    "layers are swept while other Hessians wait": (
        {"groups": ((24, 8), (8, 8), (100, 8), (8, 32))},
        {"method": gptq(calibration=FEW, sequential="block")},
        BLOCK + 4 * (192 + 64 + 800 + 256) + 8 * 32**2 + 2 * 8 * 8**2 + (16 + 2 * 8) * 800,
    ),
    "AWQ sums": (
        {"groups": ((1, 100),) * 8},
        {"method": AWQ_FEW},
        BLOCK + (8 + 4) * 8 * 100**2 + 4 * 16 * (4 * 8 + BUSY),
    ),
    "AWQ looks for scales of inputs": (
        {"matrix": 256},
        {"method": AWQ_FEW},
        BLOCK + 8 * (3 * 8**2 + 32**2) + 4 * 16 * (4 * 8 + BUSY) + 40 * 512,
    ),
    "AWQ clips": (
        {"matrix": 5000},
        {"method": AWQ_FEW},
        BLOCK + 8 * (3 * 8**2 + 3 * 32**2) + 4 * 16 * 4 * 8 + 40 * 5000,
    ),
    "the head is swept": (
        {"head": 50_000},
        {"method": gptq(calibration=FEW), "head": True},
        2 * 4 * 50_000 + 4 * 16 * 3 * 8 + 2 * 8 * 8**2 + (16 + 2 * 8) * 50_000,
    ),
    "a head of which no copy is needed": (
        {"head": 50_000},
        {"method": gptq(calibration=FEW, sequential="none"), "head": True},
        4 * 50_000 + 4 * 16 * 3 * 8 + 2 * 8 * 8**2 + (16 + 2 * 8) * 50_000,
    ),
}


@pytest.mark.parametrize(("sizes", "recipe", "expected"), AT_THE_WORST.values(), ids=AT_THE_WORST)
def test_the_worst_moment_is_counted_by_hand(sizes: dict, recipe: dict, expected: int) -> None:
    assert device_bytes(sizes=Sizes(**vars(SMALL) | sizes), **recipe) == expected


def test_recipes_that_share_a_pass_sweep_together() -> None:
    recipes = [Quantized(method=gptq(bits, FEW, sequential="none")) for bits in (2, 3, 4)]
    swept = 8 * 32**2 + 2 * 8 * 8**2 + 3 * (16 + 2 * 8) * 512
    assert peak_bytes(SMALL, recipes, 2, accelerator=True).device == BLOCK + swept


def test_a_host_has_sums_and_hessians_in_one_precision_and_the_block_and_embedding_of_its_model() -> None:
    kept = 4 * 5000 + round(1024 * 5 / 8) + 2 * 4 * 64 * 8
    summing = Quantized(method=gptq(calibration=MANY))
    summed = 4 * 1024 + (8 + 8) * 32**2 + 4 * 64 * BUSY
    for outside in (100, 50_000):
        sizes = Sizes(**vars(SMALL) | {"outside": outside})
        assert peak_bytes(sizes, [summing], 4, accelerator=False).host == kept + summed


def test_hidden_states_are_those_of_the_longest_calibration() -> None:
    recipes = [Quantized(method=method) for method in (RTN(grid=Grid(bits=4, group_size=64)), gptq(calibration=MANY))]
    recipes.append(Quantized(method=gptq(calibration=FEW)))
    codes = 3 * round(1024 * 5 / 8)
    assert peak_bytes(SMALL, recipes, 2, accelerator=True).host == 2 * 5000 + codes + 2 * 4 * 64 * 8
