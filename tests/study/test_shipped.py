"""The larger studies that ship: each is planned whole, and figures of paper A would show the runs that they name."""

from functools import cache
from pathlib import Path

import pandas as pd
import pytest

from coolbits.figures.registry import plot
from coolbits.figures.tables import describe
from coolbits.rows import ends
from coolbits.settings import of_main_decays
from coolbits.study.load import load_study
from coolbits.study.plan import Plan, make_plan
from coolbits.study.recipes.results import Table

STUDIES = Path(__file__).parents[2] / "workflow" / "studies"
# What these read must be there when they are planned.
WITH_FILES = {"smollm2-135m", "vision-fashion-mnist"}
PLANNED = sorted(path.stem for path in STUDIES.glob("*.yaml") if path.stem not in WITH_FILES)
STEP = 524_288  # tokens
SCORED = {"outcome": "complete", "base_loss": 3.4, "loss": 3.5, "relative_error": 0.03, "documents": 9, "fallbacks": 0}


@cache
def planned(name: str) -> Plan:
    return make_plan(STUDIES / f"{name}.yaml")


def losses(name: str) -> pd.DataFrame:
    """The study's table of losses, as if every run had come to its end."""
    (table,) = (node for node in planned(name).of_kind("table") if node.name.endswith("/loss"))
    return describe(Table.model_validate(table.recipe)).assign(**SCORED, diverged_step=None)


@pytest.mark.parametrize("name", PLANNED)
def test_it_is_planned_with_all_its_figures(name: str) -> None:
    study = load_study(STUDIES / f"{name}.yaml")
    assert len(planned(name).of_kind("figure")) == len(study.figures) > 0


def test_cosine_runs_stand_beside_the_cooldowns_that_end_where_they_do() -> None:
    """Paper A, Figure 21: 18,000 steps, not the 38,000 of Figure 7, of which there are more and none ends there."""
    table = losses("paper-a-160m")
    whole = ends(table[(table.quantizer == "gptq-w4") & (table.peak_lr == 3e-3) & (table.optimizer == "adamw")])
    of_schedule = {rows.schedule.iloc[0]: rows for rows in of_main_decays(whole[whole.weight_decay == 0.1])}
    assert set(of_schedule["cosine"].tokens) < set(of_schedule["wsd"].tokens)
    assert sorted(of_schedule["wsd"].tokens // STEP) == [20_000, 54_000, 88_000, 122_000, 156_000, 190_000]


@pytest.mark.parametrize(
    ("name", "figure", "says"),
    [
        ("paper-a-160m", "adamc", "pythia-160m, runs of 99.6B tokens"),
        ("paper-a-160m", "adamc", "(AdamC-32 at 0.003; AdamW-32 at 0.003)"),
        ("paper-a-160m", "norms", "(AdamC-32 at 0.003; AdamW-32 at 0.003)"),
        ("paper-a-160m", "tokens-bitsandbytes", "(4-bit FP4 and 8-bit INT8)"),
        ("paper-a-160m", "weight-decay-4-bit", "pythia-160m, AdamW, peak rate 0.003. a:"),
        ("paper-a-10b", "rates-4-bit", "pythia-160m, AdamW, weight decay 0.1. a:"),
        ("lowbit-muon", "rates-muon", "gpt-834m, Muon, weight decay 0.1. a:"),
    ],
)
def test_a_figure_shows_the_runs_that_its_study_says(name: str, figure: str, says: str) -> None:
    choice = load_study(STUDIES / f"{name}.yaml").figures[figure]
    assert says in plot(choice.figure).caption({"loss": losses(name)}, choice.options, "scale")
