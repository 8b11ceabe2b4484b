"""The stage of analyses, as a job runs it."""

from pathlib import Path

import pandas as pd
import pytest

from coolbits.analysis import stage
from coolbits.artifacts.code import Slice
from coolbits.artifacts.job import Job
from coolbits.artifacts.manifest import read_manifest
from coolbits.artifacts.node import Node, make_node
from coolbits.artifacts.store import Store
from coolbits.models.presets import preset
from coolbits.study.optimizer_names import optimizer_preset
from coolbits.study.recipes.analysis import Analysis, Memory, Theory


@pytest.fixture
def nodes() -> tuple[Node, Node]:
    memory = Memory(
        models=[{"name": "micro", "model": preset("micro-neox", 128, 16)}],
        optimizers=[{"name": "Muon-8L", "optimizer": optimizer_preset("Muon-8L")}],
    )
    theory = Theory(rows=8, columns=16, seeds=1, block_size=32, adam_block_sizes=(32,))
    return tuple(make_node("analysis", one.kind, Analysis(analysis=one).identity(), {}) for one in (memory, theory))


def test_each_analysis_has_its_table_and_is_kept(nodes: tuple[Node, Node], tmp_path: Path) -> None:
    store, job = Store(tmp_path, Slice("test", {})), Job("analysis", "analyses", nodes)
    assert stage.run(job, store) == 2
    memory, theory = (node.directory(tmp_path) for node in nodes)
    assert set(pd.read_parquet(memory / "table.parquet").optimizer) == {"Muon-8L"}
    assert set(pd.read_parquet(theory / "table.parquet").source) == {"gaussian", "heavy-tailed", "ill-conditioned"}
    summary = read_manifest(theory).summary
    assert summary["held"] == summary["bounds"] > 0
    assert stage.run(job, store) == 0
