from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from coolbits.artifacts.errors import CoolbitsError
from coolbits.averaging.weights import average_weights, check_alike
from coolbits.study.recipes.averaging import Average

Write = Callable[..., Path]
Tensors = Callable[..., dict[str, torch.Tensor]]


def averaged(members: list[Path], shares: tuple[float, ...], out: Path) -> dict[str, torch.Tensor]:
    average_weights(members, shares, out)
    return load_file(out / "model.safetensors")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_average_is_the_weighted_sum_in_float64_rounded_once(
    write: Write, tensors: Tensors, tmp_path: Path, dtype: torch.dtype
) -> None:
    members = [write(f"m{seed}", tensors(seed, dtype)) for seed in range(3)]
    shares = (0.2, 0.3, 0.5)
    for name, found in averaged(members, shares, tmp_path).items():
        expected = sum(share * tensors(seed, dtype)[name].double() for seed, share in enumerate(shares))
        assert torch.equal(found, expected.to(dtype))


@pytest.mark.parametrize("count", [2, 3, 5, 7, 20])
def test_equal_members_give_their_own_bits(write: Write, tensors: Tensors, tmp_path: Path, count: int) -> None:
    members = [write(f"m{index}", tensors(0)) for index in range(count)]
    recipes = (
        Average(kind="soup", members=count),
        Average(kind="ema", members=count, decay=0.9),
        Average(kind="merge", members=count, weights=(0.3, *[0.7 / (count - 1)] * (count - 1))),
    )
    for recipe in recipes:
        found = averaged(members, recipe.shares(), tmp_path)
        assert all(torch.equal(found[name], tensor) for name, tensor in tensors(0).items())


def test_the_order_of_a_soup_does_not_matter(write: Write, tensors: Tensors, tmp_path: Path) -> None:
    members = [write(f"m{seed}", tensors(seed)) for seed in range(3)]
    shares = Average(kind="soup", members=3).shares()
    forward, backward = (averaged(order, shares, tmp_path) for order in (members, members[::-1]))
    for name, tensor in forward.items():
        torch.testing.assert_close(tensor, backward[name], rtol=1e-7, atol=1e-8)


@given(st.floats(0.01, 0.99), st.integers(2, 12))
def test_an_ema_folds_its_members_in_order(decay: float, count: int) -> None:
    values = [float(index**2) for index in range(count)]
    folded = values[0]
    for value in values[1:]:
        folded = decay * folded + (1 - decay) * value
    shares = Average(kind="ema", members=count, decay=decay).shares()
    assert sum(share * value for share, value in zip(shares, values, strict=True)) == pytest.approx(folded)
    assert sum(shares) == pytest.approx(1)


def test_integers_must_be_equal(write: Write, tmp_path: Path) -> None:
    members = [write(f"m{value}", {"step": torch.tensor([value])}) for value in (3, 4)]
    assert averaged([members[0]] * 2, (0.5, 0.5), tmp_path)["step"].tolist() == [3]
    with pytest.raises(CoolbitsError, match=r"m4/model\.safetensors: step holds integers that differ"):
        average_weights(members, (0.5, 0.5), tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"c.weight": torch.zeros(1)}, "c.weight is in this member or in"),
        ({"a.weight": torch.zeros(3, 4)}, r"a.weight is float32 \[3, 4\], but float32 \[4, 3\] in .*good"),
        ({"a.weight": torch.zeros(4, 3).half()}, r"a.weight is float16 \[4, 3\], but float32 \[4, 3\] in .*good"),
        ({"b.weight": torch.full((4, 3), torch.nan)}, "b.weight holds values that are not finite"),
        ({"b.weight": torch.full((4, 3), torch.inf)}, "b.weight holds values that are not finite"),
    ],
    ids=["name", "shape", "dtype", "nan", "infinity"],
)
def test_a_misfit_is_refused_by_name(
    write: Write, tensors: Tensors, tmp_path: Path, change: dict[str, torch.Tensor], message: str
) -> None:
    members = [write("good", tensors(0)), write("bad", tensors(1) | change)]
    with pytest.raises(CoolbitsError, match=rf"bad/model\.safetensors: {message}"):
        average_weights(members, (0.5, 0.5), tmp_path)
    assert not (tmp_path / "model.safetensors").exists()


def test_a_first_member_that_is_not_finite_is_refused_too(write: Write, tensors: Tensors, tmp_path: Path) -> None:
    members = [write("bad", {"a.weight": torch.full((1,), torch.nan)}), write("good", {"a.weight": torch.ones(1)})]
    with pytest.raises(CoolbitsError, match="bad/model"):
        average_weights(members, (0.5, 0.5), tmp_path)


def test_other_architectures_are_refused_with_the_keys_that_differ(write: Write, tensors: Tensors) -> None:
    members = [write("one", tensors(0)), write("two", tensors(0), hidden_size=16, hidden_act="relu")]
    with pytest.raises(CoolbitsError, match="hidden_act is 'relu', not None, hidden_size is 16, not 8"):
        check_alike(members)


def test_other_tokenizers_are_refused(write: Write, tensors: Tensors) -> None:
    members = [write("one", tensors(0)), write("two", tensors(0), tokenizer="[]")]
    with pytest.raises(CoolbitsError, match=r"two/tokenizer\.json: another tokenizer than that of"):
        check_alike(members)


def test_the_librarys_version_is_no_part_of_the_architecture(write: Write, tensors: Tensors) -> None:
    check_alike([write("one", tensors(0)), write("two", tensors(0), transformers_version="5.1")])
