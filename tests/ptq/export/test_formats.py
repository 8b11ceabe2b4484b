import pytest
import torch

from coolbits.models.activations import OutlierRounding, TokenRounding
from coolbits.models.layers import IntegerLayer, RotatedLayer, neighbouring_groups
from coolbits.models.quantized import QuantizedModel
from coolbits.ptq.export.compressed_tensors import COMPRESSED_TENSORS
from coolbits.ptq.export.formats import Scheme, scheme_of, with_neighbours
from coolbits.ptq.export.gptq_format import GPTQ_FORMAT
from coolbits.ptq.export.model import FORMATS
from coolbits.ptq.rtn import round_to_nearest
from coolbits.study.recipes.methods import Grid


def layer(
    bits: int = 4, group_size: int | None = 16, symmetric: bool = True, outputs: int = 32, inputs: int = 64
) -> IntegerLayer:
    weight = torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(0)) + 0.3
    return round_to_nearest(weight, Grid(bits=bits, group_size=group_size, symmetric=symmetric))


def reordered(index: torch.Tensor, **grid: int | None) -> IntegerLayer:
    own = layer(**grid)
    return IntegerLayer(own.bits, own.symmetric, own.codes, own.scales, own.zeros, index.to(torch.int32))


def one(own: IntegerLayer) -> QuantizedModel:
    return QuantizedModel({"block.0.up": own})


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("group_size", [16, None], ids=["g16", "channel"])
@pytest.mark.parametrize("symmetric", [True, False], ids=["symmetric", "asymmetric"])
def test_a_reader_sees_the_weight_that_the_codes_stand_for(form, bits, group_size, symmetric):
    own = layer(bits, group_size, symmetric)
    assert form.why_not(one(own)) is None
    config = form.config(one(own), [], False)
    assert torch.equal(form.weight(form.tensors(own, config), config), own.weight())


def test_gptq_keeps_groups_of_scattered_inputs_by_their_index():
    scattered = reordered(torch.arange(64) % 4)
    config = GPTQ_FORMAT.config(one(scattered), [], False)
    parts = GPTQ_FORMAT.tensors(scattered, config)
    assert config["desc_act"] is True
    assert torch.equal(parts["g_idx"], scattered.group_index)
    assert torch.equal(GPTQ_FORMAT.weight(parts, config), scattered.weight())


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
def test_whole_groups_in_another_order_are_renumbered_along_the_inputs(form):
    swapped = reordered(torch.tensor([2, 0, 3, 1]).repeat_interleave(16))
    config = form.config(one(swapped), [], False)
    assert config.get("desc_act", False) is False
    assert torch.equal(form.weight(form.tensors(swapped, config), config), swapped.weight())


def test_only_neighbours_can_be_renumbered():
    assert with_neighbours(reordered(torch.arange(64) % 4)) is None
    assert torch.equal(with_neighbours(layer()).group_index, neighbouring_groups(64, 16))


def test_version_1_of_the_gptq_format_stores_zero_points_less_one():
    parts = GPTQ_FORMAT.tensors(layer(bits=4), GPTQ_FORMAT.config(one(layer(bits=4)), [], False))
    assert {word & 0xFFFFFFFF for word in parts["qzeros"].flatten().tolist()} == {0x77777777}


def test_an_asymmetric_model_is_version_2_since_its_zero_points_may_be_0():
    weight = torch.rand(32, 64, generator=torch.Generator().manual_seed(0)) + 0.1
    positive = round_to_nearest(weight, Grid(bits=4, group_size=16, symmetric=False))
    assert positive.zeros.max() == 0
    config = GPTQ_FORMAT.config(one(positive), [], False)
    assert config["checkpoint_format"] == "gptq_v2"
    assert torch.equal(GPTQ_FORMAT.weight(GPTQ_FORMAT.tensors(positive, config), config), positive.weight())


