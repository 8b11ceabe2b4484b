"""Members of soups and merges differ in `over` and in nothing else, and the average claims nothing of theirs."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from coolbits.artifacts.errors import CoolbitsError
from coolbits.study.plan import Plan

TWO = {"at": 640, "length": 320, "data_seed": [100, 101]}
ONE = {"at": 640, "length": 320}
Planned = Callable[[Mapping[str, Any]], Plan]


@pytest.fixture
def souped(tiny: dict[str, Any], planned: Planned) -> Callable[..., Plan]:
    """Plan a soup (or, with weights, a merge) over the trunk with changed fields."""

    def plan(over: str, weights: list[float] | None = None, **fields: Any) -> Plan:
        tiny["runs"]["trunk"] |= fields
        kind = {"kind": "merge", "weights": weights} if weights else {"kind": "soup"}
        return planned(tiny | {"averages": {"soup": {"run": "trunk", "over": over} | kind}})

    return plan


def members(plan: Plan, *fields: str) -> list[list[tuple[Any, ...]]]:
    """Of each soup, of each member: fields of its trajectory, and the order of the data of its trunk (`trunk`)."""
    tracks = {track.name: track for track in plan.tracks}

    def of(name: str) -> tuple[Any, ...]:
        recipe, trunk = tracks[name].recipe, tracks[tracks[name].family].recipe
        return tuple(trunk.data_seed if field == "trunk" else getattr(recipe, field) for field in fields)

    soups = [[ref.name.partition("/")[0] for ref in node.parents.values()] for node in plan.of_kind("average")]
    return sorted([of(name) for name in names] for names in soups)


def rows(plan: Plan) -> list[dict[str, Any]]:
    """The columns of the averages, each once, in the order of the plan."""
    (table,) = (node for node in plan.of_kind("table") if node.name == "tiny/loss")
    columns = [row["columns"] for row in table.recipe["rows"]]
    return [row for row in columns if row["source"] == "average" and row["quantizer"] == "none"]


def test_a_soup_joins_branches_that_differ_only_in_their_data(souped: Callable[..., Plan]) -> None:
    plan = souped("data_seed", cooldowns=TWO | {"data_seed": [1, 2, 3]})
    assert members(plan, "data_seed") == [[(1,), (2,), (3,)]]
    assert plan.of_kind("average")[0].recipe["members"] == 3


def test_branches_of_several_trunks_make_a_soup_a_trunk(souped: Callable[..., Plan]) -> None:
    plan = souped("data_seed", data_seed=[0, 1, 2], cooldowns=TWO)
    assert members(plan, "data_seed", "trunk") == [[(100, trunk), (101, trunk)] for trunk in (0, 1, 2)]


def test_trunks_that_differ_in_the_data_have_one_soup_of_their_branches(souped: Callable[..., Plan]) -> None:
    assert members(souped("data_seed", data_seed=[0, 1, 2], cooldowns=ONE), "trunk") == [[(0,), (1,), (2,)]]


def test_a_soup_over_rates_keeps_to_one_order_of_the_data(souped: Callable[..., Plan]) -> None:
    plan = souped("peak_lr", peak_lr=[1e-2, 2e-2], data_seed=[0, 1], cooldowns=ONE)
    assert members(plan, "data_seed", "peak_lr") == [[(order, 0.01), (order, 0.02)] for order in (0, 1)]


def test_so_it_does_if_the_trunks_differ_in_their_order_alone(souped: Callable[..., Plan]) -> None:
    plan = souped("peak_lr", peak_lr=[1e-2, 2e-2], data_seed=[0, 1], cooldowns=ONE | {"data_seed": 100})
    assert members(plan, "trunk", "peak_lr") == [[(order, 0.01), (order, 0.02)] for order in (0, 1)]


def test_the_order_of_the_data_goes_with_the_seed_where_it_follows_it(souped: Callable[..., Plan]) -> None:
    assert members(souped("seed", seed=[3, 4], cooldowns=ONE), "seed", "data_seed") == [[(3, 3), (4, 4)]]


def test_it_does_not_where_it_is_set(souped: Callable[..., Plan]) -> None:
    plan = souped("seed", seed=[0, 1], data_seed=[0, 1], cooldowns=ONE)
    assert members(plan, "data_seed", "seed") == [[(order, 0), (order, 1)] for order in (0, 1)]


def test_it_may_be_set_in_the_branches_alone(souped: Callable[..., Plan]) -> None:
    plan = souped("seed", seed=[0, 1], cooldowns=ONE | {"data_seed": 1})
    assert members(plan, "seed", "data_seed", "trunk") == [[(0, 1, 0), (1, 1, 1)]]


def test_a_checkpoint_of_two_run_lengths_is_no_pair(souped: Callable[..., Plan]) -> None:
    with pytest.raises(CoolbitsError, match=r"^averages\.soup\.over: no two trajectories of 'trunk' differ in data_s"):
        souped("data_seed", tokens=[1280, 1920], cooldowns=ONE)


def test_a_trajectory_alone_is_refused_beside_pairs(souped: Callable[..., Plan]) -> None:
    with pytest.raises(CoolbitsError, match=r"^averages\.soup\.over: the trajectory \S+ of 'trunk' differs from every"):
        souped("data_seed", cooldowns=[TWO, {"at": 1280, "length": 320}])


def test_a_soup_of_one_is_refused(souped: Callable[..., Plan]) -> None:
    with pytest.raises(CoolbitsError, match=r"^averages\.soup\.over: no two trajectories of 'trunk' differ in data_s"):
        souped("data_seed")


def test_weights_are_one_a_member_of_each_merge(souped: Callable[..., Plan]) -> None:
    plan = souped("data_seed", [0.3, 0.7], data_seed=[0, 1], cooldowns=TWO)
    assert [node.recipe["weights"] for node in plan.of_kind("average")] == [[0.3, 0.7]] * 2


def test_an_average_claims_what_its_members_share(souped: Callable[..., Plan]) -> None:
    plan = souped("data_seed", cooldowns=TWO)
    (row,), (trunk, one, other, *_) = rows(plan), plan.tracks
    assert row["members"].split() == [one.name, other.name]
    assert (row["data_seed"], row["seed"], row["peak_lr"], row["family"]) == (None, 0, 0.01, trunk.name)


@pytest.mark.parametrize(
    ("over", "fields", "unknown"),
    [
        ("peak_lr", {"peak_lr": [1e-2, 2e-2]}, {"peak_lr", "lr", "family"}),
        ("seed", {"seed": [0, 1]}, {"seed", "data_seed", "family"}),
        ("data_seed", {"data_seed": [0, 1]}, {"data_seed", "family"}),
    ],
)
def test_of_what_it_goes_over_it_claims_nothing(
    souped: Callable[..., Plan], over: str, fields: dict[str, Any], unknown: set[str]
) -> None:
    plan = souped(over, cooldowns=ONE, **fields)
    (row,) = rows(plan)
    member = plan.of_kind("average")[0].parents["member.0"].name.partition("/")[0]
    known = next(track for track in plan.tracks if track.name == member)
    shared = known.row(known.steps[-1])
    assert {name for name in row if row[name] is None and shared.get(name) is not None} == unknown


def test_each_average_is_a_model_of_its_own(souped: Callable[..., Plan]) -> None:
    """Tables tell models by trajectory and step: no average goes by the name of a member, or of another average."""
    plan = souped("data_seed", data_seed=[0, 1], cooldowns=TWO)
    names = {row["trajectory"] for row in rows(plan)}
    assert len(names) == 2 and names.isdisjoint(track.name for track in plan.tracks)
