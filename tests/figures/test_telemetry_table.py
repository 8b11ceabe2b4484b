"""The table of telemetry: every trajectory's rows with what describes it, those of diverged ones included."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from coolbits.artifacts.code import Slice
from coolbits.artifacts.errors import CoolbitsError
from coolbits.artifacts.node import Node, make_node
from coolbits.artifacts.store import Store
from coolbits.figures.tables import build_table
from coolbits.study.recipes.results import TRAJECTORY_COLUMNS, Row, Table

COLUMNS = dict.fromkeys(TRAJECTORY_COLUMNS) | {"model": "micro", "optimizer": "adamw", "states": "8L"}
MEASURED = pd.DataFrame(
    {
        "step": [1, 1, 5],
        "tokens": [64, 64, 320],
        "parameter": ["a.weight", "b.weight", "a.weight"],
        "layer": pd.array([0, None, 0], dtype="Int64"),
        "zero_share": [0.2, 0.0, 0.3],
    }
)

Checkpoint = Callable[..., Node]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "results", Slice("test", {}))


@pytest.fixture
def checkpoint(store: Store) -> Checkpoint:
    """A function that makes a checkpoint with this telemetry, or none, and summary."""

    def make(label: str, frame: pd.DataFrame | None, metrics: pd.DataFrame | None = None, **summary: Any) -> Node:
        def build(out: Path) -> dict[str, Any]:
            for name, table in (("telemetry", frame), ("metrics", metrics)):
                if table is not None:
                    table.to_parquet(out / f"{name}.parquet", index=False)
            return summary

        node = make_node("checkpoint", f"{label}/step_0000005", {"step": 5}, {})
        store.ensure(node, build)
        return node

    return make


@pytest.fixture
def table(store: Store, tmp_path: Path) -> Callable[..., pd.DataFrame]:
    """A function that builds the table of these checkpoints, each a run of its own."""

    def build(*nodes: Node) -> pd.DataFrame:
        rows = tuple(
            Row(evaluation=node.name, columns=COLUMNS | {"run": node.name.partition("/")[0]}) for node in nodes
        )
        directories = {node.name: node.directory(store.root) for node in nodes}
        (tmp_path / "out").mkdir()
        build_table(Table(content="telemetry", rows=rows), directories, store.root, tmp_path / "out")
        return pd.read_parquet(tmp_path / "out" / "table.parquet")

    return build


def test_rows_keep_their_steps_and_are_described(checkpoint: Checkpoint, table: Callable[..., pd.DataFrame]) -> None:
    rows = table(checkpoint("one", MEASURED), checkpoint("lost", MEASURED[:2], outcome="diverged", diverged_step=4))
    found = rows[["run", "step", "parameter", "zero_share", "outcome"]].to_numpy().tolist()
    assert found == [
        ["one", 1, "a.weight", 0.2, "complete"],
        ["one", 1, "b.weight", 0.0, "complete"],
        ["one", 5, "a.weight", 0.3, "complete"],
        ["lost", 1, "a.weight", 0.2, "diverged"],
        ["lost", 1, "b.weight", 0.0, "diverged"],
    ]
    assert rows.diverged_step.dropna().tolist() == [4, 4]
    assert set(rows.states) == {"8L"}


@pytest.mark.parametrize("frame", [None, MEASURED[:0]], ids=["a branch of a diverged trunk", "diverged at once"])
def test_a_run_that_diverged_before_anything_was_measured_has_a_row(
    frame: pd.DataFrame | None, checkpoint: Checkpoint, table: Callable[..., pd.DataFrame]
) -> None:
    rows = table(checkpoint("one", MEASURED), checkpoint("lost", frame, outcome="diverged", diverged_step=1))
    assert len(rows) == 4
    lost = rows.iloc[-1]
    assert (lost.run, lost.outcome, lost.step, lost.diverged_step) == ("lost", "diverged", 1, 1)
    assert pd.isna(lost.parameter) and pd.isna(lost.tokens)


def test_its_row_has_the_tokens_by_then_if_its_losses_were_logged(
    checkpoint: Checkpoint, table: Callable[..., pd.DataFrame]
) -> None:
    metrics = pd.DataFrame({"step": [1, 4], "tokens": [64, 256], "loss": [3.0, 9.0]})
    rows = table(checkpoint("lost", None, metrics, outcome="diverged", diverged_step=3))
    assert rows.tokens.tolist() == [192]


def test_a_checkpoint_without_telemetry_is_an_error(checkpoint: Checkpoint, table: Callable[..., pd.DataFrame]) -> None:
    with pytest.raises(CoolbitsError, match=r"telemetry\.parquet: no telemetry"):
        table(checkpoint("plain", None))