def test_activations_are_rounded_a_token_at_a_time_and_their_weights_take_a_byte_each():
    own = layer(bits=8, group_size=None)
    model = QuantizedModel({"block.0.up": own}, activations=TokenRounding(bits=8, symmetric=True))
    config = COMPRESSED_TENSORS.config(model, ["lm_head"], False)
    group = config["config_groups"]["group_0"]
    assert config["format"] == group["format"] == "int-quantized"
    assert config["ignore"] == ["lm_head"]
    assert (group["input_activations"]["strategy"], group["input_activations"]["dynamic"]) == ("token", True)
    assert COMPRESSED_TENSORS.tensors(own, config)["weight"].dtype == torch.int8


@pytest.mark.parametrize("bits", [3, 8])
@pytest.mark.parametrize("symmetric", [True, False], ids=["symmetric", "asymmetric"])
def test_beside_rounded_activations_codes_and_zero_points_are_signed_bytes(bits, symmetric):
    own = layer(bits, symmetric=symmetric)
    model = QuantizedModel({"block.0.up": own}, activations=TokenRounding(bits=8, symmetric=True))
    config = COMPRESSED_TENSORS.config(model, [], False)
    parts = COMPRESSED_TENSORS.tensors(own, config)
    assert torch.equal(parts["weight"].int(), own.codes.int() - 2 ** (bits - 1))
    assert torch.equal(COMPRESSED_TENSORS.weight(parts, config), own.weight())


def test_compressed_tensors_say_how_many_inputs_share_a_scale():
    configs = [COMPRESSED_TENSORS.config(one(layer(group_size=size)), [], False) for size in (16, None)]
    weights = [config["config_groups"]["group_0"]["weights"] for config in configs]
    assert [(each["strategy"], each["group_size"]) for each in weights] == [("group", 16), ("channel", None)]


def test_the_gptq_format_says_minus_one_of_a_scale_a_row():
    assert [GPTQ_FORMAT.config(one(layer(group_size=size)), [], False)["group_size"] for size in (16, None)] == [16, -1]


def test_the_gptq_format_says_whether_the_head_is_quantized():
    assert [GPTQ_FORMAT.config(one(layer()), [], head)["lm_head"] for head in (False, True)] == [False, True]


def test_the_grid_is_read_off_the_layers():
    wide, narrow = layer(group_size=None, inputs=64), layer(group_size=None, inputs=32)
    assert scheme_of(QuantizedModel({"a": wide, "b": narrow})) == Scheme(4, None, True)
    assert scheme_of(QuantizedModel({"a": layer(), "b": layer(inputs=16)})) == Scheme(4, 16, True)


REFUSED = {
    "rotated": (QuantizedModel({"up": RotatedLayer(layer(), seed=0)}), "stored as rotated", None),
    "real zeros": (
        one(IntegerLayer(4, False, layer().codes, layer().scales, layer().scales, layer().group_index)),
        "no integers",
        None,
    ),
    "mixed bits": (QuantizedModel({"a": layer(bits=3), "b": layer(bits=4)}), "differ in bits", None),
    "outliers": (
        QuantizedModel({"a": layer(bits=8)}, activations=OutlierRounding(6.0, "float16")),
        "LLM.int8",
        None,
    ),
    "scattered groups": (one(reordered(torch.arange(64) % 4)), "activation order", "gptq"),
    "5 bits": (one(layer(bits=5)), "5 bits", "compressed-tensors"),
    "odd width": (one(layer(bits=3, outputs=40)), "40 x 64, not multiples of 32", "compressed-tensors"),
    "activations": (
        QuantizedModel({"a": layer(bits=8)}, activations=TokenRounding(8, True)),
        "rounds activations",
        "compressed-tensors",
    ),
}


@pytest.mark.parametrize(("model", "reason", "able"), REFUSED.values(), ids=REFUSED)
def test_what_a_format_cannot_hold_is_told(model, reason, able):
    refusals = {name: form.why_not(model) for name, form in FORMATS.items()}
    assert [name for name, refusal in refusals.items() if refusal is None] == ([able] if able else [])
    assert any(reason in refusal for refusal in refusals.values() if refusal)
