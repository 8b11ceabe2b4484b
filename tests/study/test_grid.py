from hypothesis import given
from hypothesis import strategies as st

from coolbits.study.grid import expand, merge

NOTHING = frozenset()


def test_lists_at_any_depth_are_multiplied():
    points = expand({"a": [1, 2], "b": {"c": [3, 4], "d": 5}}, NOTHING)
    assert points == [{"a": a, "b": {"c": c, "d": 5}} for a in (1, 2) for c in (3, 4)]


def test_lists_of_dictionaries_are_alternatives():
    assert expand({"o": [{"kind": "x"}, {"kind": "y", "m": [1, 2]}]}, NOTHING) == [
        {"o": {"kind": "x"}},
        {"o": {"kind": "y", "m": 1}},
        {"o": {"kind": "y", "m": 2}},
    ]


def test_whole_keys_keep_their_lists():
    assert expand({"at": [1, 2], "b": [3]}, frozenset({"at"})) == [{"at": [1, 2], "b": 3}]


@given(st.dictionaries(st.sampled_from("abcd"), st.lists(st.integers(), min_size=1, max_size=3)))
def test_the_number_of_points_is_the_product_of_the_lengths(value):
    count = 1
    for choices in value.values():
        count *= len(choices)
    assert len(expand(value, NOTHING)) == count


def test_merge_goes_key_by_key_unless_the_kind_differs():
    base = {"optimizer": {"kind": "adamw", "beta2": 0.9}, "seed": 0}
    assert merge(base, {"optimizer": {"weight_decay": 0.2}})["optimizer"] == {
        "kind": "adamw",
        "beta2": 0.9,
        "weight_decay": 0.2,
    }
    assert merge(base, {"optimizer": {"kind": "muon"}})["optimizer"] == {"kind": "muon"}
    assert merge(base, {"seed": [1, 2]})["seed"] == [1, 2]
