import pytest

from coolbits.artifacts.errors import CoolbitsError
from coolbits.models.presets import preset
from coolbits.models.shapes import shape_of
from coolbits.study.recipes.training import Model


def test_sizes_have_one_set_of_names_for_all_architectures() -> None:
    neox, gpt2 = shape_of(preset("micro-neox", 96, 32)), shape_of(preset("micro-gpt2", 96, 32))
    assert (neox.width, neox.layers, neox.heads, neox.inner_width, neox.positions) == (64, 4, 2, 256, 32)
    assert (gpt2.width, gpt2.layers, gpt2.heads, gpt2.inner_width, gpt2.positions) == (64, 4, 4, 256, 32)
    assert gpt2.tied and not neox.tied


def test_gpt2_has_an_mlp_of_four_times_the_width_unless_told() -> None:
    assert shape_of(preset("micro-gpt2", 96, 32, n_inner=None)).inner_width == 256


def test_qwen3_heads_are_as_wide_as_it_says() -> None:
    assert shape_of(preset("micro-qwen3", 96, 32, head_dim=32)).head_width == 32


def test_a_width_that_the_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(CoolbitsError, match="hidden_size of gpt_neox is 65; it must be a multiple of the 2 attention"):
        shape_of(preset("micro-neox", 96, 32, hidden_size=65))


def test_heads_that_the_key_value_heads_do_not_divide_are_refused() -> None:
    with pytest.raises(CoolbitsError, match=r"num_attention_heads of llama is 4; .* the 3 key-value heads"):
        shape_of(preset("micro-llama", 96, 32, num_key_value_heads=3))


@pytest.mark.parametrize(("value", "found"), [("64", "'64'"), (0, "0"), (True, "True"), (6.5, "6.5")])
def test_a_size_that_is_no_positive_integer_is_refused(value: object, found: str) -> None:
    with pytest.raises(CoolbitsError, match=f"hidden_size of llama is {found}; give a positive integer"):
        shape_of(preset("micro-llama", 96, 32, hidden_size=value))


def test_a_missing_size_is_named_as_the_library_names_it() -> None:
    with pytest.raises(CoolbitsError, match=r"model\.config\.n_embd of gpt2 is missing"):
        shape_of(Model(architecture="gpt2", config={"n_head": 4}))
