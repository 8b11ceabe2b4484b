import pytest
from pydantic import ValidationError

from coolbits.study.recipes.averaging import Average


def test_soup_and_lawa_weigh_members_equally() -> None:
    assert Average(kind="soup", members=4).shares() == (0.25,) * 4
    assert Average(kind="lawa", members=5).shares() == (0.2,) * 5


def test_a_merge_has_its_own_weights_and_an_ema_powers_of_its_decay() -> None:
    assert Average(kind="merge", members=2, weights=(0.9, 0.1)).shares() == (0.9, 0.1)
    assert Average(kind="ema", members=3, decay=0.5).shares() == (0.25, 0.25, 0.5)


def test_weights_of_a_merge_that_were_rounded_sum_to_one() -> None:
    """So that equal members average to themselves."""
    shares = Average(kind="merge", members=3, weights=(0.3333333,) * 3).shares()
    assert shares == pytest.approx((1 / 3,) * 3, rel=1e-15)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"kind": "merge", "members": 2, "weights": (0.9, 0.2)}, "weights must sum to 1, these sum to 1.1"),
        ({"kind": "merge", "members": 3, "weights": (0.9, 0.1)}, "2 are given for 3 members"),
        ({"kind": "merge", "members": 2}, "weights belong to a merge"),
        ({"kind": "soup", "members": 2, "weights": (0.9, 0.1)}, "weights belong to a merge.*this is a soup"),
        ({"kind": "ema", "members": 2}, "decay belongs to an ema"),
        ({"kind": "lawa", "members": 2, "decay": 0.9}, "decay belongs to an ema.*this is a lawa"),
        ({"kind": "soup", "members": 1}, "greater than or equal to 2"),
    ],
)
def test_knobs_of_another_kind_are_refused(recipe: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Average(**recipe)
