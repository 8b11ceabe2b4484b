"""Bytes of optimizer states: those of real optimizers, and those that paper B's headline rests on."""

from pathlib import Path

import pandas as pd
import pytest

from coolbits.analysis.memory import build_memory, state_bytes
from coolbits.models.build import build_model, outline_model
from coolbits.models.presets import preset
from coolbits.optim.build import build_optimizer
from coolbits.study.optimizer_names import optimizer_preset
from coolbits.study.recipes.analysis import Memory
from coolbits.study.recipes.training import Model

NAMES = ("AdamW-32", "AdamW-8L", "AdamW-8D-b256", "SGDM-8D", "Muon-32", "Muon-8L", "Muon-8D+AdamW-8L")

# Parameters in millions (matrices, tables); GiB of fp32 Muon and of Muon-8L; their savings in percent.
PAPER = {
    "gpt-162m": (84.9, 77.2, 0.89, 0.65, 26.6, 45.8),
    "gpt-405m": (302.0, 102.9, 1.89, 1.05, 44.6, 65.2),
    "gpt-834m": (679.5, 154.4, 3.68, 1.78, 51.5, 71.3),
    "gpt-1.4b": (1208.0, 205.9, 6.03, 2.66, 55.9, 74.7),
    "gpt-2.7b": (2516.6, 257.3, 11.29, 4.27, 62.2, 79.4),
}


def recipe(models: list[str], optimizers: tuple[str, ...], vocabulary: int = 50_257) -> Memory:
    return Memory(
        models=[{"name": name, "model": preset(name, vocabulary, 2048)} for name in models],
        optimizers=[{"name": name, "optimizer": optimizer_preset(name)} for name in optimizers],
    )


def table(wanted: Memory, out: Path) -> pd.DataFrame:
    build_memory(wanted, out)
    return pd.read_parquet(out / "table.parquet")


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    wanted = recipe(list(PAPER), ("Muon-32", "Muon-8L", "Muon-8L+AdamW-8L"))
    return table(wanted, tmp_path_factory.mktemp("memory"))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("model", ["micro-neox", "micro-gpt2", "micro-qwen3"])
def test_bytes_on_no_storage_are_those_of_a_real_optimizer(model: str, name: str) -> None:
    shape = preset(model, 512, 64)
    (variant,) = recipe([model], (name,)).optimizers
    real = build_optimizer(build_model(shape, seed=0), variant.optimizer, peak_lr=1.0).state_tensors()
    measured = sum(tensor.untyped_storage().nbytes() for key, tensor in real.items() if key != "step")
    assert state_bytes(outline_model(shape), variant.optimizer).bytes.sum() == measured


@pytest.mark.parametrize("model", PAPER)
def test_the_savings_are_those_of_the_papers_models(paper: pd.DataFrame, model: str) -> None:
    """The paper's arithmetic leaves out norms and biases, a thousandth of the parameters: digits move by as much."""
    rows = paper[paper.model == model].drop_duplicates("optimizer").set_index("optimizer")
    matrices, tables, whole, coded, cut, against = PAPER[model]
    assert rows.matrices.iloc[0] / 1e6 == pytest.approx(matrices, abs=0.05)
    assert rows.tables.iloc[0] / 1e6 == pytest.approx(tables, abs=0.05)
    assert rows.total_bytes["Muon-32"] / 2**30 == pytest.approx(whole, abs=0.005 + 0.001 * whole)
    assert rows.total_bytes["Muon-8L"] / 2**30 == pytest.approx(coded, abs=0.005 + 0.003 * coded)
    assert 100 * rows.cut["Muon-8L"] == pytest.approx(cut, abs=0.1)
    assert 100 * rows.cut_adamw["Muon-8L"] == pytest.approx(against, abs=0.15)
    assert 100 * rows.cut["Muon-8L+AdamW-8L"] == pytest.approx(75.0, abs=0.15)


def test_rows_add_up_and_name_what_is_exempt(paper: pd.DataFrame) -> None:
    for (_, optimizer), rows in paper.groupby(["model", "optimizer"]):
        assert rows.bytes.sum() == rows.total_bytes.iloc[0]
        exempt = rows[rows.exempt_tensors > 0]
        assert set(exempt.place) == ({"vectors"} if optimizer == "Muon-8L+AdamW-8L" else set())
        assert (exempt.exempt_bytes <= exempt.bytes).all() and (exempt.stored == "linear").all()
    assert paper.parameters.eq(paper.matrices + paper.tables + paper.vectors).all()


def test_a_tied_head_is_counted_once(tmp_path: Path) -> None:
    tied = Model(architecture="gpt2", config=preset("micro-gpt2", 512, 64).config)
    assert tied.config.get("tie_word_embeddings", True)
    found = table(recipe(["micro-gpt2"], ("AdamW-32",), vocabulary=512), tmp_path)
    assert found[(found.place == "tables") & (found.state == "exp_avg")].tensors.item() == 2  # tokens and positions


def test_equal_recipes_give_equal_bytes(tmp_path: Path) -> None:
    for run in ("one", "two"):
        (tmp_path / run).mkdir()
        build_memory(recipe(["micro-neox"], ("Muon-8L",)), tmp_path / run)
    one, two = ((tmp_path / run / "table.parquet").read_bytes() for run in ("one", "two"))
    assert one == two
