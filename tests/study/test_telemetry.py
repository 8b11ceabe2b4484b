"""A study that asks for telemetry gets its table, and can draw it."""

from collections.abc import Callable
from typing import Any

import pytest

from coolbits.artifacts.errors import CoolbitsError
from coolbits.study.plan import Plan

Raw = dict[str, Any]
Planned = Callable[[Raw], Plan]


def watched(tiny: Raw) -> Raw:
    """The tiny study, its trunk and branches watched and drawn."""
    tiny["runs"]["trunk"]["telemetry"] = {"every": 320, "tensors": 3}
    tiny["figures"]["telemetry"] = {"figure": "telemetry"}
    return tiny


def test_the_table_has_the_last_checkpoint_of_every_watched_trajectory(tiny: Raw, planned: Planned) -> None:
    plan = planned(watched(tiny))
    (table,) = (node for node in plan.of_kind("table") if node.name == "tiny/telemetry")
    found = {ref.name for ref in table.parents.values()}
    of_trunk = [track for track in plan.tracks if track.columns["run"] == "trunk"]
    assert len(of_trunk) == 3
    assert found == {track.checkpoint(track.steps[-1]).name for track in of_trunk}
    assert all(track.recipe.telemetry and track.recipe.telemetry.every_steps == 5 for track in of_trunk)
    (figure,) = (node for node in plan.of_kind("figure") if node.name == "tiny/telemetry")
    assert set(figure.parents) == {"telemetry"}
    row = table.recipe["rows"][0]["columns"]
    assert not {"step", "tokens", "lr", "phase"} & row.keys()


def test_a_study_without_telemetry_has_no_such_table(tiny: Raw, planned: Planned) -> None:
    assert "tiny/telemetry" not in {node.name for node in planned(tiny).of_kind("table")}
    tiny["figures"]["telemetry"] = {"figure": "telemetry"}
    with pytest.raises(CoolbitsError, match=r"figures\.telemetry: needs the table 'telemetry'"):
        planned(tiny)
